"""The image pool: decodes images and draws heat maps on native threads.

Decoding is bounded in bytes, not only in pixels: 38 bytes of WebP can take a gigabyte. A *small* image
takes at most ``SMALL_DECODE_BYTES`` and is decoded on one of several threads. A larger one is decoded on a
thread of its own, one at a time, within the memory of the settings. So small images never wait
behind large ones, and ``app/control/plan.py`` knows the sum.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image

from app.control.budgets import SMALL_DECODE_BYTES
from app.models.precision import FP32
from app.processing.decoding import open_image, oriented_size
from app.processing.heatmap import Drawing, HeatMap, Style, draw_heat_map, open_canvas
from app.processing.images import InputTransform, prepare_image, prepare_pixels
from app.processing.memory import check_memory, estimate_canvas_bytes, estimate_decode_bytes
from app.quarantine import ActiveInputs, Quarantine
from app.serving.handoff import Handoff
from app.serving.model import Model
from app.serving.thread_pool import NativePool, Task
from app.settings import Settings

ImageInput = BinaryIO | np.ndarray  # a file; or RGB pixels, (height, width, 3) uint8

T = TypeVar("T")


class LargeImage(Exception):
    """The image needs the thread for large images."""


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Attributes:
        image: (3, side, side) uint8, RGB.
        size: width and height in px, in the orientation that the network sees.
        digest: of the file, as ``Quarantine.digest`` makes it.
    """

    image: np.ndarray
    size: tuple[int, int]
    digest: bytes


@dataclass(frozen=True)
class Admission:
    """The memory that one job may take, and its input.

    Attributes:
        limit: bytes.
        digest: of the file.
    """

    limit: int
    digest: bytes

    def check(self, image: Image.Image, needed: int) -> None:
        """Raise LargeImage or ImageTooLarge if an opened image needs more bytes than the limit."""
        if self.limit == SMALL_DECODE_BYTES and needed > self.limit:
            raise LargeImage
        check_memory(image, needed, self.limit)


class ImagePool:
    """Runs decoding and drawing on native threads, within the limits of the settings.

    Methods run on the hub; they return once the result is there.
    """

    def __init__(
        self,
        settings: Settings,
        handoff: Handoff,
        quarantine: Quarantine,
        active_inputs: ActiveInputs,
    ) -> None:
        """Create the pools; arguments as ``NativePool`` takes them."""
        self._settings = settings
        threads = settings.decode_pool_size
        self._small = NativePool("decoding", threads, handoff, quarantine, active_inputs)
        self._large = NativePool("decoding a large image", 1, handoff, quarantine, active_inputs)

    def close(self) -> None:
        """End the threads; do not wait for them."""
        self._small.close()
        self._large.close()

    def tasks(self) -> list[Task]:
        """Return the running tasks of the threads."""
        return self._small.tasks() + self._large.tasks()

    def digest(self, data: bytes | memoryview) -> bytes:
        """Return the digest of an image's bytes, which a thread computes; the errors are those of ``decode``."""
        return self._small.run(lambda digest: digest, data)

    def decode(
        self,
        image: ImageInput,
        model: Model,
        *,
        upright: bool = False,
        on_trial: bool = False,
        digest: bytes = b"",
    ) -> Decoded:
        """Decode an image to the input of a model.

        Args:
            image: the image.
            model: the model.
            upright: rotate a file by its EXIF tag.
            on_trial: see ``NativePool.run``.
            digest: of the image's bytes, if it is known.

        Raises:
            ServingError: the errors of ``decode_image``; also ImageTooLarge if decoding needs too much memory.
            NeedsTrial: see ``NativePool.run``.
        """
        work = partial(self._decode, image, model, upright)
        return self._run(work, image, on_trial, digest)

    def draw(
        self,
        image: ImageInput,
        heat_map: HeatMap,
        transform: InputTransform,
        style: Style,
        *,
        upright: bool = False,
        on_trial: bool = False,
    ) -> Drawing:
        """Draw a heat map over its image; ``upright``, ``on_trial`` and the errors are those of ``decode``."""
        work = partial(self._draw, image, heat_map, transform, style, upright)
        return self._run(work, image, on_trial)

    def _run(
        self,
        work: Callable[[Admission], T],
        image: ImageInput,
        on_trial: bool,
        digest: bytes = b"",
    ) -> T:
        """Run work on a thread for small images, or on the one for large images if it needs more memory."""
        data = read_data(image)

        def admitted(limit: int) -> Callable[[bytes], T]:
            return lambda digest: work(Admission(limit, digest))

        with suppress(LargeImage):
            return self._small.run(
                admitted(SMALL_DECODE_BYTES), data, on_trial=on_trial, digest=digest
            )
        limit = self._settings.decode_memory_bytes
        return self._large.run(admitted(limit), data, on_trial=on_trial, digest=digest)

    def _decode(
        self, image: ImageInput, model: Model, upright: bool, admission: Admission
    ) -> Decoded:
        settings, transform = self._settings, model.config.transform
        fast = self._may_be_fast(model)
        if isinstance(image, np.ndarray):  # in memory already
            pixels = prepare_pixels(image, settings.max_pixels, fast, transform)
            return Decoded(pixels, (image.shape[1], image.shape[0]), admission.digest)
        opened = open_image(image, settings.max_pixels)
        size = oriented_size(opened, upright)  # now: a scaled decoding changes it
        admission.check(opened, estimate_decode_bytes(opened, fast, transform, upright))
        pixels = prepare_image(opened, upright, fast, transform)
        return Decoded(pixels, size, admission.digest)

    def _draw(
        self,
        image: ImageInput,
        heat_map: HeatMap,
        transform: InputTransform,
        style: Style,
        upright: bool,
        admission: Admission,
    ) -> Drawing:
        max_pixels = self._settings.max_pixels
        if not isinstance(image, np.ndarray):
            opened = open_image(image, max_pixels)
            admission.check(opened, estimate_canvas_bytes(opened, upright))
        canvas = open_canvas(image, max_pixels, upright)
        return draw_heat_map(canvas, heat_map, transform, style)

    def _may_be_fast(self, model: Model) -> bool:
        """Return whether images may be decoded approximately; by default not in fp32."""
        if self._settings.decode != "auto":
            return self._settings.decode == "fast"
        return model.choice.precision != FP32


def read_data(image: ImageInput) -> bytes | memoryview:
    """Return the bytes of an image; a file in memory is not copied."""
    if isinstance(image, np.ndarray):
        return np.ascontiguousarray(image).data
    if isinstance(image, io.BytesIO):
        return image.getvalue()
    image.seek(0)
    return image.read()
