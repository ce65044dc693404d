"""The requests inside this worker, recorded for the other workers (see ``app/quarantine.py``)."""

from __future__ import annotations

import time
from collections.abc import Sequence

import gevent

from app.roster import Roster

POLL_S = 0.005
MAX_WAIT_S = (
    2.0  # the master charges a death within milliseconds, unless it is measuring a new model
)


class Visitors:
    """Records requests by the gateway's own id. Methods run on the hub."""

    def __init__(self, roster: Roster) -> None:
        """Start with nobody inside."""
        self._roster = roster
        self._records = roster.quarantine.visitors(roster.slot)

    def enter(self, request: bytes) -> Sequence[int]:
        """Record a request; return its places for ``leave``.

        One that another worker still has recorded was inside it when that died, and waits until the
        master knows what to think of it.

        Args:
            request: the id, 16 bytes; empty where no gateway gave one.
        """
        if not request:
            return ()
        until = time.monotonic() + MAX_WAIT_S
        while self._is_inside_another(request) and time.monotonic() < until:
            gevent.sleep(POLL_S)
        return self._records.hold([request])

    def leave(self, places: Sequence[int]) -> None:
        """Take a request out of the record."""
        self._records.release(places)

    def _is_inside_another(self, request: bytes) -> bool:
        roster = self._roster
        return roster.quarantine.is_inside_another(request, roster.slot, roster.occupied())
