"""Bodies: read whole, inflated where they were compressed, never beyond the limit; and work on them.

What takes long with a large body is done aside, on a native thread: zlib lets the hub go on meanwhile,
and our own code does where it works slice by slice (``web/limits.py``).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TypeVar

from flask import g, request

from app.errors import BodyTooLarge, InvalidOption, MalformedRequest, UnsupportedType
from app.web.context import model_server
from app.web.echoes import cut
from app.web.input.streams import read_stream
from app.web.limits import INLINE_BYTES, INLINE_ROWS, MAX_ROWS

# What zlib calls each Content-Encoding: gzip's header, or zlib's own.
WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}

T = TypeVar("T")


def read_body() -> bytes:
    """Return the current request's body, inflated.

    Raises:
        UnsupportedType: it is compressed in another way than gzip or deflate.
        MalformedRequest: it is damaged.
        BodyTooLarge: it inflates to more than the limit of a body.
        QueueFull: the bodies of other requests take all the memory that there is for bodies.
        RequestEntityTooLarge: it is over the limit as it is (Werkzeug's; answered as ``body_too_large``).
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
    # However few they are: a thousandth of the limit inflates to the limit.
    return model_server().bodies.process(body, lambda: inflate(body, encoding, limit))


def read_plain_body(room: int = 0) -> bytes:
    """Return the current request's body as it came.

    Until the request ends it holds a part of the worker's budget for bodies.

    Args:
        room: bytes to hold beside it, for what it inflates to.

    Raises:
        QueueFull: other requests' bodies have held the budget for half of the time that a request has.
        RequestEntityTooLarge: as ``read_body``.
    """
    length = request.content_length
    size = (request.max_content_length or 0) if length is None else length
    g.held.enter_context(model_server().bodies.hold(size + room))
    return read_stream(request.stream)


def aside(body: bytes, work: Callable[[], T]) -> T:
    """Return what work on a client's bytes returns; on a native thread, unless they are few.

    The work must touch neither Flask's ``request`` and ``g`` nor the metrics.
    """
    return work() if len(body) <= INLINE_BYTES else model_server().bodies.process(body, work)


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Inflate a body; what is beyond the limit is never made. Raises as ``read_body``.

    TensorFlow Serving's own limit, 100 MB, is above any that can be set here.
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
    """Return what work on an answer of at most so many rows returns; on a native thread, unless they are few.

    A row is a class of a picture. The work must touch neither Flask's ``request`` and ``g`` nor the metrics.
    """
    return work() if most <= INLINE_ROWS else model_server().bodies.process(b"", work)


def check_rows(rows: int) -> None:
    """Refuse with InvalidOption an answer of more than ``MAX_ROWS``."""
    if rows > MAX_ROWS:
        raise InvalidOption(
            f"the answer would have {rows:,} scores; the limit is {MAX_ROWS:,}: send fewer pictures"
        )
