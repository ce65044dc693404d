"""Work on images on native threads: decoding before the forward, drawing a heat map after it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import numpy as np

from app.handoff import Handoff
from app.heatmap import Drawing, Style, draw_heat_map, open_canvas
from app.images import open_image, prepare_image, prepare_pixels
from app.native_pool import NativePool, Task
from app.precision import FP32
from app.prediction import Prediction
from app.quarantine import Quarantine, Records
from app.servable import Model
from app.settings import Settings

Picture = BinaryIO | np.ndarray  # a file; or RGB pixels, (height, width, 3) uint8


@dataclass(frozen=True)
class Decoded:
    """An image as the network takes it.

    Attributes:
        image: (3, side, side) uint8, RGB.
        size: width and height in px, as the file has them.
        digest: of the file, as ``Quarantine.digest`` makes it.
    """

    image: np.ndarray
    size: tuple[int, int]
    digest: bytes


class Studio:
    """The native threads, and the settings by which they work. Methods run on the hub and wait."""

    def __init__(
        self, settings: Settings, handoff: Handoff, quarantine: Quarantine, hands: Records
    ) -> None:
        """Start without any thread; arguments as ``NativePool`` takes them."""
        self._settings = settings
        threads = settings.decode_pool_size
        self._ordinary = NativePool("decoding", threads, handoff, quarantine, hands)

    def close(self) -> None:
        """End the threads; do not wait for them."""
        self._ordinary.close()

    def tasks(self) -> list[Task]:
        """Return what the threads are working on now."""
        return self._ordinary.tasks()

    def decode(self, picture: Picture, model: Model, *, on_trial: bool = False) -> Decoded:
        """Return an image as the network takes it.

        Raises:
            ServingError: as ``decode_image``.
            NeedsTrial: as ``NativePool.run``.
        """
        fast = self._may_be_fast(model)
        work = partial(self._decode, picture, model, fast)
        return self._ordinary.run(work, read_data(picture), on_trial=on_trial)

    def draw(
        self, picture: Picture, prediction: Prediction, style: Style, *, on_trial: bool = False
    ) -> Drawing:
        """Return a prediction's first heat map over its picture. Raises as ``decode``."""
        work = partial(self._draw, picture, prediction, style)
        return self._ordinary.run(work, read_data(picture), on_trial=on_trial)

    def _decode(self, picture: Picture, model: Model, fast: bool, digest: bytes) -> Decoded:
        settings, frame = self._settings, model.card.frame
        if isinstance(picture, np.ndarray):
            image = prepare_pixels(picture, settings.max_pixels, fast, frame)
            return Decoded(image, (picture.shape[1], picture.shape[0]), digest)
        opened = open_image(picture, settings.max_pixels)
        size = opened.size  # a scaled decoding changes it
        return Decoded(prepare_image(opened, settings.exif_rotate, fast, frame), size, digest)

    def _draw(
        self, picture: Picture, prediction: Prediction, style: Style, _digest: bytes
    ) -> Drawing:
        settings, frame = self._settings, prediction.model.card.frame
        canvas = open_canvas(picture, settings.max_pixels, settings.exif_rotate)
        heat_map = next(iter(prediction.heat_maps.values()))
        return draw_heat_map(canvas, heat_map, frame, style)

    def _may_be_fast(self, model: Model) -> bool:
        """Tell whether pictures may be decoded nearly: in fp32 they are exact."""
        if self._settings.decode != "auto":
            return self._settings.decode == "fast"
        return model.precision != FP32


def read_data(picture: Picture) -> bytes | memoryview:
    """Return the bytes of a picture, without a copy where it is a file in memory."""
    if isinstance(picture, np.ndarray):
        return np.ascontiguousarray(picture).data
    if isinstance(picture, io.BytesIO):
        return picture.getvalue()
    picture.seek(0)
    return picture.read()
