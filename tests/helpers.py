"""Provide small helpers that several tests use."""

import io
import json
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gevent
import numpy as np
from PIL import Image

from app.control.footprint import Footprint
from app.control.manifest import Entry, Manifest
from app.control.placement import Placement
from app.control.plan import Plan
from app.engines.engine import Choice, Forward, Gradients, Outputs
from app.models.bundle import Bundle
from app.models.config import DEFAULT, ModelConfig
from app.scoreboard import Scoreboard
from app.serving.loader import Loader
from app.serving.model import Model
from app.serving.prediction import HeatMapRequest, Prediction
from app.serving.routing import Target
from app.serving.server import ModelServer
from app.settings import Settings

LIGHT_GRADIENTS = np.eye(2, dtype=np.float32) * 4
ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"
STREET = SAMPLES / "street.jpg"
DEMO = ROOT / "models" / "demo" / "1"


def make_entry(name: str = "insects", version: int = 2, weights: str = "a") -> Entry:
    """Return an entry of a manifest without files behind it."""
    footprint = Footprint("eager", "fp32", "cpu", "asked for", 1000)
    return Entry(name, version, "nowhere", weights, footprint)


def make_manifest(*entries: Entry, **rest: object) -> Manifest:
    """Return a manifest of some entries; the first one's model is the default."""
    return Manifest(entries[0].name if entries else "", entries, **rest)


def wait_until(condition: Callable[[], object], timeout_s: float = 30, what: str = "") -> None:
    """Poll a condition, letting greenlets run meanwhile; fail if it does not come true in time.

    The longer it takes, the rarer the polls: many ask a starting server, which needs the processor itself.
    """
    began = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - began
        assert waited_s < timeout_s, f"not within {timeout_s} s: {what or condition}"
        gevent.sleep(min(max(waited_s / 10, 0.005), 0.1))


def predict_one(
    server: ModelServer, image: object, heat_maps: HeatMapRequest | None = None, **target: object
) -> Prediction:
    """Return the prediction for one image by the version that a request for ``target`` gets."""
    servable = server.find(Target(**target))
    (prediction,) = server.predict(servable, [image], heat_maps=heat_maps)
    return prediction


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image as a file's bytes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo_like(width: int = 60, height: int = 40, mode: str = "RGB") -> Image.Image:
    """Return a smooth image with varied values in all channels."""
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    image = Image.fromarray(noise, "RGBA")
    return image.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def gray(level: int) -> bytes:
    """Return a PNG of one gray value."""
    return encode(photo_like().point(lambda _: level), "PNG")


def bright_or_not(images: list[np.ndarray]) -> np.ndarray:
    """Replace a network: answer by the image's mean: bright, dark, both (gray) or none (black)."""
    means = np.stack(images).mean(axis=(1, 2, 3))
    table = {0: (0, 0), 1: (0, 5), 2: (2, 1), 3: (5, 0)}
    return np.float32([table[int(mean) // 64] for mean in means])


def as_forward(answer: Callable[[list[np.ndarray]], np.ndarray]) -> Forward:
    """Return a forward function with the logits of a function, and no features."""
    return lambda images, _with_features=False: Outputs(answer(images))


def see_light(images: list[np.ndarray], _with_features: bool = False) -> Outputs:
    """Replace a network with a map of 2 × 2 cells and two channels: each cell's brightness and darkness.

    A logit is its channel's sum, so its gradient there is 1, and 4 summed over the map's area.
    """
    pixels = np.stack(images).astype(np.float32) / 255
    count, channels, height, width = pixels.shape
    cells = pixels.reshape(count, channels, 2, height // 2, 2, width // 2).mean(axis=(1, 3, 5))
    features = np.stack([cells, 1 - cells], axis=1)
    return Outputs(features.sum(axis=(2, 3)), features)


@dataclass
class StubEngine:
    """An engine around a function."""

    forward: Forward
    max_batch: int = 16
    gradients: Gradients = None
    device: str = "cpu"
    precision: str = "fp32"
    lanes: int = 1

    def forward_in_lane(
        self, _lane: int, images: list[np.ndarray], with_features: bool = False
    ) -> Outputs:
        """Answer one batch."""
        return self.forward(images, with_features)

    def close(self) -> None:
        """Do nothing."""


def make_model(
    entry: Entry,
    class_names: tuple[str, ...],
    forward: Forward,
    *,
    config: ModelConfig = DEFAULT,
    engine: str = "eager",
    precision: str = "fp32",
    **own: object,
) -> Model:
    """Return a model around a function.

    Args:
        entry: its name and version.
        class_names: one for each output.
        forward: what it computes.
        config: how images are prepared and classes chosen.
        engine: which engine it says that it is.
        precision: which precision it says that it has.
        own: as ``StubEngine`` takes it.
    """
    description = "Tells bright from dark."
    bundle = Bundle(entry.name, entry.version, Path("nowhere"), class_names, description, config)
    stub = StubEngine(forward, precision=precision, **own)
    return Model(bundle, Choice(engine, precision, "cpu", 1, stub.max_batch), stub, "cpu")


def make_seeing(
    entry: Entry,
    gradients: Gradients = LIGHT_GRADIENTS,
    class_names: tuple[str, ...] = ("Bright", "Dark"),
    forward: Forward = see_light,
) -> Model:
    """Return a model with heat maps and two classes, Bright and Dark."""
    return make_model(entry, class_names, forward, gradients=gradients)


def make_light(
    entry: Entry,
    answer: Callable[[list[np.ndarray]], np.ndarray] = bright_or_not,
    class_names: tuple[str, ...] = ("Bright", "Dark"),
    **own: object,
) -> Model:
    """Return a model with two classes, Bright and Dark."""
    return make_model(entry, class_names, as_forward(answer), **own)


class StubLoader(Loader):
    """A loader that loads by a function of settings, slot and entry, onto one worker's CPU."""

    def __init__(
        self, settings: Settings, scoreboard: Scoreboard, load: Callable[..., Model], **plan: object
    ) -> None:
        super().__init__(settings, scoreboard, Plan((Placement("cpu", 1),), Manifest(), **plan))
        self._by = load

    def load(self, entry: Entry) -> Model:
        """Load a version."""
        return self._by(self._settings, self._scoreboard.slot, entry)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(side: int = 13_000) -> bytes:
    """Return a small PNG that claims side × side pixels (169 megapixels) and does hold them."""
    row = zlib.compressobj(9)
    pixels = b"".join([row.compress(bytes(1 + side // 8 + 1)) for _ in range(side)]) + row.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", pixels)
        + png_chunk(b"IEND", b"")
    )


def check_problem(response, status: int, code: str) -> str:
    """Assert that an answer (Flask's or requests') is a problem of that kind; return its detail."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    body = json.loads(response.text)
    assert (body["type"], body["status"], body["code"]) == ("about:blank", status, code)
    assert body["request_id"] == response.headers["X-Request-ID"]
    return body["detail"]
