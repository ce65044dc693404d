"""A budget of bytes that greenlets share; a request for more than is left waits, for a limited time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gevent
from gevent.event import Event

from app.errors import QueueFull


class ByteBudget:
    """Bounds a sum of bytes. It belongs to the hub's thread.

    Waiters are admitted in the order in which they came, except those that do not fit yet: a small one never
    waits behind a large one.
    """

    def __init__(self, limit: int, what: str) -> None:
        """Create an empty budget.

        Args:
            limit: bytes; a larger request gets all of it, alone.
            what: name of the bytes, for the error.
        """
        self.held = 0
        self._limit = limit
        self._what = what
        self._waiting: list[tuple[int, Event]] = []

    @contextmanager
    def hold(self, size: int, timeout_s: float) -> Iterator[None]:
        """Hold bytes of the budget while the block runs.

        Raises:
            QueueFull: they did not become free in time.
        """
        size = min(size, self._limit)
        if self.held + size > self._limit:
            self._wait(size, timeout_s)  # _admit counts it
        else:
            self.held += size
        try:
            yield
        finally:
            self.held -= size
            self._admit()

    def _wait(self, size: int, timeout_s: float) -> None:
        admitted = Event()
        entry = size, admitted
        self._waiting.append(entry)
        full = QueueFull(
            f"{self.held:,} bytes of {self._what} are held; the limit is {self._limit:,}"
        )
        try:
            with gevent.Timeout(timeout_s, full):
                admitted.wait()
        except BaseException:
            if entry in self._waiting:
                self._waiting.remove(entry)
            else:  # it was admitted at the same moment
                self.held -= size
                self._admit()
            raise

    def _admit(self) -> None:
        """Admit all waiters that fit."""
        for entry in [*self._waiting]:
            size, admitted = entry
            if self.held + size <= self._limit:
                self.held += size
                self._waiting.remove(entry)
                admitted.set()
