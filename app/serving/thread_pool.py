"""A pool of native threads for greenlets, which wait while the hub goes on.

Unlike gevent's ``ThreadPool`` it records the task of each thread: its start, its input, and whether a greenlet
still waits for it. So a thread that never returns can be noticed and named.
"""

from __future__ import annotations

import logging
import time
from _queue import SimpleQueue
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar, cast

from gevent.event import Event

from app.errors import InternalError, OutOfMemory, Quarantined, ServingError
from app.quarantine import ActiveInputs, Quarantine, Verdict
from app.serving.handoff import Handoff, start_native_thread

T = TypeVar("T")
Bytes = bytes | memoryview

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """The current work of a native thread.

    Attributes:
        name: for the log.
        started: monotonic seconds.
        digests: the inputs that it processes.
    """

    name: str
    started: float
    digests: tuple[bytes, ...] = ()


class NeedsTrial(Exception):
    """The input is a suspect (see ``app/quarantine.py``): process it while no other suspect is processed."""

    def __init__(self, digest: bytes) -> None:
        super().__init__()
        self.digest = digest


@dataclass(eq=False)
class Job(Generic[T]):
    """A function that waits for a thread of the pool.

    Attributes:
        work: the function; called with the digest of the data.
        data: the client's bytes that it processes.
        on_trial: the data may be a suspect.
        digest: of the data, if it is known.
        done: set on the hub once ``value`` or ``error`` is there.
        abandoned: no greenlet waits for it; it is not started any more.
    """

    work: Callable[[bytes], T]
    data: Bytes
    on_trial: bool
    digest: bytes = b""
    done: Event = field(default_factory=Event)
    abandoned: bool = False
    value: T | None = None
    error: Exception | None = None


class NativePool:
    """A bounded number of native threads that take jobs in the order in which they came.

    ``run`` and ``close`` belong to the hub's thread.
    """

    def __init__(
        self,
        name: str,
        threads: int,
        handoff: Handoff,
        quarantine: Quarantine,
        active_inputs: ActiveInputs,
    ) -> None:
        """Create a pool; threads start as they are needed.

        Args:
            name: of the tasks, for the log.
            threads: the most threads.
            handoff: wakes the waiting greenlets.
            quarantine: the inputs that have crashed workers.
            active_inputs: records the inputs of the running tasks.
        """
        self._name = name
        self._handoff = handoff
        self._quarantine = quarantine
        self._active_inputs = active_inputs
        self._jobs: SimpleQueue[Job[Any] | None] = SimpleQueue()  # None ends a thread
        self._waiting = 0  # jobs that a greenlet waits for
        self._started = 0  # threads
        self._tasks: list[Task | None] = [None] * threads  # each thread writes its own element

    def run(
        self,
        work: Callable[[bytes], T],
        data: Bytes,
        *,
        on_trial: bool = False,
        digest: bytes = b"",
    ) -> T:
        """Run a function on a thread of the pool; return or raise its outcome.

        If the caller gives up waiting (a timeout, a killed greenlet), the function is not started any
        more, or its result is dropped.

        Args:
            work: the function, called with the digest of the data; must not touch gevent.
            data: the client's bytes that it processes; they are quarantined if it crashes the process.
            on_trial: no other suspect is being processed.
            digest: of the data, if the caller has computed it.

        Raises:
            NeedsTrial: the data are a suspect and this is no trial; the function was not called.
            Quarantined: the data have crashed two workers.
            OutOfMemory: host memory ran out.
            InternalError: the function ended its thread.
        """
        job = Job(work, data, on_trial, digest)
        self._waiting += 1
        if self._started < min(self._waiting, len(self._tasks)):
            start_native_thread(partial(self._serve, self._started))
            self._started += 1
        self._jobs.put(job)
        try:
            job.done.wait()
        finally:
            job.abandoned = True
            self._waiting -= 1
        error, job.error = job.error, None
        try:
            if error is not None:
                raise error
            return cast(T, job.value)
        finally:
            del error  # its traceback holds this frame

    def tasks(self) -> list[Task]:
        """Return the running tasks; on any thread."""
        return [task for task in self._tasks if task is not None]

    def close(self) -> None:
        """End the threads, each after its current job; do not wait for them."""
        for _ in range(self._started):
            self._jobs.put(None)

    def _serve(self, thread: int) -> None:
        """Run jobs until ``close``, on a thread of the pool."""
        while (job := self._jobs.get()) is not None:
            if not job.abandoned:
                self._do(thread, job)
            del job  # its result may be large

    def _do(self, thread: int, job: Job[Any]) -> None:
        """Run one job and wake its waiter, on a thread of the pool."""
        started = time.monotonic()
        held: Sequence[int] = ()
        try:
            digest = job.digest or self._quarantine.digest(job.data)
            held = self._active_inputs.hold([digest])
            self._tasks[thread] = Task(self._name, started, (digest,))
            self._check(digest, job.on_trial)
            job.value = job.work(digest)
        except BaseException as error:  # noqa: BLE001  (raised again in the waiting greenlet)
            job.error = self._translate(error)
        self._tasks[thread] = None
        self._active_inputs.release(held)
        self._handoff.deliver([job.done])

    def _translate(self, error: BaseException) -> Exception:
        """Return the error to raise in the waiting greenlet."""
        if isinstance(error, ServingError):
            # Its traceback and its causes hold the frames of the decoder, and so a whole image.
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)
        if isinstance(error, MemoryError):
            return OutOfMemory("there is not enough memory for this request now")
        if isinstance(error, Exception):
            return error
        logger.error("%s ended with %r", self._name, error)
        return InternalError("the work on this request failed; the log has the reason")

    def _check(self, digest: bytes, on_trial: bool) -> None:
        """Raise NeedsTrial or Quarantined if an input must not be processed now."""
        verdict = self._quarantine.verdict(digest)
        if verdict is Verdict.BLOCKED:
            raise Quarantined(
                "this input ended two workers; it is refused until the server is started again"
            )
        if verdict is Verdict.SUSPECT and not on_trial:
            raise NeedsTrial(digest)
