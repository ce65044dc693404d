"""Reading a request's body: other requests get their turn between its pieces.

Gunicorn reads for as long as there is something to read. 32 MiB that nginx has already held the hub for
50 ms in one stretch.
"""

from __future__ import annotations

import io
from typing import IO

import gevent
from gunicorn.http.errors import ParseException

from app.errors import MalformedRequest

PIECE_BYTES = 1024 * 1024  # is read in 2 ms


def read_stream(stream: IO[bytes]) -> bytes:
    """Return what a stream still has, read on the hub.

    Raises:
        MalformedRequest: it breaks off, or its chunks are none; past nginx, which passes on whole bodies.
    """
    body = io.BytesIO()
    try:
        while len(piece := stream.read(PIECE_BYTES)) == PIECE_BYTES:  # a shorter one is the last
            body.write(piece)
            gevent.sleep(0)
    except (ParseException, OSError) as error:
        raise MalformedRequest(
            f"the body is damaged or breaks off after {body.tell():,} bytes: {type(error).__name__}"
        ) from error
    if not body.tell():
        return piece  # an ordinary photograph, not copied
    body.write(piece)
    return body.getvalue()
