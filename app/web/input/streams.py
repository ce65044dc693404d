"""Reading of the body stream in pieces, with a switch to other greenlets between them.

Gunicorn reads as long as there is data: 32 MiB that nginx has buffered would block the hub for 50 ms.
"""

from __future__ import annotations

import io
from typing import IO

import gevent
from gunicorn.http.errors import ParseException

from app.errors import MalformedRequest

PIECE_BYTES = 1024 * 1024  # read in 2 ms


def read_stream(stream: IO[bytes]) -> bytes:
    """Return the rest of a stream, read on the hub.

    Raises:
        MalformedRequest: the stream is truncated or its chunks are invalid; possible only without nginx, which
            forwards complete bodies.
    """
    body = io.BytesIO()
    try:
        while len(piece := stream.read(PIECE_BYTES)) == PIECE_BYTES:  # a shorter piece is the last
            body.write(piece)
            gevent.sleep(0)
    except (ParseException, OSError) as error:
        raise MalformedRequest(
            f"the body is damaged or breaks off after {body.tell():,} bytes: {type(error).__name__}"
        ) from error
    if not body.tell():
        return piece  # a single piece needs no copy
    body.write(piece)
    return body.getvalue()
