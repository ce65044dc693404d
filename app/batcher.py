"""One forward for many requests: a bounded queue in front of the model thread.

Two threads meet here. The *hub* (gevent's thread) runs ``place``, ``submit``, ``stop``; the *model
thread* runs ``run``. They share one queue, C's own ``SimpleQueue``: it blocks a real thread without
the GIL, and gevent does not patch it.

What holds at all times:
    a request takes a place before it costs anything, and there are ``max_queue`` of them;
    requests are answered in the order in which they were submitted;
    a waiter is answered exactly once, or gave up by itself and is skipped when the batch is cut;
    an error of one forward reaches the waiters of that batch and no other, and the loop goes on.
"""

from __future__ import annotations

import logging
import time
from _queue import Empty, SimpleQueue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from gevent.event import Event

from app.errors import InternalError, NotReady, QueueFull, ServingError
from app.handoff import Handoff

Forward = Callable[[np.ndarray], np.ndarray]  # (n, 3, 224, 224) uint8 → (n, classes) float32

UNANSWERED = InternalError("the model gave no answer")

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Ticket:
    """One picture on its way through the model thread.

    Attributes:
        image: (3, 224, 224) uint8.
        submitted: when it was queued, monotonic seconds.
        answered: set, on the hub, once ``outcome`` is there.
        abandoned: the waiter has left (deadline or hang-up); nobody wants the answer.
        outcome: (classes,) float32 logits, or the error to raise.
    """

    image: np.ndarray
    submitted: float = field(default_factory=time.monotonic)
    answered: Event = field(default_factory=Event)
    abandoned: bool = False
    outcome: np.ndarray | ServingError = UNANSWERED


class Batcher:
    """Collects pictures into batches and runs them through a network, one batch at a time."""

    def __init__(
        self, handoff: Handoff, *, max_batch: int, max_wait_s: float, max_queue: int
    ) -> None:
        """Make an empty batcher (on the hub).

        Args:
            handoff: brings the answers back.
            max_batch: the most pictures in one forward.
            max_wait_s: how long the first picture of a batch waits for others to join.
            max_queue: the most requests inside, from ``place`` to the answer.
        """
        self._handoff = handoff
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._max_queue = max_queue
        self._queue: SimpleQueue[Ticket | None] = SimpleQueue()  # None: nothing comes after this
        self._inside = 0
        self._closing = False
        self._idle = Event()
        self._idle.set()

    # On the hub

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the ``max_queue`` places while a request is decoded, queued and computed.

        Raises:
            QueueFull: all places are taken.
            NotReady: the server is shutting down.
        """
        if self._closing:
            raise NotReady("the server is shutting down")
        if self._inside >= self._max_queue:
            raise QueueFull(f"{self._inside} requests are waiting; the limit is {self._max_queue}")
        self._inside += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._idle.set()

    def submit(self, image: np.ndarray) -> np.ndarray:
        """Queue a picture and wait for its answer; the caller's timeout bounds the wait.

        Args:
            image: (3, 224, 224) uint8.

        Returns:
            (classes,) float32 logits.

        Raises:
            InternalError: the forward failed.
            NotReady: the model thread has ended.
        """
        ticket = Ticket(image)
        self._queue.put(ticket)
        try:
            ticket.answered.wait()
        finally:
            ticket.abandoned = True
        if isinstance(ticket.outcome, ServingError):
            raise ticket.outcome
        return ticket.outcome

    def drain(self, timeout_s: float) -> bool:
        """Take no more requests, wait for those inside, then end ``run``; tell whether all were answered in time."""
        self._closing = True
        drained = self._idle.wait(timeout_s)
        self._queue.put(None)
        return drained

    # On the model thread

    def run(self, forward: Forward) -> None:
        """Answer batches until ``drain``; whatever ends it, no waiter is left behind."""
        try:
            while (batch := self._cut_batch()) is not None:
                if batch:
                    self._answer(batch, forward)
        finally:
            self._turn_away()

    def _cut_batch(self) -> list[Ticket] | None:
        """Wait for the next batch; None ends the loop, an empty list means that every waiter had left."""
        first = self._queue.get()
        if first is None:
            return None
        batch = [first]
        cut_at = first.submitted + self._max_wait_s
        while len(batch) < self._max_batch:
            try:
                ticket = self._queue.get(timeout=max(0.0, cut_at - time.monotonic()))
            except Empty:
                break
            if ticket is None:
                self._queue.put(None)  # this batch first, the end after it
                break
            batch.append(ticket)
        return [ticket for ticket in batch if not ticket.abandoned]

    def _answer(self, batch: list[Ticket], forward: Forward) -> None:
        """Run one forward and hand every waiter its row, or the error."""
        try:
            logits = forward(np.stack([ticket.image for ticket in batch]))
            for ticket, row in zip(batch, logits, strict=True):
                ticket.outcome = row
        except Exception:
            logger.exception("forward failed", extra={"fields": {"batch": len(batch)}})
            for ticket in batch:
                ticket.outcome = InternalError(
                    "the model failed on this batch; the log has the reason"
                )
        finally:
            self._handoff.deliver(ticket.answered for ticket in batch)

    def _turn_away(self) -> None:
        """Answer whoever is still queued: nobody will compute it."""
        left = []
        while not self._queue.empty():
            ticket = self._queue.get()
            if ticket is not None:
                ticket.outcome = NotReady("the model has stopped")
                left.append(ticket.answered)
        self._handoff.deliver(left)
