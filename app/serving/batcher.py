"""One forward for many requests: a bounded queue in front of the model thread.

Two kinds of threads meet here. The *hub* (gevent's thread) runs ``slot``, ``submit``, ``drain``; each
*model thread* runs ``run``, one for each lane of the engine. They share one queue, C's own
``SimpleQueue``: it blocks a real thread without the GIL, and gevent does not patch it.

Invariants:
    a request takes one of the ``max_queue`` slots before it costs anything;
    requests are answered in the order in which they were submitted;
    a waiter is answered exactly once, or it gave up and is skipped when the batch is cut;
    a disconnected client is noticed when the batch is cut, and costs no forward;
    an error of one forward reaches the waiters of that batch and no other, and the loop goes on.

A free engine takes the queued images and begins. It waits only for images that are being decoded at that
moment, and for those at most ``max_wait_s`` after the first of the batch came: a lone client never waits,
and under load the next batch fills while the engine is busy.

If the engine has lanes, each lane takes its share once there are as many requests as lanes. Fewer are
answered one batch at a time by the whole device.
"""

from __future__ import annotations

import logging
import time
from _queue import Empty, SimpleQueue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
from gevent.event import Event

from app.engines.engine import Forward
from app.errors import (
    ClientGone,
    DeviceLost,
    InternalError,
    NotReady,
    OutOfMemory,
    QueueFull,
    ServingError,
)
from app.quarantine import ActiveInputs
from app.serving.handoff import Handoff, native_lock
from app.serving.thread_pool import Task
from app.serving.ticket import UNANSWERED, Job, Row, Ticket, is_never_gone, run_forward

logger = logging.getLogger(__name__)


