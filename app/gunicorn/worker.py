"""Gunicorn's gevent worker, with rules of its own.

It takes connections only while it can do something for them. All workers accept on the same sockets,
so whoever is idle gets the next request. A worker that is still loading would be the idlest of all.
The scoreboard says when it may accept (``Scoreboard.may_accept``); until then the connections wait in the
kernel for a worker that has a model.

A connection without a request does not hold up its end, a body that drips does not last for ever,
and what it logs never waits for a lock of gevent's.
"""

from __future__ import annotations

import json
import logging
import select
import sys
import time
from functools import partial
from http import HTTPStatus
from socket import socket
from types import TracebackType
from typing import Any, Literal

import gevent
from gevent.hub import Hub, get_hub
from gevent.monkey import get_original
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.workers.ggevent import GeventWorker
from werkzeug.exceptions import RequestTimeout

from app.gunicorn import response  # noqa: F401  (it takes the place of Gunicorn's own)
from app.logs import cut, native_locks
from app.scoreboard import State, scoreboard
from app.system.log_writer import stdout

POLL_S = 0.05
BODY_S = 30  # for a request's whole body; nginx passes on complete ones, within milliseconds
MAX_DETAIL = 300  # characters of an answer that Gunicorn's own words go into
CODES = {
    400: "bad_request",
    403: "forbidden",
    414: "uri_too_long",
    417: "expectation_failed",
    431: "headers_too_large",
    501: "not_implemented",
}

logger = logging.getLogger(__name__)
native_poll = get_original("select", "poll")


def write_problem(connection: socket, status: int, reason: str, detail: str) -> None:
    """Answer what Gunicorn refuses although nginx let it pass: a control character in a header, a method "A"."""
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": cut(detail, MAX_DETAIL) or "an unexpected error; the log has it",
        "instance": "/",
        "code": CODES.get(status, "internal_error"),
        "request_id": "",  # it has not been read; nginx puts it into the header
    }
    body = json.dumps(problem) + "\n"
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    util.write_nonblock(connection, (head + body).encode("ascii"))


util.write_error = write_problem  # Gunicorn's own writes HTML


