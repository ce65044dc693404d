"""Pictures as the JSON dialects carry them: base64 in a string, or pixels as numbers in nested lists."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any, BinaryIO

import numpy as np
from msgspec import Meta

from app.errors import MalformedRequest
from app.web.bodies import abbreviate

CHANNELS = 3
B64 = "b64"
Base64 = Annotated[str, Meta(extra_json_schema={"contentEncoding": "base64"})]


def is_binary(value: object) -> bool:
    """Tell whether a JSON value is TensorFlow Serving's form of binary data: ``{"b64": "…"}`` and nothing else."""
    return isinstance(value, dict) and value.keys() == {B64} and isinstance(value[B64], str)


def open_base64(text: str) -> BinaryIO:
    """Return what base64 stands for, of either alphabet, padded or not, as a file.

    Raises:
        MalformedRequest: it is no base64; in TensorFlow Serving's words.
    """
    standard = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        data = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedRequest(f"Unable to base64 decode: {error}") from error
    return io.BytesIO(data)


def unnest(value: list[Any]) -> tuple[list[Any], tuple[int, ...]]:
    """Return nested lists as one flat list, row-major, and their shape.

    Raises:
        MalformedRequest: lists beside each other have different sizes.
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


def check_shape(shape: Sequence[int]) -> None:
    """Refuse with MalformedRequest what is no batch of pixels: (n, height, width, 3), each at least 1."""
    if len(shape) != 4 or shape[3] != CHANNELS or 0 in shape:
        raise MalformedRequest(
            f"pixels have the shape {list(shape[:8])}; expected [n, height, width, {CHANNELS}]"
        )


def read_numbers(flat: list[Any], shape: Sequence[int]) -> np.ndarray:
    """Return a flat list of JSON values as (n, height, width, 3) float64.

    Raises:
        MalformedRequest: something else than a number is among them.
    """
    if set(map(type, flat)) - {int, float}:
        index = next(i for i, value in enumerate(flat) if type(value) not in (int, float))
        raise MalformedRequest(f"{place(index, shape)} is {abbreviate(flat[index])}, no number")
    try:
        return np.array(flat, np.float64).reshape(shape)
    except OverflowError as error:
        raise MalformedRequest("a pixel has hundreds of digits; expected 0 to 255") from error


def to_pictures(pixels: np.ndarray) -> list[np.ndarray]:
    """Return a batch as pictures, each (height, width, 3) uint8.

    Args:
        pixels: (n, height, width, 3), of any type of numbers.

    Raises:
        MalformedRequest: a value is no whole number from 0 to 255.
    """
    if pixels.dtype != np.uint8:
        with np.errstate(invalid="ignore"):
            right = (pixels >= 0) & (pixels <= 255) & (pixels == np.floor(pixels))
        if not right.all():
            index = int(np.argmin(right))
            raise MalformedRequest(
                f"{place(index, pixels.shape)} is {pixels.flat[index]:g};"
                " expected a whole number from 0 to 255"
            )
        pixels = pixels.astype(np.uint8)
    return list(pixels)


def place(index: int, shape: Sequence[int]) -> str:
    """Name an element of pixels by its flat index: ``pixels[0][12][7][2]``."""
    return "pixels" + "".join(f"[{i}]" for i in np.unravel_index(index, tuple(shape)))


def as_decimals(values: np.ndarray) -> list[Any]:
    """Return float32 values as nested lists of the shortest decimals that mean the same, as 0.2 for 0.200000003."""
    decimals: list[Any] = values.astype(np.str_).astype(np.float64).tolist()
    return decimals
