"""Decoding of image files to RGB at their own size; no other file type reaches a decoder.

The file's structure is validated first (``app/processing/image_structure.py``), then Pillow decodes it. Three
defects of plain ``Image.convert("RGB")`` are avoided:

* transparent pixels are composited on white (their stored color is arbitrary, mostly black);
* 16-bit grays are scaled to 8 bits (Pillow clips them: most of the image would turn white);
* EXIF orientation is ignored unless requested.

Large images are converted to RGB strip by strip, and memory is released as early as possible: 4 bytes a pixel
for RGB, 5 to 8 for other modes, 12 for WebP (``app/processing/memory.py`` has the estimates).

Everything here is stateless CPU work: safe on any thread, with the GIL released.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from app.errors import ImageTooLarge, ServingError, UnreadableImage, UnsupportedType
from app.processing.file_types import CONVERTIBLE, describe_unknown, name_type
from app.processing.image_parts import Structure
from app.processing.image_structure import read_structure

ACCEPTED_TEXT = "JPEG, PNG, WebP, BMP, GIF"
NEITHER_TEXT = "JPEG, PNG, WebP, BMP nor GIF"
# Pixels of a large image that are converted at a time: a conversion takes up to 20 bytes for each.
STRIP_PIXELS = 1 << 18
# Only PNG and BMP can have more than 65,535 px a side. Millions of rows hold the GIL, as do the resize weights of
# one so long: 0.3 s for four million.
MAX_SIDE = 200_000
STRUCTURE = "structure"  # key in an opened image's info

# Errors of Pillow's decoders on damaged files; they have no common base class.
DECODE_ERRORS = (
    AssertionError,
    AttributeError,
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
)

UNREADABLE_HEADER = "its header cannot be read"
# Words in the messages of Pillow's decoders → plain words.
REASONS = {
    "truncated": "the file ends too early",
    "broken data stream": "its compressed data are corrupt",
    "unrecognized data stream": "its compressed data are corrupt",
    "cannot load this image": "its compressed data are corrupt",
    "failed to read next frame": "its first frame cannot be decoded",
    "could not create decoder": UNREADABLE_HEADER,
}
FIRST_BYTES = 16  # of a file of unknown type, for the log

# EXIF orientation → transpose that makes the image upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # orientations whose transpose exchanges width and height

# ``open_image`` enforces a lower limit on every image before a pixel is decoded; Pillow's own only warns up to
# 179 megapixels.
Image.MAX_IMAGE_PIXELS = None

# Pillow imports its decoders lazily. That must not happen on a decode thread: under gevent two threads that
# import the same module can deadlock.
Image.init()
# Pillow's warnings about odd files would break the log's JSON lines.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def open_image(file: BinaryIO, max_pixels: int) -> Image.Image:
    """Read an image's header and validate it; no pixel is decoded yet. Raises like ``decode_image``."""
    file.seek(0)
    data = file.read()
    if not data:
        raise UnreadableImage("image is empty: 0 bytes")
    structure = read_structure(data)
    if structure is None:
        raise refuse_type(data)
    if structure.canvas:
        check_size(*structure.canvas, max_pixels)
    with errors_of(structure.kind):
        # Only this format is tried, so no client can reach an exotic decoder.
        image = Image.open(io.BytesIO(structure.data), formats=[structure.kind.upper()])
    image.info[STRUCTURE] = structure
    check_size(*image.size, max_pixels)
    return image


def refuse_type(data: bytes) -> ServingError:
    """Return the error for a file that begins like none of the supported formats."""
    if name := name_type(data):
        cure = "; save it as JPEG or PNG" if name in CONVERTIBLE else ""
        return UnsupportedType(f"image is {name}; accepted are {ACCEPTED_TEXT}{cure}")
    return UnreadableImage(
        f"image is neither {NEITHER_TEXT}; {describe_unknown(data)}",
        first_bytes=data[:FIRST_BYTES],
    )


