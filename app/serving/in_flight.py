"""The requests in flight in this worker, recorded for the other workers (see ``app/quarantine.py``)."""

from __future__ import annotations

import time

import gevent

from app.errors import NotReady, Quarantined
from app.scoreboard import Scoreboard

POLL_S = 0.005
# The master charges a death within milliseconds, unless it is measuring a new model.
MAX_WAIT_S = 2.0


class InFlight:
    """Records requests by the gateway's own id. Methods run on the hub.

    Attributes:
        count: the requests in flight, with and without an id.
    """

    def __init__(self, scoreboard: Scoreboard) -> None:
        self.count = 0
        self._scoreboard = scoreboard
        self._quarantine = scoreboard.quarantine

    def enter(self, request: bytes) -> None:
        """Record a request.

        A request that another worker still has recorded was in flight when that worker died. It waits
        until the master has recorded the crash.

        Args:
            request: the id, 16 bytes; empty if no gateway has set one.

        Raises:
            NotReady: the master has not recorded the crash in time.
            Quarantined: too many workers have crashed with this request in flight.
        """
        if request:
            self._record(request)
        self.count += 1

    def _record(self, request: bytes) -> None:
        until = time.monotonic() + MAX_WAIT_S
        while self._is_inside_another(request):
            if time.monotonic() > until:
                raise NotReady("a worker crashed with this request in flight; try again")
            gevent.sleep(POLL_S)
        if self._quarantine.has_seen_crashes(request):
            raise Quarantined("this request was in flight in several workers that crashed")
        self._quarantine.enter(self._scoreboard.slot, request)

    def leave(self, request: bytes) -> None:
        """Remove a request from the record."""
        self.count -= 1
        if request:
            self._quarantine.leave(self._scoreboard.slot, request)

    def _is_inside_another(self, request: bytes) -> bool:
        own = self._scoreboard.slot
        return self._quarantine.is_in_flight(
            request, (slot for slot in self._scoreboard.occupied() if slot != own)
        )
