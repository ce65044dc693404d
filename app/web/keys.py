"""Checks the API key of every request: who the client is, and whether its key opens the route.

nginx refuses keys that it does not know before it reads a body; what decides is here, for every way to Gunicorn.
Neither a log line nor an answer repeats what a client sent as its key.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from flask import Flask, current_app, g, request

from app import metrics
from app.errors import MissingScope, Unauthorized
from app.keys import SCOPES, Key, KeyFile
from app.web.context import settings
from app.web.scopes import JSON_SCOPES, ROUTES, is_public

EXTENSION = "key_file"  # key among the application's extensions
LOGGED_PER_S = 10  # refusals in the access log of a worker; further ones are only counted
SEND = "send 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"


@dataclass
class Caller:
    """Who sent the request.

    Attributes:
        key: the valid key that it sent, if any.
        fault: why there is none: ``missing``, ``unknown`` or ``expired``.
        sentence: the fault for the client.
    """

    key: Key | None = None
    fault: str = "missing"
    sentence: str = f"this needs an API key: {SEND}"


class Refusals:
    """Says which refused requests are logged: a flood of them must not push other lines out of the log."""

    def __init__(self) -> None:
        self._second, self._count = 0, 0

    def is_flood(self) -> bool:
        """Count a refusal; return whether there were enough lines in this second."""
        if (second := int(time.monotonic())) != self._second:
            self._second, self._count = second, 0
        self._count += 1
        return self._count > LOGGED_PER_S


refusals = Refusals()


def register(app: Flask) -> None:
    """Register the check, which runs before every request; after that of ``app.web.access``."""
    path = app.extensions["settings"].keys
    app.extensions[EXTENSION] = KeyFile(path) if path else None
    app.before_request(check)


def check() -> None:
    """Find the client, and refuse the request unless its key opens the route.

    Raises:
        Unauthorized: it has no valid key, and the route needs one.
        MissingScope: its key does not have the route's scope.
    """
    g.caller = identify(current_app.extensions[EXTENSION])
    if g.caller.key:
        g.log_fields["key"] = g.caller.key.name
        metrics.key_requests.labels(g.caller.key.name).inc()
    # A preflight has no key. What is no route is answered 404 or 405, which tell nothing.
    if request.url_rule is None or request.method == "OPTIONS":
        return
    require(ROUTES.get(request.url_rule.endpoint, ""))


def identify(file: KeyFile | None) -> Caller:
    """Return who sent the request."""
    given = read_key()
    if file is None or not given:
        return Caller()
    key = file.find(given)
    if key is None:
        return Caller(None, "unknown", "the API key is unknown; it may have been removed")
    if key.has_expired:
        sentence = f"the API key of {key.name!r} expired at {key.expiry}"
        return Caller(None, "expired", sentence)
    return Caller(key, "", "")


def read_key() -> str:
    """Return what the client sent as its key, or an empty text. A proxy may use the scheme Basic for itself."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    return request.headers.get("X-API-Key", "").strip()


def allows(scope: str) -> bool:
    """Return whether the client may do what a scope opens."""
    return is_public(scope, settings()) or holds(scope)


def holds(scope: str) -> bool:
    """Return whether the client has an API key with a scope."""
    key: Key | None = g.caller.key
    return key is not None and scope in key.scopes


def require_json() -> None:
    """Raise Unauthorized or MissingScope unless the client may get the JSON of a route that has a page too."""
    if request.url_rule is not None:
        require(JSON_SCOPES.get(request.url_rule.endpoint, ""))


def require(scope: str) -> None:
    """Raise Unauthorized or MissingScope unless the client may do what a scope opens; nobody has an unknown one."""
    if allows(scope):
        return
    caller: Caller = g.caller
    fault = caller.fault or "scope"
    metrics.key_refusals.labels(fault).inc()
    g.log_fields["key_fault"] = fault
    g.is_flood = refusals.is_flood()
    if caller.key is None:
        raise Unauthorized(caller.sentence)
    held = ", ".join(each for each in SCOPES if each in caller.key.scopes)
    raise MissingScope(
        f"the API key of {caller.key.name!r} has the scopes {held}; this needs {scope or 'another'}"
    )


def client_name() -> str:
    """Return the name of the client's API key; empty for a client without one."""
    key: Key | None = g.caller.key
    return key.name if key else ""
