"""Estimates of the bytes that a decode takes, from the header: workers admit decodes by them.

The estimates are upper bounds, at most half above the measured peaks (``tests/test_image_memory.py``).
"""

from __future__ import annotations

import math

from PIL import Image

from app.errors import ImageTooLarge
from app.processing.decoding import STRIP_PIXELS, structure_of
from app.processing.heatmap import fit
from app.processing.images import WHOLE, InputTransform, needed_size, resizes_view

MIB = 1 << 20
RGB_BYTES = 4  # Pillow keeps three channels in four bytes
MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}  # of a pixel; 4 for all others
WEBP_BYTES = 12  # of a pixel: two of libwebp's canvases, and the copy of one
STRIP_BYTES = 20  # of a pixel, while its strip is converted to RGB
DRAWING_BYTES = 48  # of a drawing's pixel: its colors, its grays, the map, the numbers as text
SUPPORT = {
    "bicubic": 2,
    "lanczos": 3,
}  # px of a filter to each side of its center; others have up to 1
FIXED = 4 * MIB  # tables of the decoders, the network's input


def estimate_decode_bytes(
    image: Image.Image,
    fast: bool = False,
    transform: InputTransform = WHOLE,
    exif_rotate: bool = False,
) -> int:
    """Return an upper bound of the bytes of ``prepare_image`` for an opened image; the arguments are its own."""
    needed = needed_size(transform, fast)
    size = draft_size(image, needed) if needed else image.size
    return estimate_rgb_bytes(image, size, exif_rotate, resize_bytes(size, fast, transform))


def estimate_canvas_bytes(image: Image.Image, exif_rotate: bool = False) -> int:
    """Return an upper bound of the bytes for drawing a heat map over an opened image."""
    width, height = draft_size(image, fit(image.size))
    across, down = fit((width, height))
    # Reduced by a whole number first, then resized; the drawing starts after the image is released.
    reduced = RGB_BYTES * (min(width * height, 16 * across * down) + across * max(height, down))
    decoding = estimate_rgb_bytes(image, (width, height), exif_rotate, reduced)
    return max(decoding, DRAWING_BYTES * across * down + FIXED)


def estimate_rgb_bytes(
    image: Image.Image, size: tuple[int, int], exif_rotate: bool, resizing: int
) -> int:
    """Return an upper bound of the bytes from an opened file to a small image.

    Args:
        image: the opened image.
        size: width and height of the decode.
        exif_rotate: rotate by the EXIF tag.
        resizing: bytes of the last step, in addition to its RGB input.
    """
    structure = structure_of(image)
    width, height = size
    pixels = width * height
    rgb = stored_bytes(size, RGB_BYTES)
    if structure.kind == "WebP":
        stored, decoding = RGB_BYTES * pixels, WEBP_BYTES * pixels
    else:
        stored = decoding = stored_bytes(size, MODE_BYTES.get(image.mode, 4))
    decoding += structure.working_bytes
    if image.mode == "RGB" and structure.kind != "WebP" and "transparency" not in image.info:
        laid = rgb
    else:
        laid = stored + rgb + STRIP_BYTES * min(pixels, max(STRIP_PIXELS, width))
    turned = 2 * rgb if exif_rotate and structure.orientation > 1 else 0
    return structure.copied_bytes + max(decoding, laid, turned, rgb + resizing) + FIXED


def stored_bytes(size: tuple[int, int], pixel: int) -> int:
    """Return the bytes of Pillow's pixels: rows padded to four bytes, and a pointer to each."""
    return size[1] * (-(-size[0] * pixel // 4) * 4 + 8)


def draft_size(image: Image.Image, needed: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a scaled decode, as Pillow chooses it."""
    width, height = image.size
    if image.format != "JPEG":
        return width, height
    fitting = min(width // needed[0], height // needed[1])
    scale = next(scale for scale in (8, 4, 2, 1) if fitting >= scale or scale == 1)
    return -(-width // scale), -(-height // scale)


def resize_bytes(size: tuple[int, int], fast: bool, transform: InputTransform) -> int:
    """Return the bytes of a resize in addition to its input: intermediate image, weights and result."""
    width, height = size
    side = transform.side
    support = SUPPORT.get(transform.interpolation, 1)
    if resizes_view(size, fast, transform):
        seen = math.ceil(transform.seen(width, height)[2])
        return RGB_BYTES * (seen + side) * side + 16 * support * (width + height)
    across, down = transform.uncut(width, height)
    between = min(across * height, width * down)
    weights = support * (16 * (width + height) + 32 * (across + down))
    return RGB_BYTES * (between + across * down) + weights


def check_memory(image: Image.Image, needed: int, limit: int) -> None:
    """Raise ImageTooLarge if decoding an image takes more than the limit.

    Args:
        image: the opened image.
        needed: bytes by ``estimate_decode_bytes`` or ``estimate_canvas_bytes``.
        limit: bytes.
    """
    if needed > limit:
        kind, (width, height) = structure_of(image).kind, image.size
        raise ImageTooLarge(
            f"image needs {math.ceil(needed / MIB):,} MiB to decode ({width:,} × {height:,} px, {kind}, "
            f"{image.mode}); the limit is {limit // MIB:,} MiB"
        )
