"""What is done to a picture on native threads: it becomes the network's input, and a heat map is laid over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, TypeVar

import numpy as np
from gevent.threadpool import ThreadPool

from app.errors import ServingError
from app.heatmap import Drawing, Style, draw_heat_map, open_canvas
from app.image_decoding import open_image
from app.images import prepare_image, prepare_pixels
from app.precision import FP32
from app.prediction import Prediction
from app.servable import Model
from app.settings import Settings

Picture = BinaryIO | np.ndarray  # a file; or RGB pixels, (height, width, 3) uint8

T = TypeVar("T")


class Studio:
    """The native threads, and the settings by which they work. Methods run on the hub and wait."""

    def __init__(self, settings: Settings) -> None:
        """Start without any thread; they come as they are needed."""
        self._settings = settings
        self._threads = ThreadPool(settings.decode_pool_size)

    def close(self) -> None:
        """End the threads."""
        self._threads.kill()

    def decode(self, picture: Picture, model: Model) -> tuple[np.ndarray, tuple[int, int]]:
        """Return the network's input, (3, side, side) uint8, and the picture's width and height.

        Raises:
            ServingError: as ``decode_image``.
        """
        settings, fast, frame = self._settings, self._may_be_fast(model), model.card.frame

        def work() -> tuple[np.ndarray, tuple[int, int]]:
            if isinstance(picture, np.ndarray):
                size = picture.shape[1], picture.shape[0]
                return prepare_pixels(picture, settings.max_pixels, fast, frame), size
            image = open_image(picture, settings.max_pixels)
            size = image.size  # a scaled decoding changes it
            return prepare_image(image, settings.exif_rotate, fast, frame), size

        return self._run(work)

    def draw(self, picture: Picture, prediction: Prediction, style: Style) -> Drawing:
        """Return a prediction's first heat map over its picture. Raises as ``decode``."""
        settings, frame = self._settings, prediction.model.card.frame
        heat_map = next(iter(prediction.heat_maps.values()))

        def work() -> Drawing:
            canvas = open_canvas(picture, settings.max_pixels, settings.exif_rotate)
            return draw_heat_map(canvas, heat_map, frame, style)

        return self._run(work)

    def _run(self, work: Callable[[], T]) -> T:
        """Do something on a native thread and return, or raise, what comes of it."""

        def attempt() -> T | ServingError:
            try:
                return work()
            except ServingError as error:
                return error  # gevent prints what a pool raises

        outcome = self._threads.apply(attempt)
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome

    def _may_be_fast(self, model: Model) -> bool:
        """Tell whether pictures may be decoded nearly: in fp32 they are exact."""
        if self._settings.decode != "auto":
            return self._settings.decode == "fast"
        return model.precision != FP32
