"""The requests inside this worker, recorded for the other workers (see ``app/quarantine.py``)."""

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
        count: the requests inside, those without an id too.
    """

    def __init__(self, scoreboard: Scoreboard) -> None:
        """Start with nobody inside."""
        self.count = 0
        self._scoreboard = scoreboard
        self._quarantine = scoreboard.quarantine

    def enter(self, request: bytes) -> None:
        """Record a request.

        One that another worker still has recorded was inside it when that died, and waits until the
        master has charged the death.

        Args:
            request: the id, 16 bytes; empty where no gateway gave one.

        Raises:
            NotReady: the master has not charged it in time.
            Quarantined: too many workers crashed with this request inside.
        """
        if request:
            self._record(request)
        self.count += 1

    def _record(self, request: bytes) -> None:
        """Record an id once no other worker has it recorded."""
        until = time.monotonic() + MAX_WAIT_S
        while self._is_inside_another(request):
            if time.monotonic() > until:
                raise NotReady("a worker has died of this request or beside it; try again")
            gevent.sleep(POLL_S)
        if self._quarantine.has_seen_crashes(request):
            raise Quarantined("this request was inside several workers that crashed")
        self._quarantine.enter(self._scoreboard.slot, request)

    def leave(self, request: bytes) -> None:
        """Take a request out of the record."""
        self.count -= 1
        if request:
            self._quarantine.leave(self._scoreboard.slot, request)

    def _is_inside_another(self, request: bytes) -> bool:
        own = self._scoreboard.slot
        return self._quarantine.is_in_flight(
            request, (slot for slot in self._scoreboard.occupied() if slot != own)
        )
