"""Gunicorn's addresses: nginx's socket, and a port that bypasses nginx if it is free."""

from __future__ import annotations

import errno
import socket
import time
from functools import cache

WAIT_S = 5  # for the workers of a killed master, which end within a second
POLL_S = 0.2


@cache  # a reload reads the configuration again, and the port is Gunicorn's own by then
def is_free(address: str) -> bool:
    """Return whether a TCP address (``host:port``) can be bound, now or within ``WAIT_S``.

    Gunicorn exits if it cannot bind one of its addresses. A process that cannot be killed (state D) may
    keep the port of an earlier master, which must not stop the service.
    """
    host, _, port = address.rpartition(":")
    until = time.monotonic() + WAIT_S
    while not can_bind(host, int(port)):
        if time.monotonic() > until:
            return False
        time.sleep(POLL_S)
    return True


def can_bind(host: str, port: int) -> bool:
    """Return whether an address can be bound now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Gunicorn does
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True
