"""Gunicorn's gevent worker, which accepts connections only while it can answer them.

All workers accept on the same sockets, so an idle one gets the next request, and a worker that is still loading
would be the idlest of all. The scoreboard decides when it may accept (``Scoreboard.may_accept``); until then
connections wait in the kernel for a worker that has a model.

An idle connection does not delay the worker's end, a slow body has a deadline, and logging never waits for
a lock of gevent's.
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
BODY_S = 30  # for a whole body; nginx passes on complete ones, within milliseconds
MAX_DETAIL = 300  # characters of Gunicorn's own error texts
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
    """Answer a request that Gunicorn rejects and nginx does not: a control character in a header, a method "A"."""
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
    """Log an uncaught error of a greenlet, in the format of the log."""
    what = (kind, error, trace) if error else None
    logger.error("unexpected %s in %.200s", kind.__name__, context, exc_info=what)


def log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Log an error of a native thread or a finalizer."""
    error = unraisable.exc_value
    what = (type(error), error, unraisable.exc_traceback) if error else None
    kind = unraisable.exc_type.__name__
    logger.error("unexpected %s in %.200s", kind, unraisable.object, exc_info=what)


class BodyReader:
    """Reads a request's body until its deadline."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._deadline = time.monotonic() + BODY_S

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes.

        Raises:
            RequestTimeout: they did not arrive in time.
        """
        late = RequestTimeout(f"the body did not arrive within {BODY_S} s")
        with gevent.Timeout(max(0, self._deadline - time.monotonic()), late):
            data: bytes = self._reader.read(size)
        return data


class NextRequest(gevent.Timeout):
    """The keep-alive timeout of a connection; ``waiting`` holds all that wait for their next request."""

    def __init__(self, seconds: float, waiting: dict[Any, NextRequest]) -> None:
        super().__init__(seconds, False)  # type: ignore[arg-type]  # documented: no error
        self._waiting = waiting

    def __enter__(self) -> NextRequest:
        """Start waiting."""
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
        super().__init__(*arguments)
        self._clients: dict[Any, socket] = {}  # by the greenlet that talks to it
        self._waiting: dict[Any, NextRequest] = {}
        self._lines_dropped = 0
        self._is_paused = False

    def patch(self) -> None:
        """Patch the standard library, except the locks of logging; send errors to the log, not raw to stderr."""
        with native_locks():
            super().patch()
        Hub.print_exception = log_exception  # type: ignore[method-assign, assignment]
        sys.unraisablehook = log_unraisable
        logging.captureWarnings(True)

    def notify(self) -> None:
        """Send the heartbeat, and count lost log lines; on the hub."""
        super().notify()
        if (dropped := stdout.dropped) > self._lines_dropped:
            from app import metrics  # noqa: PLC0415  (only a worker counts, once it has its slot)

            metrics.log_lines_dropped.inc(dropped - self._lines_dropped)
            self._lines_dropped = dropped

    def run(self) -> None:
        """Serve, on the hub: without a model answer 503 or accept nothing, then serve until the end."""
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
        # The other workers have to know before the last request is answered.
        scoreboard.mark(State.DRAINING)
        for server in servers:
            server.close()
        self._drain(servers)

    def _leave_to_others(self, servers: list[StreamServer]) -> None:
        """Accept no connections, new or kept, while this worker has no model and another has one."""
        was_paused, self._is_paused = self._is_paused, scoreboard.has_substitute()
        if self._is_paused:
            for server in servers:
                server.stop_accepting()
            if was_paused:  # the last accepted connections have had a moment to send their request
                get_hub().loop.run_callback(self._close_waiting)
        elif was_paused:
            for server in servers:
                server.start_accepting()

    def _listen(self) -> list[StreamServer]:
        """Accept connections on all sockets."""
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
        """Finish the requests in flight within the graceful timeout; close connections that wait for their next."""
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while any(len(server.pool or ()) for server in servers):
            if time.monotonic() > deadline:
                logger.warning("requests are still in flight after %s s", self.cfg.graceful_timeout)
                for server in servers:
                    server.stop(timeout=1)
                return
            get_hub().loop.run_callback(self._close_waiting)
            self.notify()
            gevent.sleep(POLL_S)

    def _close_waiting(self) -> None:
        """Close the connections that wait and have sent nothing; in the hub, where no greenlet can start meanwhile."""
        for greenlet, timeout in list(self._waiting.items()):
            client = self._clients[greenlet]
            readable = native_poll()
            readable.register(client.fileno(), select.POLLIN)
            if not readable.poll(0):
                greenlet.throw(timeout)

    def timeout_ctx(self) -> NextRequest:
        """Return the keep-alive timeout of a connection."""
        return NextRequest(self.cfg.keepalive, self._waiting)

    def handle(self, listener: socket, client: socket, address: Any) -> None:
        """Serve a connection, in a greenlet of its own."""
        greenlet = gevent.getcurrent()
        self._clients[greenlet] = client
        try:
            super().handle(listener, client, address)
        finally:
            del self._clients[greenlet]

    def handle_request(self, listener_name: Any, request: Any, client: socket, address: Any) -> Any:
        """Serve a request; its body has a deadline."""
        reader = request.body.reader
        request.body.reader = BodyReader(reader)
        try:
            return super().handle_request(listener_name, request, client, address)
        finally:
            request.body.reader = reader  # the rest of it has the deadline of the next request

    @staticmethod
    def _has_model() -> bool:
        return scoreboard.states().get(scoreboard.slot) is State.READY

    def _answer_not_ready(self) -> None:
        """Accept connections without a model, while no other worker has one: they are answered 503.

        Connections are not kept alive meanwhile, or nginx would keep using them after another
        worker became ready.
        """
        keepalive = self.cfg.keepalive
        self.cfg.set("keepalive", 0)
        servers = self._listen()
        while self.alive and not self._has_model() and scoreboard.may_accept():
            self.notify()
            gevent.sleep(POLL_S)
        for server in servers:
            server.stop_accepting()
        self.cfg.set("keepalive", keepalive)
