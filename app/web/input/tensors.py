"""Images in JSON: base64 strings, or pixels as nested lists of numbers."""

from __future__ import annotations

import binascii
import io
import math
import re
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any, BinaryIO

import msgspec
import numpy as np
from msgspec import Meta, Raw

from app.errors import MalformedRequest
from app.web.input.documents import opened, parse
from app.web.limits import MAX_DIMENSIONS, MAX_LISTED, SLICE_BYTES
from app.web.quoting import abbreviate

CHANNELS = 3
NOT_FINITE = {
    "nan": "NaN",
    "inf": "Infinity",
    "-inf": "-Infinity",
}  # names that JSON parsers accept
B64 = "b64"
STANDARD = bytes.maketrans(b"-_", b"+/")  # from the URL-safe alphabet
BLANKS = b" \t\n\r\v\f"
NESTED = re.compile(rb"\[\s*\[")
NUMBERS = b"0123456789.eE+-"  # characters of numbers in JSON
Base64 = Annotated[str, Meta(extra_json_schema={"contentEncoding": "base64"})]


def find_binary(value: object) -> str | None:
    """Return the base64 of ``{"b64": "…"}``, TensorFlow Serving's form of binary data; None for other values.

    Args:
        value: a JSON value, parsed by at least one level.
    """
    if not isinstance(value, dict) or value.keys() != {B64}:
        return None
    text = opened(value[B64])
    return text if isinstance(text, str) else None


def open_base64(text: str | bytes | memoryview) -> BinaryIO:
    """Decode base64 (standard or URL-safe alphabet, with or without padding) to a file.

    Decoding in slices lets other threads run and avoids a copy of the whole text.

    Raises:
        MalformedRequest: invalid base64; the message is TensorFlow Serving's.
    """
    file, rest, padded = io.BytesIO(), b"", False
    for begin in range(0, len(text), SLICE_BYTES):
        piece = text[begin : begin + SLICE_BYTES]
        data = piece.encode("ascii", "replace") if isinstance(piece, str) else bytes(piece)
        digits = data.translate(STANDARD, BLANKS)
        stripped = digits.rstrip(b"=")
        if b"=" in stripped or (padded and stripped):
            raise MalformedRequest("Unable to base64 decode: padding before the end")
        padded = padded or len(stripped) < len(digits)
        whole = rest + stripped
        end = len(whole) // 4 * 4
        file.write(decode_digits(whole[:end]))
        rest = whole[end:]
    file.write(decode_digits(rest + b"=" * (-len(rest) % 4)))
    file.seek(0)
    return file


def decode_digits(digits: bytes) -> bytes:
    """Decode complete groups of four base64 digits. Raises MalformedRequest."""
    try:
        return binascii.a2b_base64(digits, strict_mode=True)
    except binascii.Error as error:
        raise MalformedRequest(f"Unable to base64 decode: {error}") from error


def unnest(value: list[Any]) -> tuple[list[Any], tuple[int, ...]]:
    """Flatten nested lists, row-major; return the list and the shape.

    Raises:
        MalformedRequest: lists of one level have different sizes.
    """
    flat, shape = value, [len(value)]
    while list in (kinds := set(map(type, flat))):
        if kinds != {list}:
            raise MalformedRequest(f"lists and values are mixed at level {len(shape)}")
        sizes = set(map(len, flat))
        if len(sizes) > 1:
            raise MalformedRequest(
                f"lists at level {len(shape)} have from {min(sizes)} to {max(sizes)} elements;"
                " all must have as many"
            )
        shape.append(sizes.pop())
        flat = list(chain.from_iterable(flat))
    return flat, tuple(shape)


def is_nested(value: object) -> bool:
    """Check whether a value is the text of a list whose first element is a list: pixels."""
    return isinstance(value, Raw) and NESTED.match(memoryview(value)) is not None


