"""Small things that several tests use."""

import io
import json
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import gevent
import numpy as np
from PIL import Image

from app.control.footprint import Footprint
from app.control.scanner import Entry, Manifest
from app.engines.outputs import Forward, Gradients, Outputs
from app.serving.model import Model

LIGHT_GRADIENTS = np.eye(2, dtype=np.float32) * 4
ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"
STREET = SAMPLES / "street.jpg"
DEMO = ROOT / "models" / "demo" / "1"


def make_entry(name: str = "insects", version: int = 2, weights: str = "a") -> Entry:
    """Return an entry of a manifest; nothing lies behind it."""
    footprint = Footprint("eager", "fp32", "cpu", "asked for", 1000)
    return Entry(name, version, "nowhere", weights, footprint)


def make_manifest(*entries: Entry, **rest: object) -> Manifest:
    """Return a manifest of some entries; the first one's model is the default."""
    return Manifest(entries[0].name if entries else "", entries, **rest)


def wait_until(condition: Callable[[], object], timeout_s: float = 30, what: str = "") -> None:
    """Poll a condition, letting greenlets run meanwhile; fail if it does not come true in time."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"not within {timeout_s} s: {what or condition}"
        gevent.sleep(0.005)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return a picture as a file's bytes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo_like(width: int = 60, height: int = 40, mode: str = "RGB") -> Image.Image:
    """Return a smooth picture with all its channels busy."""
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    image = Image.fromarray(noise, "RGBA")
    return image.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def grey(level: int) -> bytes:
    """Return a PNG of one grey."""
    return encode(photo_like().point(lambda _: level), "PNG")


def bright_or_not(images: list[np.ndarray]) -> np.ndarray:
    """Stand for a network: answer by the picture's mean: bright, dark, both (grey) or none (black)."""
    means = np.stack(images).mean(axis=(1, 2, 3))
    table = {0: (0, 0), 1: (0, 5), 2: (2, 1), 3: (5, 0)}
    return np.float32([table[int(mean) // 64] for mean in means])


def as_forward(answer: Callable[[list[np.ndarray]], np.ndarray]) -> Forward:
    """Return a forward that gives the logits which a function answers, and no features."""
    return lambda images, _with_features=False: Outputs(answer(images))


def see_light(images: list[np.ndarray], _with_features: bool = False) -> Outputs:
    """Stand for a network with a map of 2 × 2 cells and two channels: how bright each cell is, and how dark.

    A logit is its channel's sum, so its gradient there is 1, and 4 summed over the map's area.
    """
    pixels = np.stack(images).astype(np.float32) / 255
    count, channels, height, width = pixels.shape
    cells = pixels.reshape(count, channels, 2, height // 2, 2, width // 2).mean(axis=(1, 3, 5))
    features = np.stack([cells, 1 - cells], axis=1)
    return Outputs(features.sum(axis=(2, 3)), features)


def make_seeing(entry: Entry, gradients: Gradients = LIGHT_GRADIENTS) -> Model:
    """Return a model with heat maps and two classes, Bright and Dark."""
    how = ("cpu", "eager", "fp32", 16, see_light)
    return Model(entry.name, entry.version, ("Bright", "Dark"), "", *how, gradients=gradients)


def make_light(
    entry: Entry, answer: Callable[[list[np.ndarray]], np.ndarray] = bright_or_not
) -> Model:
    """Return a model with two classes, Bright and Dark."""
    told = "Tells bright from dark."
    names = ("Bright", "Dark")
    how = ("cpu", "eager", "fp32", 16, as_forward(answer))
    return Model(entry.name, entry.version, names, told, *how)


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
