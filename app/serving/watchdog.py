"""The watchdog: ends a worker whose native thread does not come back.

A deadline frees the waiting request, not the thread that works for it, and no thread can be ended from
outside. A decoder in an endless loop or a hanging GPU takes a thread away for good. A worker without
threads looks idle and attracts the requests of the others, so its process has to end; Gunicorn replaces it,
and nginx retries its requests on another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import gevent

from app.serving.thread_pool import Task

CHECKS = 8  # checks in the time that a task may take
MIN_LIMIT_S = 3.0  # an honest decode of 50 megapixels takes as long on a slow core


class Watchdog:
    """Checks the tasks of native threads, from the hub."""

    def __init__(
        self,
        limit_s: float,
        list_tasks: Callable[[], Iterable[Task]],
        on_stuck: Callable[[Task, float], None],
    ) -> None:
        """Prepare it; nothing is checked before ``start``.

        Args:
            limit_s: the longest time that a task may take.
            list_tasks: returns the running tasks.
            on_stuck: called with the first task that takes longer, and the limit.
        """
        self.limit_s = max(limit_s, MIN_LIMIT_S)
        self._list_tasks = list_tasks
        self._on_stuck = on_stuck
        self._greenlet = gevent.Greenlet()

    def start(self) -> None:
        """Start checking."""
        self._greenlet = gevent.spawn(self._watch)

    def stop(self) -> None:
        """Stop checking."""
        self._greenlet.kill()

    def _watch(self) -> None:
        """Report the first task that too many checks have seen.

        Checks are counted, not seconds: a pause of the whole container is one check, however long.
        """
        seen: dict[Task, int] = {}
        while True:
            gevent.sleep(self.limit_s / CHECKS)
            seen = {task: seen.get(task, 0) + 1 for task in self._list_tasks()}
            for task, checks in seen.items():
                if checks > CHECKS:
                    self._on_stuck(task, self.limit_s)
                    return
