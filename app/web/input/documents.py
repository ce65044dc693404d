"""JSON of any size, read without holding the hub or taking memory for what nobody needs.

A small document is parsed at once, as Python has always read it. A large one is opened level by level:
``parse_object`` gives the values of its outermost object as ``msgspec.Raw``, text that was only skipped
over, and ``elements`` and ``members`` open one of them by one level more. Between the levels, and the
elements, other threads get their turn. Large documents are read aside (``web/bodies.py``).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import DecodeError, Raw

from app.errors import BodyTooLarge, MalformedRequest
from app.web.limits import (
    INLINE_BYTES,
    MAX_ELEMENTS,
    MAX_NAMES,
    MAX_SCALAR_BYTES,
    MAX_VALUES,
    SLICE_BYTES,
)
from app.web.quoting import abbreviate

T = TypeVar("T")
ADVICE = "Send pictures as files, or pixels as a binary tensor (Open Inference Protocol)"


def parse_object(text: bytes) -> dict[str, Any]:
    """Read a JSON object; the values of a large one stay text, for ``plain``, ``elements`` and ``members`` to read.

    A small document may have ``NaN`` and ``Infinity`` as numbers too.

    Raises:
        MalformedRequest: it is none; in TensorFlow Serving's words.
        BodyTooLarge: it holds more than ``MAX_VALUES``, or more names than ``MAX_NAMES``.
    """
    if not text.strip():
        raise MalformedRequest("JSON Parse error: The document is empty")
    check_size(text)
    small = len(text) <= INLINE_BYTES
    found = parse(lambda: json.loads(text) if small else open_level(text))
    if not isinstance(found, dict):
        raise MalformedRequest(f"JSON Value: {abbreviate(found)} Is not object")
    return found


def open_level(text: bytes | Raw) -> Any:
    """Return an object or a list whose values are still text; anything else is returned as it is."""
    first = bytes(memoryview(text)[:1]) if isinstance(text, Raw) else text.lstrip()[:1]
    if first == b"{":
        return msgspec.json.decode(text, type=dict[str, Raw])
    if first != b"[":
        return Raw(text)
    if count(text, b",") > MAX_ELEMENTS:
        raise BodyTooLarge(
            f"a list of the JSON has more than {MAX_ELEMENTS:,} values that are not all numbers. {ADVICE}"
        )
    return msgspec.json.decode(text, type=list[Raw])


def check_size(text: bytes) -> None:
    """Refuse with BodyTooLarge a document of too many values or names, before any of them takes memory."""
    values = sum(count(text, sign) for sign in (b",", b"[", b"{"))  # as many, or a few more
    if values > MAX_VALUES:
        raise BodyTooLarge(f"the JSON has {values:,} values; the limit is {MAX_VALUES:,}. {ADVICE}")
    names = count(text, b":")
    if names > MAX_NAMES:
        raise BodyTooLarge(f"the JSON has {names:,} names; the limit is {MAX_NAMES:,}. {ADVICE}")


def count(text: bytes | Raw, sign: bytes) -> int:
    """Return how often a byte occurs, slice by slice: it may be in strings too."""
    view = memoryview(text)
    return sum(
        bytes(view[begin : begin + SLICE_BYTES]).count(sign)
        for begin in range(0, len(view), SLICE_BYTES)
    )


def parse(read: Callable[[], T]) -> T:
    """Return what a reader of JSON returns, its errors in TensorFlow Serving's words: MalformedRequest."""
    try:
        return read()
    except json.JSONDecodeError as error:
        raise MalformedRequest(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except (DecodeError, ValueError) as error:  # no UTF-8, or a number of thousands of digits
        raise MalformedRequest(f"JSON Parse error: {error}") from error
    except RecursionError as error:
        raise MalformedRequest("JSON Parse error: it is nested too deeply") from error


def plain(value: Any) -> Any:
    """Return a value that is neither pictures nor pixels, parsed. Raises MalformedRequest where it is too large."""
    if not isinstance(value, Raw):
        return value
    if (size := len(memoryview(value))) > MAX_SCALAR_BYTES:
        raise MalformedRequest(
            f"JSON Value: {abbreviate(value)} has {size:,} bytes; the limit is {MAX_SCALAR_BYTES:,}"
        )
    return parse(lambda: msgspec.json.decode(value))


def opened(value: Any) -> Any:
    """Return an object or a list of a large document opened by one level, a text parsed; else as ``plain``."""
    if not isinstance(value, Raw):
        return value
    first = bytes(memoryview(value)[:1])
    if first in (b"{", b"["):
        return parse(lambda: open_level(value))
    return parse(lambda: msgspec.json.decode(value, type=str)) if first == b'"' else plain(value)


def only_element(value: Any) -> Any:
    """Return the only element of a list, opened as ``opened``; None where there are none or several.

    However many numbers it has: no others are looked at.
    """
    if not isinstance(value, Raw):
        return value[0] if isinstance(value, list) and len(value) == 1 else None
    try:
        (element,) = msgspec.json.decode(value, type=tuple[Raw])
    except msgspec.ValidationError:
        return None
    return opened(element)


def is_list(value: object) -> bool:
    """Return whether a value is a list, or the text of one."""
    return isinstance(value, list) or (
        isinstance(value, Raw) and bytes(memoryview(value)[:1]) == b"["
    )
