"""The watchdog: ends a worker whose native thread does not come back.

A deadline frees the request that waits, not the thread that works for it, and no thread can be ended from
outside. A decoder in an endless loop, a forward on a GPU that hangs: each takes a thread away for good,
and a worker without threads is idle, so it would draw the requests of the others. Its process has to
end; Gunicorn replaces it, and nginx tries its requests with another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import gevent

from app.serving.thread_pool import Task

LOOKS = 8  # in the time that a task may take
MIN_LIMIT_S = 3.0  # an honest decode of 50 megapixels takes as long on a slow core


class Watchdog:
    """Looks at what native threads are doing, from the hub."""

    def __init__(
        self,
        limit_s: float,
        look: Callable[[], Iterable[Task]],
        on_stuck: Callable[[Task, float], None],
    ) -> None:
        """Prepare it; nothing is looked at before ``start``.

        Args:
            limit_s: how long a task may take.
            look: returns the tasks that are under way.
            on_stuck: called with the first that takes longer, and the limit.
        """
        self.limit_s = max(limit_s, MIN_LIMIT_S)
        self._look = look
        self._on_stuck = on_stuck
        self._greenlet = gevent.Greenlet()

    def start(self) -> None:
        """Start looking."""
        self._greenlet = gevent.spawn(self._watch)

    def stop(self) -> None:
        """Look no more."""
        self._greenlet.kill()

    def _watch(self) -> None:
        """Count in how many looks each task is seen: a pause of the whole container is one look, however long."""
        seen: dict[Task, int] = {}
        while True:
            gevent.sleep(self.limit_s / LOOKS)
            seen = {task: seen.get(task, 0) + 1 for task in self._look()}
            for task, looks in seen.items():
                if looks > LOOKS:
                    self._on_stuck(task, self.limit_s)
                    return
