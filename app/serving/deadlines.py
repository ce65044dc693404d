"""Deadlines: each request has one, which includes its wait for a worker."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar

import gevent

from app.errors import DeadlinePassed

MARGIN_S = 0.25  # from the deadline of the images to that of their request
# For a request that has already waited longer than its deadline: its error has to be written.
MIN_LEFT_S = 0.1

# The deadline of the request that the current greenlet answers, monotonic seconds.
_until: ContextVar[float] = ContextVar("until", default=math.inf)


class Deadlines:
    """Bounds the time of requests. Methods run on the hub, in the greenlet of a request."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s

    def start(self, waited_s: float = 0.0) -> gevent.Timeout:
        """Start the deadline of the current greenlet's request, until ``end``.

        When it passes, DeadlinePassed is raised at the point at which the greenlet waits.

        Args:
            waited_s: the time that the request has already waited.
        """
        left_s = max(MIN_LEFT_S, self._limit_s - waited_s)
        _until.set(time.monotonic() + left_s)
        return gevent.Timeout.start_new(left_s, self.error())

    @staticmethod
    def end(deadline: gevent.Timeout) -> None:
        """Cancel the deadline of an answered request."""
        deadline.close()
        _until.set(math.inf)

    def left_s(self) -> float:
        """Return the time left for the images of the current request; the rest is for the response."""
        left_s = _until.get() - time.monotonic() - min(MARGIN_S, self._limit_s / 10)
        return max(MIN_LEFT_S / 2, min(self._limit_s, left_s))

    def error(self) -> DeadlinePassed:
        """Return the error of a request whose deadline passes."""
        return DeadlinePassed(f"no answer within {self._limit_s:g} s, the limit of a request")
