"""Deadlines: each request has one, for everything that is done for it, its wait for a worker included."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar

import gevent

from app.errors import DeadlinePassed

MARGIN_S = 0.25  # from the last picture's deadline to that of its request
# For a request that has waited longer than its deadline already: its error has to be written.
MIN_LEFT_S = 0.1

# The deadline of the request that the current greenlet answers, monotonic seconds.
_until: ContextVar[float] = ContextVar("until", default=math.inf)


class Deadlines:
    """Bounds the time of requests. Methods run on the hub, in the greenlet of a request."""

    def __init__(self, limit_s: float) -> None:
        """Set the time that a request has."""
        self._limit_s = limit_s

    def start(self, waited_s: float = 0.0) -> gevent.Timeout:
        """Bound everything that the current greenlet does for a request, until ``end``.

        When it passes, DeadlinePassed is raised wherever the greenlet waits then.

        Args:
            waited_s: how long the request has waited already.
        """
        left_s = max(MIN_LEFT_S, self._limit_s - waited_s)
        _until.set(time.monotonic() + left_s)
        return gevent.Timeout.start_new(left_s, self.error())

    @staticmethod
    def end(deadline: gevent.Timeout) -> None:
        """Close the deadline of a request that is answered."""
        deadline.close()
        _until.set(math.inf)

    def left_s(self) -> float:
        """Return the time that the current request has left for its pictures; some stays to answer in."""
        left_s = _until.get() - time.monotonic() - min(MARGIN_S, self._limit_s / 10)
        return max(MIN_LEFT_S / 2, min(self._limit_s, left_s))

    def error(self) -> DeadlinePassed:
        """Return the error of a request whose deadline passes."""
        return DeadlinePassed(f"no answer within {self._limit_s:g} s, the limit of a request")
