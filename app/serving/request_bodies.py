"""Request bodies: the memory that a worker has for them, and the threads that parse large ones."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import gevent

from app.serving.byte_budget import ByteBudget
from app.serving.deadlines import Deadlines
from app.serving.thread_pool import NativePool, Task
from app.serving.trials import Trials
from app.settings import Settings

T = TypeVar("T")


class RequestBodies:
    """Bounds and processes the bodies of one worker's requests. Methods run on the hub."""

    def __init__(
        self, settings: Settings, pool: NativePool, trials: Trials, deadlines: Deadlines
    ) -> None:
        self._deadline_s = settings.deadline_s
        self._pool = pool
        self._trials = trials
        self._deadlines = deadlines
        self._budget = ByteBudget(settings.max_bodies_bytes, "request bodies")

    def hold(self, size: int) -> AbstractContextManager[None]:
        """Hold bytes of the budget; waits for at most half of a request's time.

        Raises:
            QueueFull: they did not become free in time.
        """
        return self._budget.hold(size, self._deadline_s / 2)

    def process(self, data: bytes, work: Callable[[], T]) -> T:
        """Run a function on a native thread while the hub goes on; return or raise its outcome.

        The function must not touch Flask's ``request`` or ``g``, gevent, or the metrics.

        Args:
            data: the client's bytes that it processes; they are quarantined if it crashes the process.
            work: the function; ends within the deadline of a request.

        Raises:
            DeadlinePassed: it did not.
            ServingError: the errors of ``NativePool.run``.
        """
        with gevent.Timeout(self._deadline_s, self._deadlines.error()):
            return self._trials.run(
                lambda on_trial: self._pool.run(lambda _: work(), data, on_trial=on_trial)
            )

    def tasks(self) -> list[Task]:
        """Return the running tasks of the threads."""
        return self._pool.tasks()

    def close(self) -> None:
        """End the threads, each after its current task; do not wait for them."""
        self._pool.close()
