"""Gunicorn's gevent worker, with one rule more: it takes connections only while it can do something for them.

All workers accept on the same sockets, so whoever is idle gets the next request. A worker that is
still loading would be the idlest of all. The roster says when it may accept
(``Roster.may_accept``); until then the connections wait in the kernel for a worker that has a
model.
"""

from __future__ import annotations

from functools import partial

import gevent
from gevent.server import StreamServer
from gunicorn.workers.ggevent import GeventWorker

from app.roster import State, roster

POLL_S = 0.05  # while loading only; well below the time that a load takes


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