def log_exception(
    _hub: Hub,
    context: object,
    kind: type[BaseException],
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    """Log what a greenlet raised and nobody caught, as a line like any other."""
    what = (kind, error, trace) if error else None
    logger.error("unexpected %s in %.200s", kind.__name__, context, exc_info=what)


def log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Log what a native thread or a finalizer raised."""
    error = unraisable.exc_value
    what = (type(error), error, unraisable.exc_traceback) if error else None
    kind = unraisable.exc_type.__name__
    logger.error("unexpected %s in %.200s", kind, unraisable.object, exc_info=what)


class BodyReader:
    """Reads a request's body until its time is over."""

    def __init__(self, reader: Any) -> None:
        """Read from one of Gunicorn's readers."""
        self._reader = reader
        self._deadline = time.monotonic() + BODY_S

    def read(self, size: int) -> bytes:
        """Return at most so many bytes.

        Raises:
            RequestTimeout: they did not arrive in time.
        """
        late = RequestTimeout(f"the body did not arrive within {BODY_S} s")
        with gevent.Timeout(max(0, self._deadline - time.monotonic()), late):
            data: bytes = self._reader.read(size)
        return data


class NextRequest(gevent.Timeout):
    """The time in which a connection waits for its next request; ``waiting`` holds those that do."""

    def __init__(self, seconds: float, waiting: dict[Any, NextRequest]) -> None:
        """Wait at most so long, and without an error."""
        super().__init__(seconds, False)  # type: ignore[arg-type]  # documented: no error
        self._waiting = waiting

    def __enter__(self) -> NextRequest:
        """Begin to wait."""
        self._waiting[gevent.getcurrent()] = self
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[True] | None:
        """Stop waiting."""
        self._waiting.pop(gevent.getcurrent(), None)
        return super().__exit__(kind, error, trace)


class ServingWorker(GeventWorker):
    """A worker that waits for its model before it competes for requests."""

    def __init__(self, *arguments: Any) -> None:
        """Make it (in the master, before the fork)."""
        super().__init__(*arguments)
        self._clients: dict[Any, socket] = {}  # by the greenlet that talks to it
        self._waiting: dict[Any, NextRequest] = {}
        self._lines_dropped = 0
        self._is_aside = False

    def patch(self) -> None:
        """Patch the standard library, all but the locks of logging; let errors go to the log, not raw to stderr."""
        with native_locks():
            super().patch()
        Hub.print_exception = log_exception  # type: ignore[method-assign, assignment]
        sys.unraisablehook = log_unraisable
        logging.captureWarnings(True)

    def notify(self) -> None:
        """Show the master a sign of life, and count what the log has lost (on the hub)."""
        super().notify()
        if (dropped := stdout.dropped) > self._lines_dropped:
            from app import metrics  # noqa: PLC0415  (only a worker counts, once it has its slot)

            metrics.log_lines_dropped.inc(dropped - self._lines_dropped)
            self._lines_dropped = dropped

    def run(self) -> None:
        """Serve (on the hub): first as the lobby or in silence, then, with a model, until the end."""
        while self.alive and not self._has_model():
            if scoreboard.may_accept():
                self._answer_not_ready()
            self.notify()
            gevent.sleep(POLL_S)
        servers = self._listen()
        while self.alive:
            self._leave_to_others(servers)
            self.notify()
            gevent.sleep(POLL_S)
        scoreboard.mark(
            State.DRAINING
        )  # the others have to know before the last request is answered
        for server in servers:
            server.close()
        self._drain(servers)

    def _leave_to_others(self, servers: list[StreamServer]) -> None:
        """Take no connections, new or kept, while this worker has lost its model and another has one."""
        was_aside, self._is_aside = self._is_aside, scoreboard.has_substitute()
        if self._is_aside:
            for server in servers:
                server.stop_accepting()
            if was_aside:  # what was accepted just now has had a moment to send its request
                get_hub().loop.run_callback(self._close_waiting)
        elif was_aside:
            for server in servers:
                server.start_accepting()

    def _listen(self) -> list[StreamServer]:
        """Take connections from all sockets."""
        servers = []
        for sock in self.sockets:
            pool = Pool(self.worker_connections)
            server = StreamServer(sock, handle=partial(self.handle, sock), spawn=pool)
            if self.cfg.workers > 1:
                server.max_accept = 1  # leave some to the others
            server.start()
            servers.append(server)
        return servers

    def _drain(self, servers: list[StreamServer]) -> None:
        """Finish the requests inside within the graceful timeout; close connections that wait for their next one."""
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while any(len(server.pool or ()) for server in servers):
            if time.monotonic() > deadline:
                logger.warning("requests are still inside after %s s", self.cfg.graceful_timeout)
                for server in servers:
                    server.stop(timeout=1)
                return
            get_hub().loop.run_callback(self._close_waiting)
            self.notify()
            gevent.sleep(POLL_S)

    def _close_waiting(self) -> None:
        """End the connections that wait and have sent nothing (in the hub, where no greenlet can begin meanwhile)."""
        for greenlet, timeout in list(self._waiting.items()):
            client = self._clients[greenlet]
            readable = native_poll()
            readable.register(client.fileno(), select.POLLIN)
            if not readable.poll(0):
                greenlet.throw(timeout)

    def timeout_ctx(self) -> NextRequest:
        """Return the context in which a connection waits for its next request."""
        return NextRequest(self.cfg.keepalive, self._waiting)

    def handle(self, listener: socket, client: socket, address: Any) -> None:
        """Serve a connection (in a greenlet of its own)."""
        greenlet = gevent.getcurrent()
        self._clients[greenlet] = client
        try:
            super().handle(listener, client, address)
        finally:
            del self._clients[greenlet]

    def handle_request(self, listener_name: Any, request: Any, client: socket, address: Any) -> Any:
        """Serve a request, whose body has its time to arrive."""
        reader = request.body.reader
        request.body.reader = BodyReader(reader)
        try:
            return super().handle_request(listener_name, request, client, address)
        finally:
            request.body.reader = reader  # what is left of it has the time of the next request

    @staticmethod
    def _has_model() -> bool:
        return scoreboard.states().get(scoreboard.slot) is State.READY

    def _answer_not_ready(self) -> None:
        """Take connections though there is no model, as long as no other worker has one: they are answered 503.

        Connections are not kept alive meanwhile, or nginx would go on using them after another
        worker became ready.
        """
        keepalive = self.cfg.keepalive
        self.cfg.set("keepalive", 0)
        lobby = self._listen()
        while self.alive and not self._has_model() and scoreboard.may_accept():
            self.notify()
            gevent.sleep(POLL_S)
        for server in lobby:
            server.stop_accepting()
        self.cfg.set("keepalive", keepalive)
