"""URL-encoded forms, decoded without copies of a large field and without long calls that hold the GIL."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

import numpy as np

from app.web.limits import SLICE_BYTES

HEX_DIGITS = np.full(256, 255, np.uint8)  # value of each character; 255: not a digit
HEX_DIGITS[list(b"0123456789abcdef")] = HEX_DIGITS[list(b"0123456789ABCDEF")] = range(16)


def split_fields(body: bytes) -> Iterator[tuple[memoryview, memoryview]]:
    """Yield the encoded names and values of a URL-encoded form, without copies."""
    view, begin = memoryview(body), 0
    while begin < len(body):
        end = body.find(b"&", begin)
        end = len(body) if end < 0 else end
        middle = body.find(b"=", begin, end)
        middle = end if middle < 0 else middle
        yield view[begin:middle], view[middle + 1 : end]
        begin = end + 1


def unquote(value: bytes | memoryview) -> bytes:
    """Percent-decode base64 of a URL-encoded form, slice by slice.

    Some clients send "+" without encoding it as "%2B"; it arrives as "+" or as a space.
    """
    pieces, begin = [], 0
    while begin < len(value):
        end = begin + SLICE_BYTES
        end += bytes(value[end - 2 : end]).rfind(b"%") + 1  # do not split %2B
        pieces.append(unquote_slice(bytes(value[begin:end])).replace(b" ", b"+"))
        begin = end
    return b"".join(pieces)


def unquote_slice(text: bytes) -> bytes:
    """Percent-decode a slice: ``unquote_to_bytes`` in bounded time."""
    if b"%" not in text:
        return text
    codes = np.frombuffer(text, np.uint8)
    (places,) = np.nonzero(codes[:-2] == ord("%"))
    high, low = HEX_DIGITS[codes[places + 1]], HEX_DIGITS[codes[places + 2]]
    whole = (high < 16) & (low < 16)
    places = places[whole]
    decoded = codes.copy()
    decoded[places] = high[whole] * 16 + low[whole]
    return np.delete(decoded, np.concatenate([places + 1, places + 2])).tobytes()


def decode_field(text: memoryview) -> str:
    """Decode a name or a value of a URL-encoded form."""
    return unquote_to_bytes(bytes(text).replace(b"+", b" ")).decode("utf-8", "replace")
