"""Gunicorn's response, with the header and the body in one send.

Gunicorn sends them one after the other. A worker that is killed in between leaves nginx with a header
that it may have passed on already, so it cannot try the request elsewhere and the client gets a body
that breaks off.
"""

from __future__ import annotations

import errno
from typing import Any

import gevent
from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.http.wsgi import Response

JOINED_BYTES = (
    64 * 1024
)  # of a body that are copied to be sent with the header; nearly every answer is shorter
SEND_S = 60  # nginx takes half a megabyte at once, and the rest as fast as the client reads


class Draft:
    """Takes what Gunicorn would send."""

    def __init__(self) -> None:
        """Start empty."""
        self.text = b""

    def sendall(self, data: bytes) -> None:
        """Keep the data."""
        self.text += data


class WholeResponse(Response):
    """Holds the header back until there is a body to send with it, or the end of the response."""

    sock: Any
    _head = b""

    def send_headers(self) -> None:
        """Write the header, but do not send it yet."""
        draft = Draft()
        connection, self.sock = self.sock, draft
        try:
            super().send_headers()
        finally:
            self.sock = connection
        self._head += draft.text

    def can_sendfile(self) -> bool:
        """Return False: bodies are written, not sent from a file past the header."""
        return False

    def _emit_body(self, data: bytes) -> None:
        """Send a piece of the body, the first one together with the header."""
        head, self._head = self._head, b""
        if head and not self.chunked:
            head, data = head + data[:JOINED_BYTES], data[JOINED_BYTES:]
        with patience():
            if head:
                util.write(self.sock, head)
            if data:
                super()._emit_body(data)

    def close(self) -> None:
        """End the response; one without a body is its header alone."""
        if not self.headers_sent:
            self.send_headers()
        if self._head:
            head, self._head = self._head, b""
            with patience():
                util.write(self.sock, head)
        super().close()


def patience() -> gevent.Timeout:
    """Return the time that a client has to read a piece; then its connection is closed."""
    return gevent.Timeout(SEND_S, BrokenPipeError(errno.EPIPE, "the client reads too slowly"))


wsgi.Response = WholeResponse  # what Gunicorn's own ``create`` makes
