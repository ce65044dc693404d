"""One forward for many requests: a bounded queue in front of the model thread.

Two kinds of threads meet here. The *hub* (gevent's thread) runs ``slot``, ``submit``, ``drain``; each
*model thread* runs ``run``, one for each lane of the engine. They share one queue, C's own
``SimpleQueue``: it blocks a real thread without the GIL, and gevent does not patch it.

What holds at all times:
    a request takes a place before it costs anything, and there are ``max_queue`` of them;
    requests are answered in the order in which they were submitted;
    a waiter is answered exactly once, or gave up by itself and is skipped when the batch is cut;
    a client that has hung up is noticed when the batch is cut, and costs no forward;
    an error of one forward reaches the waiters of that batch and no other, and the loop goes on.

A free engine takes what is queued and begins. It waits for nothing but pictures that are being
decoded at that moment, and for those at most ``max_wait_s`` after the first of the batch came: a lone
client never waits, a crowd fills the batches while the engine is busy with the one before.

Where the engine has lanes, as many requests as lanes make a crowd: each lane then takes its share.
Fewer are answered one batch at a time by the whole device.
"""

from __future__ import annotations

import logging
import time
from _queue import Empty, SimpleQueue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, cast

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

UNANSWERED = InternalError("the model gave no answer")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """Where a picture's time went, once it was decoded.

    Attributes:
        queue_s: how long it waited for the forward to begin.
        forward_s: how long the forward took, for the whole batch.
        batch: pictures in the forward.
        leads: it was the first of them; who counts batches counts it alone.
    """

    queue_s: float
    forward_s: float
    batch: int
    leads: bool


class Row(NamedTuple):
    """What a forward gave one picture.

    Attributes:
        logits: (classes,) float32.
        timing: how that went.
        features: (channels, height, width) float32, where they were wanted and the network has them.
    """

    logits: np.ndarray
    timing: Timing
    features: np.ndarray | None = None


Job = Callable[[], np.ndarray]


@dataclass(eq=False)
class Ticket:
    """One picture, or a job, on its way through the model thread.

    Attributes:
        work: the picture, (3, side, side) uint8; or the job.
        is_gone: tells whether the client has hung up; asked on the model thread.
        with_features: the picture's features are wanted too.
        digest: of the client's bytes; should the forward end the process, they are to blame.
        submitted: when it was queued, monotonic seconds.
        answered: set, on the hub, once ``outcome`` is there.
        abandoned: the waiter has left (deadline or hang-up); nobody wants the answer.
        outcome: what the forward gave it, or the job; or the error to raise.
    """

    work: np.ndarray | Job
    is_gone: Callable[[], bool]
    with_features: bool = False
    digest: bytes = b""
    submitted: float = field(default_factory=time.monotonic)
    answered: Event = field(default_factory=Event)
    abandoned: bool = False
    outcome: Row | np.ndarray | ServingError = UNANSWERED


def is_never_gone() -> bool:
    """Stand for a client that cannot hang up."""
    return False


