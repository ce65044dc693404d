"""The client at the other end: is it still there, and who is it?"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable
from typing import cast

from flask import g, request

from app.serving.batcher import is_never_gone
from app.web.limits import MAX_ROUTING_KEY

ROUTING_KEY = "X-Routing-Key"  # docs/models.md


def routing_key() -> str:
    """Return the key by which the current request is routed where versions share traffic.

    A request without one gets one at random, so that the version that was asked for room is the one
    that answers.
    """
    if "routing_key" not in g:
        g.routing_key = request.headers.get(ROUTING_KEY, "")[:MAX_ROUTING_KEY] or uuid.uuid4().hex
    key: str = g.routing_key
    return key


def watch_client() -> Callable[[], bool]:
    """Return what tells, on any thread, whether the current request's client has hung up.

    It costs one system call when it is asked, and nothing before: the batcher asks when the request's
    turn comes. nginx hangs up on Gunicorn when its own client does.
    """
    connection = request.environ.get("gunicorn.socket")
    if connection is None:  # Flask's test client, or another server
        return is_never_gone
    # gevent's sockets wait by switching greenlets, which no other thread may do; inside is a plain one.
    plain = cast(socket.socket, getattr(connection, "_sock", connection))

    def is_gone() -> bool:
        try:
            return not plain.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:  # nothing to read: it waits for its answer
            return False
        except OSError:  # reset, or closed by us
            return True

    return is_gone