def structure_of(image: Image.Image) -> Structure:
    """Return the file structure of an opened image."""
    return cast(Structure, image.info[STRUCTURE])


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise ImageTooLarge if an image has more pixels than ``max_pixels`` or a side above ``MAX_SIDE``."""
    pixels = width * height
    if max(width, height) > MAX_SIDE:
        raise ImageTooLarge(
            f"image has a side of {max(width, height):,} px ({width:,} × {height:,}); the limit is {MAX_SIDE:,}"
        )
    if pixels > max_pixels:
        raise ImageTooLarge(
            f"image has {pixels:,} pixels ({width:,} × {height:,}); the limit is {max_pixels:,}"
        )


@contextmanager
def errors_of(kind: str) -> Iterator[None]:
    """Translate Pillow's errors on a file of this kind into ServingErrors."""
    try:
        yield
    except MemoryError as error:
        raise ImageTooLarge(f"image is a {kind} that needs more memory than is free") from error
    except DECODE_ERRORS as error:
        raise UnreadableImage(
            f"image begins like a {kind} but is damaged: {explain(error)}"
        ) from error


def explain(error: Exception) -> str:
    """Return the reason of a Pillow error in plain words, without Python's names and bytes."""
    if isinstance(error, UnidentifiedImageError):
        return UNREADABLE_HEADER
    # Of the other errors only these have readable messages.
    text = str(error) if isinstance(error, OSError | SyntaxError | EOFError) else ""
    for words, reason in REASONS.items():
        if words in text.lower():
            return reason
    text = re.sub(r"\s*\([^(]*b['\"].*", "", text)
    plain = "".join(letter for letter in text if " " <= letter <= "~")
    return plain[:200] or "its data cannot be read"


def decode_rgb(
    image: Image.Image, exif_rotate: bool = False, needed: tuple[int, int] | None = None
) -> Image.Image:
    """Decode an opened image to RGB and close it.

    Args:
        image: from ``open_image``.
        exif_rotate: rotate by the EXIF tag.
        needed: the minimum width and height: a large JPEG is decoded at a half, a quarter or an eighth
            of its size.

    Raises:
        UnreadableImage: it is damaged.
        ImageTooLarge: there is not enough memory.
    """
    structure = structure_of(image)
    with errors_of(structure.kind):
        if needed:
            image.draft(None, needed)  # does nothing for other types than JPEG
        rgb = load_webp(image) if structure.kind == "WebP" else to_rgb(image)
        turn = TURNS.get(structure.orientation) if exif_rotate else None
        return rgb if turn is None else rgb.transpose(turn)


def oriented_size(image: Image.Image, exif_rotate: bool) -> tuple[int, int]:
    """Return width and height of an opened image in px, as ``decode_rgb`` without ``needed`` returns it."""
    width, height = image.size
    is_on_its_side = exif_rotate and structure_of(image).orientation in SIDEWAYS
    return (height, width) if is_on_its_side else (width, height)


def load_webp(image: Image.Image) -> Image.Image:
    """Decode a WebP to RGB.

    Pillow's own ``load`` takes 16 bytes a pixel: the decoder's two canvases and two copies. Here the
    canvases are released after the first copy.
    """
    webp = cast(Any, image)
    frame, mode = webp._decoder.get_next(), webp.rawmode
    webp._decoder = None
    if frame is None:
        raise EOFError("its first frame cannot be decoded")
    pixels = memoryview(frame[0])
    stride = 4 * image.width

    def cut(box: tuple[int, int, int, int]) -> Image.Image:
        size = box[2], box[3] - box[1]
        part: Any = pixels[box[1] * stride : box[3] * stride]
        return Image.frombuffer(mode, size, part, "raw", mode, 0, 1)

    return flatten_strips(image.size, cut)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB; close it unless it is RGB already."""
    image.load()
    if image.mode == "RGB" and not image.has_transparency_data:
        return image  # convert would copy
    rgb = flatten_strips(image.size, image.crop)
    image.close()
    return rgb


def flatten_strips(
    size: tuple[int, int], cut: Callable[[tuple[int, int, int, int]], Image.Image]
) -> Image.Image:
    """Convert an image to RGB, some rows at a time.

    Args:
        size: its width and height.
        cut: returns the part in a box (left, top, right, bottom).
    """
    width, height = size
    rows = max(1, STRIP_PIXELS // width)
    if rows >= height:
        return flatten(cut((0, 0, width, height)))
    whole = Image.new("RGB", size)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        whole.paste(flatten(cut(box)), box)
    return whole


def flatten(image: Image.Image) -> Image.Image:
    """Return a decoded image of any mode as RGB."""
    if image.mode.startswith("I"):  # I, I;16, I;16B …: 16-bit grays
        grays = np.asarray(image) >> 8
        return Image.fromarray(grays.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        on_white = Image.new("RGB", image.size, "white")
        on_white.paste(layered, mask=layered.getchannel("A"))
        return on_white
    return image.convert("RGB")