class Batcher:
    """Collects pictures into batches and runs them through a network, one batch at a time."""

    def __init__(
        self,
        handoff: Handoff,
        *,
        max_wait_s: float,
        max_queue: int,
        records: ActiveInputs | None = None,
    ) -> None:
        """Make an empty batcher (on the hub).

        Args:
            handoff: brings the answers back.
            max_wait_s: how long the first picture of a batch waits for those that are being decoded.
            max_queue: the most requests inside, from ``slot`` to the answer.
            records: records what the forwards have in hand; by default nobody else reads it.
        """
        self._handoff = handoff
        self._records = records or ActiveInputs()
        self._max_wait_s = max_wait_s
        self._max_queue = max_queue
        self._queue: SimpleQueue[Ticket | None] = SimpleQueue()  # None: nothing comes after this
        self._in_flight = 0  # requests that hold a place
        self._submitted = 0  # those of them that have queued their picture
        self._without_forward = 0  # those of them that need no forward any more
        self._in_hand: list[list[Ticket]] = []  # the batch that each lane works on
        self._tasks: list[Task | None] = []  # the forward that each lane is in
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
        """Hold one of the ``max_queue`` places while a request is decoded, queued and computed.

        Raises:
            QueueFull: all places are taken.
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
        """Queue a picture and wait for its answer; the caller's timeout bounds the wait.

        Args:
            image: (3, side, side) uint8.
            is_gone: tells whether the client has hung up; safe on any thread.
            with_features: give the picture's features too.
            digest: of the client's bytes, as ``Quarantine.digest`` makes it.

        Raises:
            InternalError: the forward failed.
            OutOfMemory: the device has no room for this picture alone.
            ClientGone: the client had hung up before its turn came.
            NotReady: the model thread has ended.
        """
        return cast(Row, self._wait(Ticket(image, is_gone, with_features, digest)))

    def run_job(
        self, job: Job, is_gone: Callable[[], bool] = is_never_gone, digest: bytes = b""
    ) -> np.ndarray:
        """Queue a job that needs the model thread, and wait for what it returns; else as ``submit``."""
        return cast(np.ndarray, self._wait(Ticket(job, is_gone, digest=digest)))

    def _wait(self, ticket: Ticket) -> Row | np.ndarray:
        """Queue a ticket and wait until it is answered; raise its error."""
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
        """Take no more requests, wait for those inside, then end ``run``; tell whether all were answered in time."""
        self._closing = True
        drained = self._idle.wait(timeout_s)
        self._queue.put(None)
        return drained

    # On the model thread

    def open_lanes(self, lanes: int) -> None:
        """Say how many threads will call ``run``, before the first does."""
        self._in_hand = [[] for _ in range(lanes)]
        self._tasks = [None] * lanes

    def tasks(self) -> list[Task]:
        """Return the forwards and jobs that are running now; on any thread."""
        return [task for task in self._tasks if task is not None]

    def run(self, lane: int, forward: Forward, forward_in_lane: Forward, max_batch: int) -> None:
        """Answer batches until ``drain``; once every lane has ended, call ``turn_away``.

        Args:
            lane: which of the lanes this thread is, from 0.
            forward: runs one batch with the whole device.
            forward_in_lane: runs one beside the other lanes.
            max_batch: the most pictures in one forward.

        Raises:
            DeviceLost: the forward cannot be used any more; the batch in hand is not answered yet.
        """
        lanes = len(self._in_hand)
        while self._cut_batch(lane, max_batch):
            batch = self._in_hand[lane]
            jobs = [[ticket] for ticket in batch if callable(ticket.work)]
            pictures = [ticket for ticket in batch if not callable(ticket.work)]
            for part in filter(None, [pictures, *jobs]):
                digests = tuple(ticket.digest for ticket in part)
                self._tasks[lane] = Task("the forward", time.monotonic(), digests)
                held = self._records.hold(digests)
                try:
                    self._answer(part, forward_in_lane if self._pending() >= lanes else forward)
                except DeviceLost:
                    self._records.keep_only(())  # the device is to blame, no image
                    raise
                # Not in a "finally": whatever else ends this thread ends the worker, and these are to blame.
                self._records.release(held)
                self._tasks[lane] = None

    def reject_pending(self) -> None:
        """Answer whoever is left: nobody will compute it."""
        batches = (ticket for batch in self._in_hand for ticket in batch)
        left = [ticket for ticket in batches if ticket.outcome is UNANSWERED]
        while not self._queue.empty():
            ticket = self._queue.get()
            if ticket is not None:
                left.append(ticket)
        for ticket in left:
            ticket.outcome = NotReady("the model has stopped")
        self._handoff.deliver([ticket.answered for ticket in left])

    def _cut_batch(self, lane: int, max_batch: int) -> bool:
        """Wait for the lane's next batch and take it in hand; False ends the loop. It may come out empty.

        One lane at a time. Where another takes the picture for which a ``SimpleQueue.get`` with a timeout
        has just been woken, and the time is up, CPython 3.11 waits on for ever.
        """
        with self._cutting:
            return self._fill(lane, max_batch)

    def _fill(self, lane: int, max_batch: int) -> bool:
        """Do so (while nobody else does)."""
        self._in_hand[lane] = batch = []
        ticket = self._queue.get()
        lanes = len(self._in_hand)
        share = (
            max_batch if lanes == 1 else min(max_batch, -(-self._pending() // lanes))
        )  # rounded up
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
        """Return what joins the batch, at once or soon. Raises Empty where the batch should go."""
        try:
            return self._queue.get_nowait()
        except Empty:
            left_s = batch[0].submitted + self._max_wait_s - time.monotonic() if batch else 0
            being_decoded = self._pending() - self._submitted
            if left_s <= 0 or being_decoded <= 0:
                raise
        return self._queue.get(timeout=left_s)

    def _pending(self) -> int:
        """Return how many requests need a forward, now or soon."""
        return self._in_flight - self._without_forward

    def _is_wanted(self, ticket: Ticket) -> bool:
        """Tell whether anybody waits for this answer; let go of a client that has hung up."""
        if ticket.abandoned:
            return False
        if not ticket.is_gone():
            return True
        ticket.outcome = ClientGone("the client has hung up")
        self._handoff.deliver([ticket.answered])
        return False

    def _answer(self, batch: list[Ticket], forward: Forward) -> None:
        """Run one forward, or one job, and hand every waiter its row, or the error."""
        short: OutOfMemory | None = None
        try:
            if callable(job := batch[0].work):
                batch[0].outcome = job()
            else:
                run_forward(batch, forward)
        except OutOfMemory as error:
            logger.warning("%s", error.message, extra={"fields": {"batch": len(batch)}})
            short = OutOfMemory(
                error.message
            )  # without the traceback, which holds what was allocated
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


def run_forward(batch: list[Ticket], forward: Forward) -> None:
    """Run one forward and hand every picture its row; nobody has one where it fails."""
    began = time.monotonic()
    wanted = any(ticket.with_features for ticket in batch)
    logits, features = forward([cast(np.ndarray, ticket.work) for ticket in batch], wanted)
    took_s = time.monotonic() - began
    for place, (ticket, own) in enumerate(zip(batch, logits, strict=True)):
        timing = Timing(began - ticket.submitted, took_s, len(batch), leads=place == 0)
        seen = features[place] if features is not None and ticket.with_features else None
        ticket.outcome = Row(own, timing, seen)
