"""From a file to pixels: any picture that people upload becomes RGB of the network's size.

The contract (``POST /model_predict``): the first frame is read as RGB, resized to 224 × 224 on both
sides without a crop, bilinear with antialiasing as Pillow does it. A model may ask for another size,
and for the middle of a picture that keeps its shape (``Frame``). ``app/processing/decoding.py`` makes RGB
of the file.

``decode_image`` keeps that contract to the bit, or, where it may be ``fast``, to 1 of 255 (seldom 2)
in half of the time (cykooz_resizer, Rust with SIMD, resizes in 0.2 ms what takes Pillow 1.0 to 1.3 ms).

Everything here is plain CPU work without state: safe on any thread. The GIL is free meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

from app.processing.decoding import check_size, decode_rgb, errors_of, open_image, structure_of

SIDE = 224  # px, both sides of the network's input unless a model says otherwise
EXACT = Image.Resampling.BILINEAR
FAST = ResizeAlg.convolution(FilterType.bilinear)
SCALED = 2  # what scaled decoding leaves to the resize still averages two by two pixels at least
# Pixels of a resized picture before its middle is cut out. A long thin one would need gigabytes: 1 ×
# 100,000 pixels with a shorter side of 256 become 6.5 gigapixels. Its middle is resized alone.
MAX_UNCUT = 10_000_000


@dataclass(frozen=True)
class InputTransform:
    """How a picture of any size becomes the network's input.

    Attributes:
        side: px of both sides of the input.
        resize: px that the shorter side gets, at least ``side``, before the middle is cut out, as
            torchvision's ``Resize(resize)`` and ``CenterCrop(side)`` do it; None resizes both sides
            to ``side`` without a crop.
    """

    side: int = SIDE
    resize: int | None = None

    def uncut(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height that a picture is resized to."""
        if self.resize is None:
            return self.side, self.side
        # Rounded down, in floating point, as torchvision does it.
        longer = int(self.resize * max(width, height) / min(width, height))
        return (self.resize, longer) if width <= height else (longer, self.resize)

    def corner(self, width: int, height: int) -> tuple[int, int]:
        """Return the left and the top of the input in a picture that was resized to so much."""
        return round((width - self.side) / 2), round((height - self.side) / 2)

    def seen(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the part that becomes the input: its left, top, width and height, in a picture's own px."""
        uncut = self.uncut(width, height)
        left, top = self.corner(*uncut)
        # Divided last: a part that is the whole must not end a rounding error outside of it.
        return (
            left * width / uncut[0],
            top * height / uncut[1],
            self.side * width / uncut[0],
            self.side * height / uncut[1],
        )


WHOLE = InputTransform()


def decode_image(
    file: BinaryIO,
    max_pixels: int,
    exif_rotate: bool = False,
    fast: bool = False,
    transform: InputTransform = WHOLE,
) -> np.ndarray:
    """Read a picture as the network takes it.

    Args:
        file: an open binary file, positioned anywhere; the caller closes it.
        max_pixels: width × height above which the picture is refused, before it is decoded.
        exif_rotate: turn the picture upright by its EXIF tag.
        fast: resize nearly as the contract says (see ``resize_fast``); and decode a large JPEG at
            a half, a quarter or an eighth of its size, but never below ``SCALED`` times what is
            needed: pixels then differ by about 0.5 of 255 in the mean, and by up to 31 at sharp edges.
        transform: the model's.

    Returns:
        (3, side, side) uint8, RGB.

    Raises:
        UnreadableImage: empty, no picture, or damaged.
        UnsupportedType: a picture of a type that is not served.
        ImageTooLarge: more pixels than ``max_pixels``.
    """
    return prepare_image(open_image(file, max_pixels), exif_rotate, fast, transform)


def prepare_image(
    image: Image.Image,
    exif_rotate: bool = False,
    fast: bool = False,
    transform: InputTransform = WHOLE,
) -> np.ndarray:
    """Decode an opened picture and close it; arguments, result and errors as ``decode_image`` has them."""
    kind = structure_of(image).kind
    rgb = decode_rgb(image, exif_rotate, needed_size(transform) if fast else None)
    with errors_of(kind):
        return resize(rgb, fast, transform)


def needed_size(transform: InputTransform) -> tuple[int, int]:
    """Return the px that a scaled decoding leaves at least."""
    return (SCALED * (transform.resize or transform.side),) * 2


def prepare_pixels(
    pixels: np.ndarray, max_pixels: int, fast: bool = False, transform: InputTransform = WHOLE
) -> np.ndarray:
    """Take pixels that were decoded elsewhere, as the network takes them.

    Args:
        pixels: (height, width, 3) uint8, RGB; neither side is 0.
        max_pixels: as ``decode_image`` takes it.
        fast: resize nearly as the contract says (see ``resize_fast``).
        transform: what of the picture the network sees.

    Returns:
        (3, side, side) uint8, RGB.

    Raises:
        ImageTooLarge: more pixels than ``max_pixels``.
    """
    image = Image.fromarray(pixels)
    check_size(*image.size, max_pixels)
    return resize(image, fast, transform)


def resize(image: Image.Image, fast: bool, transform: InputTransform) -> np.ndarray:
    """Bring RGB to the network's size; (3, side, side) uint8."""
    small = (resize_fast if fast else resize_exact)(image, transform)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def resize_exact(image: Image.Image, transform: InputTransform) -> Image.Image:
    """Resize RGB as the contract has it; where that takes too much memory, as ``resize_fast`` does."""
    width, height = transform.uncut(*image.size)
    if width * height > MAX_UNCUT:
        return resize_fast(image, transform)
    left, top = transform.corner(width, height)
    # Pillow can resize a part alone, but not to the bit: it keeps the part's edges in float32.
    return image.resize((width, height), EXACT).crop(
        (left, top, left + transform.side, top + transform.side)
    )


def resize_fast(image: Image.Image, transform: InputTransform) -> Image.Image:
    """Resize RGB as ``EXACT`` does, but only what the network will see, and each value within 1 of 255.

    Both round between two passes. Where the scale is a simple fraction such as 5:4, and halves are
    common, a few values of a million come out 2 apart; never more.
    """
    small = Image.new("RGB", (transform.side, transform.side))
    part = CropBox(*transform.seen(*image.size))
    # A resizer keeps its scratch memory and belongs to one thread; a new one costs less than a microsecond.
    Resizer().resize_pil(image, small, ResizeOptions(FAST, crop_box=part))
    return small
