"""Bodies of the JSON dialects: read whole, inflated where they were compressed, and never beyond the limit."""

from __future__ import annotations

import json
import zlib
from typing import Any

from flask import request

from app.errors import BodyTooLarge, MalformedRequest, UnsupportedType

# What zlib calls each Content-Encoding: gzip's header, or zlib's own.
WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
# A million pixels in nested lists: three numbers and a list each. They are read in half a second, in which
# this worker does nothing else, and take 200 MB; 32 MiB of "[]," would take a gigabyte.
MAX_VALUES = 4_000_000


def read_body() -> bytes:
    """Return the current request's body, inflated.

    Raises:
        UnsupportedType: it is compressed in another way than gzip or deflate.
        MalformedRequest: it is damaged.
        BodyTooLarge: it inflates to more than the limit of a body.
        RequestEntityTooLarge: it is over the limit as it is (Werkzeug's; answered as ``body_too_large``).
    """
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity" and encoding not in WINDOWS:
        raise UnsupportedType(
            f"the body's encoding is {encoding!r}; accepted are {', '.join(WINDOWS)}"
        )
    body = request.get_data(cache=False)
    return body if encoding == "identity" else inflate(body, encoding)


def inflate(body: bytes, encoding: str) -> bytes:
    """Inflate a body; what is beyond the limit is never made. Raises as ``read_body``.

    TensorFlow Serving's own limit, 100 MB, is above any that can be set here.
    """
    limit = request.max_content_length or 0
    inflater = zlib.decompressobj(WINDOWS[encoding])
    try:
        inflated = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise MalformedRequest(f"the {encoding} body is damaged: {error}") from error
    if len(inflated) > limit:
        raise BodyTooLarge(
            f"the {encoding} body of {len(body):,} bytes inflates to more than the limit of {limit:,}"
        )
    if not inflater.eof:
        raise MalformedRequest(f"the {encoding} body breaks off after {len(body):,} bytes")
    return inflated


def parse_object(text: bytes) -> dict[str, Any]:
    """Read a JSON object; ``NaN`` and ``Infinity`` are numbers too.

    Raises:
        MalformedRequest: it is none; in TensorFlow Serving's words.
        BodyTooLarge: it holds more than ``MAX_VALUES``.
    """
    if not text.strip():
        raise MalformedRequest("JSON Parse error: The document is empty")
    values = sum(
        map(text.count, (b",", b"[", b"{"))
    )  # as many or a few more; base64 has none of them
    if values > MAX_VALUES:
        raise BodyTooLarge(
            f"the JSON has {values:,} values; the limit is {MAX_VALUES:,}."
            " Send pictures as files, or pixels as a binary tensor (Open Inference Protocol)"
        )
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise MalformedRequest(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except ValueError as error:  # no UTF-8, or a number of thousands of digits
        raise MalformedRequest(f"JSON Parse error: {error}") from error
    except RecursionError as error:
        raise MalformedRequest("JSON Parse error: it is nested too deeply") from error
    if not isinstance(found, dict):
        raise MalformedRequest(f"JSON Value: {abbreviate(found)} Is not object")
    return found


def abbreviate(value: object) -> str:
    """Return a value as JSON, or its beginning: an error shows what it is about, but no whole picture."""
    if isinstance(value, list) and len(value) > 8:
        return f"a list of {len(value):,}"
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
