"""JSON of any size, parsed without blocking the hub and without memory for unused parts.

A small document is parsed at once by ``json``. A large one is parsed level by level on a native thread
(``bodies.py``): ``parse_object`` returns the values of the outermost object as ``msgspec.Raw`` (text), and
``opened`` parses one of them by one more level. Other threads run between the levels and elements.
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
    """Parse a JSON object; values of a large one stay ``Raw``, for ``plain`` and ``opened``.

    In a small document ``NaN`` and ``Infinity`` are accepted as numbers.

    Raises:
        MalformedRequest: not a JSON object; the message is TensorFlow Serving's.
        BodyTooLarge: more values than ``MAX_VALUES``, or more names than ``MAX_NAMES``.
    """
    if not text.strip():
        raise MalformedRequest("JSON Parse error: The document is empty")
    check_size(text)
    small = len(text) <= INLINE_BYTES
    content = parse(lambda: json.loads(text) if small else open_level(text))
    if not isinstance(content, dict):
        raise MalformedRequest(f"JSON Value: {abbreviate(content)} Is not object")
    return content


def open_level(text: bytes | Raw) -> Any:
    """Parse one level: an object or a list of ``Raw`` values; any other value is returned as ``Raw``."""
    first = bytes(memoryview(text)[:1]) if isinstance(text, Raw) else text.lstrip()[:1]
    if first == b"{":
        return msgspec.json.decode(text, type=dict[str, Raw])
    if first != b"[":
        return Raw(text)
    if count_byte(text, b",") > MAX_ELEMENTS:
        raise BodyTooLarge(
            f"a list of the JSON has more than {MAX_ELEMENTS:,} values that are not all numbers. {ADVICE}"
        )
    return msgspec.json.decode(text, type=list[Raw])


def check_size(text: bytes) -> None:
    """Raise BodyTooLarge for too many values or names, before any of them is parsed."""
    values = sum(count_byte(text, byte) for byte in (b",", b"[", b"{"))  # an upper bound
    if values > MAX_VALUES:
        raise BodyTooLarge(f"the JSON has {values:,} values; the limit is {MAX_VALUES:,}. {ADVICE}")
    names = count_byte(text, b":")
    if names > MAX_NAMES:
        raise BodyTooLarge(f"the JSON has {names:,} names; the limit is {MAX_NAMES:,}. {ADVICE}")


def count_byte(text: bytes | Raw, byte: bytes) -> int:
    """Count a byte, slice by slice; occurrences inside strings count too."""
    view = memoryview(text)
    return sum(
        bytes(view[begin : begin + SLICE_BYTES]).count(byte)
        for begin in range(0, len(view), SLICE_BYTES)
    )


def parse(read: Callable[[], T]) -> T:
    """Call a JSON parser; translate its errors to MalformedRequest with TensorFlow Serving's messages."""
    try:
        return read()
    except json.JSONDecodeError as error:
        raise MalformedRequest(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except (DecodeError, ValueError) as error:  # invalid UTF-8, or a number of thousands of digits
        raise MalformedRequest(f"JSON Parse error: {error}") from error
    except RecursionError as error:
        raise MalformedRequest("JSON Parse error: it is nested too deeply") from error


def plain(value: Any) -> Any:
    """Parse a value that holds neither images nor pixels. Raises MalformedRequest, also for an oversized value."""
    if not isinstance(value, Raw):
        return value
    if (size := len(memoryview(value))) > MAX_SCALAR_BYTES:
        raise MalformedRequest(
            f"JSON Value: {abbreviate(value)} has {size:,} bytes; the limit is {MAX_SCALAR_BYTES:,}"
        )
    return parse(lambda: msgspec.json.decode(value))


def opened(value: Any) -> Any:
    """Parse an object or a list by one level, any other value completely. Raises MalformedRequest."""
    if not isinstance(value, Raw):
        return value
    first = bytes(memoryview(value)[:1])
    if first in (b"{", b"["):
        return parse(lambda: open_level(value))
    return parse(lambda: msgspec.json.decode(value, type=str)) if first == b'"' else plain(value)


def only_element(value: Any) -> Any:
    """Return the only element of a list, parsed by ``opened``; None if there is none or more than one.

    No other element is parsed.
    """
    if not isinstance(value, Raw):
        return value[0] if isinstance(value, list) and len(value) == 1 else None
    try:
        (element,) = msgspec.json.decode(value, type=tuple[Raw])
    except msgspec.ValidationError:
        return None
    return opened(element)


def is_list(value: object) -> bool:
    """Check whether a value is a list or the text of a list."""
    return isinstance(value, list) or (
        isinstance(value, Raw) and bytes(memoryview(value)[:1]) == b"["
    )
