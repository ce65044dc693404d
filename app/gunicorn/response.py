"""Gunicorn's response, with the header and the body in one send.

Gunicorn sends them separately. If a worker is killed in between, nginx may have forwarded the header already: it
cannot retry the request on another worker, and the client gets a truncated body.
"""

from __future__ import annotations

import errno
from typing import Any

import gevent
from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.http.wsgi import Response

JOINED_BYTES = 64 * 1024  # of a body to copy behind the header; nearly every response is shorter
SEND_S = 60  # nginx buffers half a megabyte, and takes the rest as fast as the client reads


class Draft:
    """Stand in for a connection: collect the bytes that Gunicorn writes."""

    def __init__(self) -> None:
        self.text = b""

    def sendall(self, data: bytes) -> None:
        """Append the data."""
        self.text += data


class WholeResponse(Response):
    """Delays the header until the first piece of the body, or the end of the response."""

    sock: Any
    _head = b""

    def send_headers(self) -> None:
        """Format the header, but do not send it yet."""
        draft = Draft()
        connection, self.sock = self.sock, draft
        try:
            super().send_headers()
        finally:
            self.sock = connection
        self._head += draft.text

    def can_sendfile(self) -> bool:
        """Return False: sendfile would bypass the delayed header."""
        return False

    def _emit_body(self, data: bytes) -> None:
        """Send a piece of the body, the first together with the header."""
        head, self._head = self._head, b""
        if head and not self.chunked:
            head, data = head + data[:JOINED_BYTES], data[JOINED_BYTES:]
        with send_timeout():
            if head:
                util.write(self.sock, head)
            if data:
                super()._emit_body(data)

    def close(self) -> None:
        """End the response; without a body, send the header alone."""
        if not self.headers_sent:
            self.send_headers()
        if self._head:
            head, self._head = self._head, b""
            with send_timeout():
                util.write(self.sock, head)
        super().close()


def send_timeout() -> gevent.Timeout:
    """Return the timeout for sending a piece, after which the connection is closed."""
    return gevent.Timeout(SEND_S, BrokenPipeError(errno.EPIPE, "the client reads too slowly"))


wsgi.Response = WholeResponse  # the class that Gunicorn's ``create`` instantiates
