"""Bodies: reading, decompression up to the limit, and processing on native threads.

Large bodies are processed on a native thread so that the hub stays free: zlib releases the GIL, and our own
code works in slices (``app/web/limits.py``).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TypeVar

from flask import g, request

from app.errors import BodyTooLarge, InvalidOption, MalformedRequest, UnsupportedType
from app.web.context import model_server
from app.web.input.streams import read_stream
from app.web.limits import INLINE_BYTES, INLINE_ROWS, MAX_ROWS
from app.web.quoting import cut

# zlib's wbits for each Content-Encoding; 16 adds the gzip header.
WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}

T = TypeVar("T")


def read_body() -> bytes:
    """Return the body of the current request, decompressed.

    Raises:
        UnsupportedType: unsupported Content-Encoding.
        MalformedRequest: the compressed data are damaged.
        BodyTooLarge: the decompressed body is over the limit.
        QueueFull: the memory budget of bodies is exhausted.
        RequestEntityTooLarge: the compressed body is over the limit (Werkzeug's; answered as ``body_too_large``).
    """
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity" and encoding not in WINDOWS:
        raise UnsupportedType(
            f"the body's encoding is {cut(encoding)!r}; accepted are {', '.join(WINDOWS)}"
        )
    limit = request.max_content_length or 0
    if encoding == "identity":
        return read_plain_body()
    body = read_plain_body(room=limit)
    # Even a small body: a thousandth of the limit can inflate to the limit.
    return model_server().bodies.process(body, lambda: inflate(body, encoding, limit))


def read_plain_body(room: int = 0) -> bytes:
    """Return the body of the current request without decompression.

    Its size is reserved in the worker's memory budget for bodies until the request ends.

    Args:
        room: additional bytes to reserve, for the decompressed body.

    Raises:
        QueueFull: the budget stayed exhausted for half of the request's deadline.
        RequestEntityTooLarge: the body is over the limit (Werkzeug's; answered as ``body_too_large``).
    """
    length = request.content_length
    size = (request.max_content_length or 0) if length is None else length
    g.held.enter_context(model_server().bodies.hold(size + room))
    return read_stream(request.stream)


def process_body(body: bytes, work: Callable[[], T]) -> T:
    """Process a body: on a native thread, or inline if it is small.

    ``work`` must not use Flask's ``request`` and ``g``, nor the metrics.
    """
    return work() if len(body) <= INLINE_BYTES else model_server().bodies.process(body, work)


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Decompress a body up to the limit. Raises MalformedRequest and BodyTooLarge.

    TensorFlow Serving's own limit, 100 MB, is above the highest setting of ours.
    """
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


def write_rows(most: int, work: Callable[[], T]) -> T:
    """Encode a response: on a native thread, or inline if it has few rows.

    ``work`` must not use Flask's ``request`` and ``g``, nor the metrics.

    Args:
        most: the maximum number of rows; a row is a class of an image.
        work: encodes the response.
    """
    return work() if most <= INLINE_ROWS else model_server().bodies.process(b"", work)


def check_rows(rows: int) -> None:
    """Raise InvalidOption for a response of more than ``MAX_ROWS``."""
    if rows > MAX_ROWS:
        raise InvalidOption(
            f"the answer would have {rows:,} scores; the limit is {MAX_ROWS:,}: send fewer pictures"
        )
