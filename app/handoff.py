"""The way between the model thread and the greenlets.

Under gevent's monkey-patching a ``threading.Thread`` is a greenlet, and gevent's events may only be
set on the hub's own thread. So the model runs in a thread of the operating system, and what it has
finished is brought to the waiting greenlets by the hub: one wake-up for a whole batch, however many
wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from gevent.event import Event
from gevent.hub import get_hub
from gevent.monkey import get_original

_start_native_thread = get_original("_thread", "start_new_thread")


class Handoff:
    """Wakes greenlets from another thread.

    Made on the hub's thread; every greenlet that waits must live on that thread. ``deliver`` is
    safe on any thread.
    """

    def __init__(self) -> None:
        """Start watching on the current thread's hub."""
        self._done: deque[Event] = deque()  # append and popleft are atomic
        self._wakeup = get_hub().loop.async_()
        self._wakeup.start(self._wake_waiters)

    def deliver(self, events: Iterable[Event]) -> None:
        """Set the events, from any thread."""
        self._done.extend(events)
        self._wakeup.send()

    def _wake_waiters(self) -> None:
        """Set what was delivered (on the hub)."""
        while self._done:
            self._done.popleft().set()

    def close(self) -> None:
        """Stop watching (on the hub's thread); nothing may be delivered afterwards."""
        self._wakeup.close()


def start_native_thread(target: Callable[[], None]) -> None:
    """Run ``target`` in a thread of the operating system, patched or not; it ends with the process at the latest."""
    _start_native_thread(target, ())
