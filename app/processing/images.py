"""From an image file to pixels: any uploaded image becomes RGB of the network's input size.

The contract (``POST /model_predict``): the first frame is read as RGB, resized to 224 × 224 on both
sides without a crop, bilinear with antialiasing as Pillow does it. A model may configure another size
and interpolation, and a center crop (``InputTransform``). ``app/processing/decoding.py`` decodes the file to RGB.

``decode_image`` follows that contract bit by bit, or, in ``fast`` mode, to 1 of 255 (seldom 2)
in half of the time (cykooz_resizer, Rust with SIMD, resizes in 0.2 ms; Pillow takes 1.0 to 1.3 ms).

Everything here is stateless CPU work: safe on any thread, with the GIL released.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

from app.processing.decoding import check_size, decode_rgb, errors_of, open_image, structure_of

SIDE = 224  # px, both sides of the network's input unless a model says otherwise
BILINEAR = "bilinear"
# torchvision's InterpolationMode → Pillow's filter, as torchvision maps them for images.
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "nearest-exact": Image.Resampling.NEAREST,
    BILINEAR: Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}
NEAREST = {"nearest", "nearest-exact"}  # never antialiased
FAST = ResizeAlg.convolution(FilterType.bilinear)
SCALED = 2  # the resize after a scaled decode still averages at least two by two pixels
# Pixels of a resized image before the crop. A long thin one would need gigabytes: 1 × 100,000 pixels with a
# shorter side of 256 become 6.5 gigapixels. Above this limit only the crop is resized.
MAX_UNCUT = 10_000_000


@dataclass(frozen=True)
class InputTransform:
    """The transform from an image of any size to the network's input.

    Attributes:
        side: px of both sides of the input.
        resize: px of the shorter side, at least ``side``, before the center crop, like torchvision's
            ``Resize(resize)`` and ``CenterCrop(side)``; None resizes both sides to ``side`` without
            a crop.
        interpolation: a key of ``FILTERS``.
        antialias: average all pixels of a reduced area, as Pillow does; without it, as in OpenCV, only the
            nearest ones count. False only with ``nearest`` or ``bilinear``.
    """

    side: int = SIDE
    resize: int | None = None
    interpolation: str = BILINEAR
    antialias: bool = True

    @property
    def is_sampled(self) -> bool:
        """Whether only the nearest pixels count."""
        return self.interpolation in NEAREST or not self.antialias

    def uncut(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of the resized image before the crop."""
        if self.resize is None:
            return self.side, self.side
        # Rounded down, in floating point, like torchvision.
        longer = int(self.resize * max(width, height) / min(width, height))
        return (self.resize, longer) if width <= height else (longer, self.resize)

    def corner(self, width: int, height: int) -> tuple[int, int]:
        """Return left and top of the input in a resized image."""
        return round((width - self.side) / 2), round((height - self.side) / 2)

    def seen(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return left, top, width and height of the input in the original image's px."""
        uncut = self.uncut(width, height)
        left, top = self.corner(*uncut)
        # Divided last: the whole image must not end outside of itself by a rounding error.
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
    """Read an image as the network's input.

    Args:
        file: an open binary file, at any position; the caller closes it.
        max_pixels: larger images (width × height) are refused before they are decoded.
        exif_rotate: rotate the image by its EXIF tag.
        fast: resize approximately (see ``resize_view``), and decode a large JPEG at a half, a quarter or an
            eighth of its size, but at least at ``SCALED`` times the needed size: pixels then differ by
            about 0.5 of 255 on average, and by up to 31 at sharp edges.
        transform: the model's.

    Returns:
        (3, side, side) uint8, RGB.

    Raises:
        UnreadableImage: the file is empty, damaged, or not an image.
        UnsupportedType: an image type that is not supported.
        ImageTooLarge: more pixels than ``max_pixels``.
    """
    return prepare_image(open_image(file, max_pixels), exif_rotate, fast, transform)


def prepare_image(
    image: Image.Image,
    exif_rotate: bool = False,
    fast: bool = False,
    transform: InputTransform = WHOLE,
) -> np.ndarray:
    """Decode an opened image and close it; arguments, result and errors are those of ``decode_image``."""
    kind = structure_of(image).kind
    rgb = decode_rgb(image, exif_rotate, needed_size(transform, fast))
    with errors_of(kind):
        return resize(rgb, fast, transform)


def needed_size(transform: InputTransform, fast: bool) -> tuple[int, int] | None:
    """Return the minimum size in px of a scaled decode; None if the image has to be decoded at its own size."""
    if not fast or transform.is_sampled:  # a scaled decode averages
        return None
    return (SCALED * (transform.resize or transform.side),) * 2


def prepare_pixels(
    pixels: np.ndarray, max_pixels: int, fast: bool = False, transform: InputTransform = WHOLE
) -> np.ndarray:
    """Transform decoded pixels to the network's input.

    Args:
        pixels: (height, width, 3) uint8, RGB; neither side is 0.
        max_pixels: as for ``decode_image``.
        fast: resize approximately (see ``resize_view``).
        transform: the model's.

    Returns:
        (3, side, side) uint8, RGB.

    Raises:
        ImageTooLarge: more pixels than ``max_pixels``.
    """
    image = Image.fromarray(pixels)
    check_size(*image.size, max_pixels)
    return resize(image, fast, transform)


def resize(image: Image.Image, fast: bool, transform: InputTransform) -> np.ndarray:
    """Resize RGB to the network's input; (3, side, side) uint8."""
    if not resizes_view(image.size, fast, transform):
        small = resize_exact(image, transform)
    elif transform.antialias:
        small = resize_view(image, transform)
    else:
        small = sample_view(image, transform)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def resizes_view(size: tuple[int, int], fast: bool, transform: InputTransform) -> bool:
    """Return whether only the network's view of an image is resized, not all of it before a crop."""
    width, height = transform.uncut(*size)
    may_be_part = transform.interpolation == BILINEAR and (fast or not transform.antialias)
    return may_be_part or width * height > MAX_UNCUT


def resize_exact(image: Image.Image, transform: InputTransform) -> Image.Image:
    """Resize RGB by the contract."""
    width, height = transform.uncut(*image.size)
    left, top = transform.corner(width, height)
    # Pillow can resize a part only, but not bit-exactly: it keeps the part's edges in float32.
    return image.resize((width, height), FILTERS[transform.interpolation]).crop(
        (left, top, left + transform.side, top + transform.side)
    )


def resize_view(image: Image.Image, transform: InputTransform) -> Image.Image:
    """Resize only the network's view of an RGB image: nearly as ``resize_exact``.

    If bilinear, each value is within 1 of 255: both round between two passes. If the scale is a simple fraction such
    as 5:4, and halves are frequent, a few values of a million differ by 2; never by more.
    """
    if transform.interpolation != BILINEAR:
        box = view_box(image, transform)
        size = transform.side, transform.side
        return image.resize(size, FILTERS[transform.interpolation], box)
    small = Image.new("RGB", (transform.side, transform.side))
    part = CropBox(*transform.seen(*image.size))
    # A resizer keeps scratch memory and is not thread-safe; a new one costs less than a microsecond.
    Resizer().resize_pil(image, small, ResizeOptions(FAST, crop_box=part))
    return small


def sample_view(image: Image.Image, transform: InputTransform) -> Image.Image:
    """Resize the network's view of an RGB image without antialiasing; each value within 1 of 255."""
    return image.transform(
        (transform.side, transform.side),
        Image.Transform.EXTENT,
        view_box(image, transform),
        FILTERS[transform.interpolation],
    )


def view_box(image: Image.Image, transform: InputTransform) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the network's view, in the image's px."""
    left, top, width, height = transform.seen(*image.size)
    # Rounding must not lead out of the image.
    right, bottom = min(left + width, image.width), min(top + height, image.height)
    return max(left, 0.0), max(top, 0.0), right, bottom
