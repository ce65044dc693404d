"""The way between the model thread and the greenlets.

Under gevent's monkey-patching a ``threading.Thread`` is a greenlet, and gevent's events may only be
set on the hub's own thread. So the model runs in a thread of the operating system, and what it has
finished is brought to the waiting greenlets by the hub: one wake-up for a whole batch, however many
wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from gevent.event import Event
from gevent.hub import Hub, get_hub
from gevent.monkey import get_original

from app.errors import ServingError

T = TypeVar("T")

# gevent prints the traceback of whatever a greenlet or a pool raises, but for these: a client's fault is
# raised on another thread like anywhere else, and no surprise.
Hub.NOT_ERROR += (ServingError,)

_start_native_thread = get_original("_thread", "start_new_thread")
native_lock = get_original("_thread", "allocate_lock")  # makes one that gevent does not patch


class Handoff:
    """Wakes greenlets, and calls functions on the hub, from another thread.

    Made on the hub's thread; every greenlet that waits must live on that thread. ``deliver`` and
    ``call`` are safe on any thread.
    """

    def __init__(self) -> None:
        """Start watching on the current thread's hub."""
        self._calls: deque[Callable[[], Any]] = deque()  # append and popleft are atomic
        self._wakeup = get_hub().loop.async_()
        self._wakeup.start(self._run_calls)

    def deliver(self, events: Iterable[Event]) -> None:
        """Set the events, from any thread."""
        self._calls.extend(event.set for event in events)
        self._wakeup.send()

    def call(self, function: Callable[[], Any]) -> None:
        """Have a function called on the hub, soon; it must not wait. From any thread."""
        self._calls.append(function)
        self._wakeup.send()

    def _run_calls(self) -> None:
        """Call what was handed over (on the hub); one that raises does not hold up those behind it."""
        try:
            while self._calls:
                self._calls.popleft()()
        finally:
            if self._calls:
                self._wakeup.send()

    def close(self) -> None:
        """Stop watching (on the hub's thread); nothing may be delivered afterwards."""
        self._wakeup.close()


def call_aside(function: Callable[[], T]) -> T:
    """Return what a function returns, called in another thread while the hub goes on; from a greenlet."""
    result: T = get_hub().threadpool.apply(function)
    return result


def start_native_thread(target: Callable[[], None]) -> None:
    """Run ``target`` in a thread of the operating system, patched or not; it ends with the process at the latest."""
    _start_native_thread(target, ())