class Batcher:
    """Collects images into batches and runs them through a network."""

    def __init__(
        self,
        handoff: Handoff,
        *,
        max_wait_s: float,
        max_queue: int,
        active_inputs: ActiveInputs | None = None,
    ) -> None:
        """Create an empty batcher; on the hub.

        Args:
            handoff: wakes the waiting greenlets.
            max_wait_s: how long the first image of a batch waits for images that are being decoded.
            max_queue: the most requests in flight, from ``slot`` to the answer.
            active_inputs: records the inputs of running forwards, for the quarantine.
        """
        self._handoff = handoff
        self._active_inputs = active_inputs or ActiveInputs()
        self._max_wait_s = max_wait_s
        self._max_queue = max_queue
        self._queue: SimpleQueue[Ticket | None] = SimpleQueue()  # None: nothing comes after this
        self._in_flight = 0  # requests that hold a slot
        self._submitted = 0  # those of them that have queued their image
        self._without_forward = 0  # those of them that need no further forward
        self._batches: list[list[Ticket]] = []  # the current batch of each lane
        self._tasks: list[Task | None] = []  # the running forward of each lane
        self._cutting = native_lock()
        self._closing = False
        self._idle = Event()
        self._idle.set()

    # On the hub

    def check_capacity(self) -> None:
        """Raise the error that ``slot`` would raise now."""
        if self._closing:
            raise NotReady("the server is shutting down")
        if self._in_flight >= self._max_queue:
            raise QueueFull(
                f"{self._in_flight} requests are waiting; the limit is {self._max_queue}"
            )

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the ``max_queue`` slots while a request is decoded, queued and computed.

        Raises:
            QueueFull: all slots are taken.
            NotReady: the server is shutting down.
        """
        self.check_capacity()
        self._in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    @contextmanager
    def without_forward(self) -> Iterator[None]:
        """Keep the slot but stop counting the request as pending, so that no batch waits for it."""
        self._without_forward += 1
        try:
            yield
        finally:
            self._without_forward -= 1

    def submit(
        self,
        image: np.ndarray,
        is_gone: Callable[[], bool] = is_never_gone,
        with_features: bool = False,
        digest: bytes = b"",
    ) -> Row:
        """Queue an image and wait for its outputs; the caller's timeout bounds the wait.

        Args:
            image: (3, side, side) uint8.
            is_gone: returns whether the client has disconnected; safe on any thread.
            with_features: return the image's features too.
            digest: of the client's bytes, as ``Quarantine.digest`` makes it.

        Raises:
            InternalError: the forward failed.
            OutOfMemory: the device has no memory for this image alone.
            ClientGone: the client disconnected before its turn.
            NotReady: the model thread has ended.
        """
        return cast(Row, self._wait(Ticket(image, is_gone, with_features, digest)))

    def run_job(
        self, job: Job, is_gone: Callable[[], bool] = is_never_gone, digest: bytes = b""
    ) -> np.ndarray:
        """Run a function on the model thread, and return its result. Raises the errors of ``submit``."""
        return cast(np.ndarray, self._wait(Ticket(job, is_gone, digest=digest)))

    def _wait(self, ticket: Ticket) -> Row | np.ndarray:
        self._submitted += 1
        self._queue.put(ticket)
        try:
            ticket.answered.wait()
        finally:
            self._submitted -= 1
            ticket.abandoned = True
        if isinstance(ticket.outcome, ServingError):
            raise ticket.outcome
        return ticket.outcome

    def drain(self, timeout_s: float) -> bool:
        """Accept no more requests, wait for those in flight, end ``run``; return whether all were answered in time."""
        self._closing = True
        drained = self._idle.wait(timeout_s)
        self._queue.put(None)
        return drained

    # On the model thread

    def open_lanes(self, lanes: int) -> None:
        """Set the number of threads that will call ``run``, before the first call."""
        self._batches = [[] for _ in range(lanes)]
        self._tasks = [None] * lanes

    def tasks(self) -> list[Task]:
        """Return the running forwards and jobs; on any thread."""
        return [task for task in self._tasks if task is not None]

    def run(self, lane: int, forward: Forward, forward_in_lane: Forward, max_batch: int) -> None:
        """Answer batches until ``drain``; once every lane has ended, call ``reject_pending``.

        Args:
            lane: number of this thread's lane, from 0.
            forward: runs one batch with the whole device.
            forward_in_lane: runs one batch beside the other lanes.
            max_batch: the most images in one forward.

        Raises:
            DeviceLost: the device is unusable; the current batch is not answered yet.
        """
        lanes = len(self._batches)
        while self._cut_batch(lane, max_batch):
            batch = self._batches[lane]
            jobs = [[ticket] for ticket in batch if callable(ticket.work)]
            images = [ticket for ticket in batch if not callable(ticket.work)]
            for part in filter(None, [images, *jobs]):
                digests = tuple(ticket.digest for ticket in part)
                self._tasks[lane] = Task("the forward", time.monotonic(), digests)
                held = self._active_inputs.hold(digests)
                try:
                    self._answer(part, forward_in_lane if self._pending() >= lanes else forward)
                except DeviceLost:
                    self._active_inputs.keep_only(())  # the device is to blame, no image
                    raise
                # Not in a "finally": whatever else ends this thread ends the worker, and these are to blame.
                self._active_inputs.release(held)
                self._tasks[lane] = None

    def reject_pending(self) -> None:
        """Fail all pending tickets."""
        batches = (ticket for batch in self._batches for ticket in batch)
        left = [ticket for ticket in batches if ticket.outcome is UNANSWERED]
        while not self._queue.empty():
            ticket = self._queue.get()
            if ticket is not None:
                left.append(ticket)
        for ticket in left:
            ticket.outcome = NotReady("the model has stopped")
        self._handoff.deliver([ticket.answered for ticket in left])

    def _cut_batch(self, lane: int, max_batch: int) -> bool:
        """Wait for the lane's next batch, which may be empty, and store it; False ends the loop.

        One lane at a time: if another lane takes the image for which a ``SimpleQueue.get`` with a timeout has
        just been woken, and the time is up, CPython 3.11 waits forever.
        """
        with self._cutting:
            return self._fill(lane, max_batch)

    def _fill(self, lane: int, max_batch: int) -> bool:
        """Cut a batch; the caller holds the lock."""
        self._batches[lane] = batch = []
        ticket = self._queue.get()
        lanes = len(self._batches)
        per_lane = -(-self._pending() // lanes)  # rounded up
        share = max_batch if lanes == 1 else min(max_batch, per_lane)
        while ticket is not None:
            if self._is_wanted(ticket):
                batch.append(ticket)
            if len(batch) >= share:
                return True
            try:
                ticket = self._next_ticket(batch)
            except Empty:
                return True
        self._queue.put(None)  # for the other lanes, and for this one after its last batch
        return bool(batch)

    def _next_ticket(self, batch: list[Ticket]) -> Ticket | None:
        """Return the next ticket of the batch, at once or soon. Raises Empty if the batch should start."""
        try:
            return self._queue.get_nowait()
        except Empty:
            left_s = batch[0].submitted + self._max_wait_s - time.monotonic() if batch else 0
            being_decoded = self._pending() - self._submitted
            if left_s <= 0 or being_decoded <= 0:
                raise
        return self._queue.get(timeout=left_s)

    def _pending(self) -> int:
        """Return how many requests need a forward, now or soon.

        The counts belong to the hub. A stale value only makes a batch smaller or its wait longer, once.
        """
        return self._in_flight - self._without_forward

    def _is_wanted(self, ticket: Ticket) -> bool:
        """Return whether a client still waits for this ticket; answer those that have disconnected."""
        if ticket.abandoned:
            return False
        if not ticket.is_gone():
            return True
        ticket.outcome = ClientGone("the client has hung up")
        self._handoff.deliver([ticket.answered])
        return False

    def _answer(self, batch: list[Ticket], forward: Forward) -> None:
        """Run one forward, or one job, and give every waiter its row, or the error."""
        short: OutOfMemory | None = None
        try:
            if callable(job := batch[0].work):
                batch[0].outcome = job()
            else:
                run_forward(batch, forward)
        except OutOfMemory as error:
            logger.warning("%s", error.message, extra={"fields": {"batch": len(batch)}})
            # A new error, because the traceback holds what was allocated.
            short = OutOfMemory(error.message)
        except DeviceLost:
            raise
        except Exception:
            logger.exception("forward failed", extra={"fields": {"batch": len(batch)}})
            for ticket in batch:
                ticket.outcome = InternalError(
                    "the model failed on this batch; the log has the reason"
                )
        if short is not None:
            if len(batch) > 1:
                middle = len(batch) // 2
                self._answer(batch[:middle], forward)
                self._answer(batch[middle:], forward)
                return
            batch[0].outcome = short
        self._handoff.deliver([ticket.answered for ticket in batch])
