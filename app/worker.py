"""Gunicorn's gevent worker, with one rule more: it takes connections only while it can do something for them.

All workers accept on the same sockets, so whoever is idle gets the next request. A worker that is
still loading would be the idlest of all. The roster says when it may accept
(``Roster.may_accept``); until then the connections wait in the kernel for a worker that has a
model.
"""

from __future__ import annotations

import json
from functools import partial
from socket import socket

import gevent
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.workers.ggevent import GeventWorker

from app import responses  # noqa: F401  (it takes the place of Gunicorn's own)
from app.roster import State, roster

POLL_S = 0.05  # while loading only; well below the time that a load takes


def write_problem(connection: socket, status: int, reason: str, detail: str) -> None:
    """Answer what Gunicorn refuses although nginx let it pass: a control character in a header, a method "A"."""
    problem = {
        "type": "about:blank",
        "title": reason,
        "status": status,
        "detail": detail or "an unexpected error; the log has it",
        "instance": "/",
        "code": "bad_request" if status < 500 else "internal_error",
        "request_id": "",  # it has not been read; nginx puts it into the header
    }
    body = json.dumps(problem) + "\n"
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    util.write_nonblock(connection, (head + body).encode("ascii"))


util.write_error = write_problem  # Gunicorn's own writes HTML


class ServingWorker(GeventWorker):
    """A worker that waits for its model before it competes for requests."""

    def run(self) -> None:
        """Serve (on the hub): first as the lobby or in silence, then, with a model, as Gunicorn does."""
        while self.alive and not self._has_model():
            if roster.may_accept():
                self._answer_not_ready()
            self.notify()
            gevent.sleep(POLL_S)
        super().run()

    @staticmethod
    def _has_model() -> bool:
        return roster.states().get(roster.slot) is State.READY

    def _answer_not_ready(self) -> None:
        """Take connections though there is no model, as long as no other worker has one: they are answered 503.

        Connections are not kept alive meanwhile, or nginx would go on using them after another
        worker became ready.
        """
        keepalive = self.cfg.keepalive
        self.cfg.set("keepalive", 0)
        lobby = [StreamServer(sock, handle=partial(self.handle, sock)) for sock in self.sockets]
        for server in lobby:
            server.start()
        while self.alive and not self._has_model() and roster.may_accept():
            self.notify()
            gevent.sleep(POLL_S)
        for server in lobby:
            server.stop_accepting()
        self.cfg.set("keepalive", keepalive)
