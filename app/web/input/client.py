"""The client of a request: its routing key, the model that it gets, whether it is still connected."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from typing import cast

from flask import g, request
from werkzeug.datastructures import RequestCacheControl
from werkzeug.http import parse_cache_control_header

from app.serving.answer_cache import CacheUse
from app.serving.model import Servable
from app.serving.routing import Target
from app.serving.ticket import is_never_gone
from app.web.context import model_server
from app.web.keys import client_name
from app.web.limits import MAX_ROUTING_KEY

ROUTING_KEY = "X-Routing-Key"  # docs/models.md


def routing_key() -> str:
    """Return the X-Routing-Key header (sticky traffic splitting), or an empty string."""
    return request.headers.get(ROUTING_KEY, "")[:MAX_ROUTING_KEY]


def read_cache_use() -> CacheUse | None:
    """Return how the current request uses the answer cache, by its Cache-Control; None with ``no-store``.

    ``no-cache`` and ``max-age`` let the request be computed, and its answer replace an older one. Clients with
    API keys share answers only with themselves; those without one share theirs, because nothing tells them apart.
    """
    # Werkzeug knows the names in lower case only.
    given = request.headers.get("Cache-Control", "").lower()
    control = parse_cache_control_header(given, cls=RequestCacheControl)
    if control.no_store:
        return None
    if control.no_cache:
        return CacheUse(client_name(), max_age_s=0)
    max_age_s = math.inf if control.max_age is None else control.max_age
    return CacheUse(client_name(), max_age_s)


def find_model(target: Target) -> Servable:
    """Return the version that answers the current request, which holds it until it ends."""
    servable = model_server().find(target)
    g.held.enter_context(servable.lease())
    return servable


def watch_client() -> Callable[[], bool]:
    """Return a check, safe on any thread, of whether the current request's client has disconnected.

    The batcher calls it once, when it cuts the request's batch, and it costs one system call. nginx
    disconnects from Gunicorn when its own client does.
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
