"""Image decoding, as in the server or with augmentation, and prefetching on threads.

Decoding uses the functions of ``app/processing/images.py``: a network that is trained on other pixels than it
is served would score worse in production than measured.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from app.errors import ServingError
from app.processing.decoding import decode_rgb, open_image
from app.processing.images import decode_image
from scripts.training.errors import TrainingError

# Area share and aspect ratio range of a training crop. Crops as small as ImageNet's usual 8 % would cut
# labeled objects out of images that show several.
CROP_AREA = (0.6, 1.0)
CROP_STRETCH = 4 / 3

Job = TypeVar("Job")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Reader:
    """Decodes image files.

    Attributes:
        max_pixels: limit of width × height, as in the server.
        exif_rotate: rotate images by their EXIF orientation (``SERVING_EXIF_ROTATE``).
    """

    max_pixels: int
    exif_rotate: bool

    def read_served(self, path: Path) -> np.ndarray:
        """Return an image as the server decodes it, (3, 224, 224) uint8 RGB. Raises TrainingError."""
        try:
            with path.open("rb") as file:
                return decode_image(file, self.max_pixels, self.exif_rotate)
        except ServingError as error:
            raise TrainingError(f"{path}: {error.message}") from error
        except OSError as error:
            raise TrainingError(f"{path} cannot be read: {error}") from error

    def read_varied(self, path: Path, side: int, rng: np.random.Generator) -> np.ndarray:
        """Return a random crop of an image, randomly mirrored, as (3, side, side) uint8 RGB.

        Crop and mirroring, the standard augmentations, keep the labels valid. The server squeezes
        images to a square, so the crop's aspect ratio varies around the image's own: on average the
        network sees in training the same distortion as in production.

        Raises:
            TrainingError: the image is damaged or cannot be read; the text names the file.
        """
        try:
            with path.open("rb") as file:
                image = decode_rgb(open_image(file, self.max_pixels), self.exif_rotate)
        except ServingError as error:
            raise TrainingError(f"{path}: {error.message}") from error
        box = choose_crop(image.width, image.height, rng)
        crop = image.resize((side, side), Image.Resampling.BILINEAR, box)
        pixels = np.asarray(crop)
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def choose_crop(
    width: int, height: int, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Return a random box (left, top, right, bottom), px, inside an image of that size."""
    area = rng.uniform(*CROP_AREA)
    stretch = math.exp(rng.uniform(-1, 1) * math.log(CROP_STRETCH))
    across = min(1.0, math.sqrt(area * stretch)) * width
    down = min(1.0, math.sqrt(area / stretch)) * height
    left, top = rng.random() * (width - across), rng.random() * (height - down)
    return left, top, min(left + across, width), min(top + down, height)


def read_ahead(
    read: Callable[[Job], Answer], jobs: Iterable[Job], threads: int, ahead: int
) -> Generator[Answer, None, None]:
    """Yield ``read(job)`` of each job in order, while threads process the next ones.

    Threads suffice: Pillow releases the GIL while it decodes and resizes.

    Args:
        read: the function; its exceptions are raised in order.
        jobs: consumed lazily, at most ``ahead`` in advance.
        threads: number of threads.
        ahead: maximum number of results that wait.
    """
    remaining = iter(jobs)
    pool = ThreadPoolExecutor(threads, "picture")
    try:
        waiting: deque[Future[Answer]] = deque(
            pool.submit(read, job) for job in islice(remaining, ahead)
        )
        while waiting:
            answer = waiting.popleft().result()
            waiting.extend(pool.submit(read, job) for job in islice(remaining, 1))
            yield answer
    finally:
        pool.shutdown(cancel_futures=True)