def read_pixels(values: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """Parse the pixels of images, given as one value or as a list with a value per image; see ``read_array``."""
    if not isinstance(values, list) or not any(isinstance(value, Raw) for value in values):
        return read_array(values)
    arrays = [read_array(value) for value in values]
    first, *others = (shape for _, shape in arrays)
    for shape in others:
        if shape != first:
            raise MalformedRequest(
                f"pictures have the shapes {list(first)} and {list(shape)}; all must have the same"
            )
    return np.concatenate([flat for flat, _ in arrays]), (len(arrays), *first)


def read_array(value: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """Parse nested lists of numbers; return a flat float64 array, row-major, and the shape.

    Raises:
        MalformedRequest: not nested lists of numbers, or lists of different shapes.
    """
    if isinstance(value, Raw):
        return read_array_text(bytes(value))
    flat, shape = unnest(value)
    return to_floats(flat, shape), shape


def read_array_text(text: bytes) -> tuple[np.ndarray, tuple[int, ...]]:
    """Parse the text of nested lists, which is known to be valid JSON, slice by slice; see ``read_array``."""
    slices = [text[at : at + SLICE_BYTES] for at in range(0, len(text), SLICE_BYTES)]
    signs = b"".join(piece.translate(None, NUMBERS + BLANKS) for piece in slices)
    shape = find_shape(signs)
    if shape is None:
        raise MalformedRequest("pixels are no nested lists of numbers, all of one shape")
    arrays, rest, at = [], b"", 0
    for piece in slices:
        numbers, comma, rest = (rest + piece.translate(None, b"[]")).rpartition(b",")
        if comma:
            arrays.append(parse_numbers(numbers, shape, at))
            at += len(arrays[-1])
        elif len(rest) > SLICE_BYTES:
            raise MalformedRequest("a pixel has millions of digits; expected 0 to 255")
    arrays.append(parse_numbers(rest, shape, at))
    flat = np.concatenate(arrays)
    if len(flat) != math.prod(shape):  # an empty list has the signs of a list of one number
        raise MalformedRequest("pixels have an empty list among them")
    return flat, shape


def find_shape(signs: bytes) -> tuple[int, ...] | None:
    """Return the shape of nested lists from their brackets and commas; None if they are ragged."""
    depth = len(signs) - len(signs.lstrip(b"["))
    if depth > MAX_DIMENSIONS:
        return None
    shape: list[int] = []
    unit = b""  # the brackets and commas of each list of a level, if all are like the first one
    for level in range(depth):  # the innermost first
        begin = depth - level
        end = signs.find(b"]" * (level + 1), begin) + level
        repeats = (end - begin + 1) // (len(unit) + 1)
        unit = b"[" + (unit + b",") * (repeats - 1) + unit + b"]"
        shape.insert(0, repeats)
    return tuple(shape) if unit == signs else None


def parse_numbers(text: bytes, shape: Sequence[int], at: int) -> np.ndarray:
    """Parse comma-separated numbers; ``at`` is the flat index of the first one."""
    return to_floats(parse(lambda: msgspec.json.decode(b"[" + text + b"]")), shape, at)


def check_shape(shape: Sequence[int]) -> None:
    """Raise MalformedRequest unless the shape is (n, height, width, 3), each at least 1."""
    if len(shape) != 4 or shape[3] != CHANNELS or 0 in shape:
        raise MalformedRequest(
            f"pixels have the shape {list(shape[:MAX_LISTED])}; expected [n, height, width, {CHANNELS}]"
        )


def to_floats(flat: list[Any], shape: Sequence[int], at: int = 0) -> np.ndarray:
    """Return JSON values as a float64 array.

    Args:
        flat: the values, (n,).
        shape: the shape of the whole tensor, for errors.
        at: the flat index of the first value in the whole tensor.

    Raises:
        MalformedRequest: a value is not a number.
    """
    if set(map(type, flat)) - {int, float}:
        index = next(i for i, value in enumerate(flat) if type(value) not in (int, float))
        raise MalformedRequest(
            f"{place(at + index, shape)} is {abbreviate(flat[index])}, no number"
        )
    try:
        return np.array(flat, np.float64)
    except OverflowError as error:
        raise MalformedRequest("a pixel has hundreds of digits; expected 0 to 255") from error


def to_images(pixels: np.ndarray) -> list[np.ndarray]:
    """Return the images of a batch, each (height, width, 3) uint8.

    Args:
        pixels: (n, height, width, 3), any numeric dtype.

    Raises:
        MalformedRequest: a value is not an integer from 0 to 255.
    """
    if pixels.dtype != np.uint8:
        with np.errstate(invalid="ignore"):
            valid = (pixels >= 0) & (pixels <= 255) & (pixels == np.floor(pixels))
        if not valid.all():
            index = int(np.argmin(valid))
            raise MalformedRequest(
                f"{place(index, pixels.shape)} is {pixels.flat[index]:g};"
                " expected a whole number from 0 to 255"
            )
        pixels = pixels.astype(np.uint8)
    return list(pixels)


def place(index: int, shape: Sequence[int]) -> str:
    """Return the name of an element from its flat index, ``pixels[0][12][7][2]``."""
    return "pixels" + "".join(f"[{i}]" for i in np.unravel_index(index, tuple(shape)))


def write_numbers(values: np.ndarray) -> list[str]:
    """Return (n,) float32 values as JSON: the shortest decimals that round to them, 0.2 for 0.200000003.

    Values that are not finite become ``NaN``, ``Infinity`` or ``-Infinity``.
    """
    texts: list[str] = values.astype(np.str_).tolist()
    if np.isfinite(values).all():
        return texts
    return [NOT_FINITE.get(text, text) for text in texts]
