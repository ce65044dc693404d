"""The handoff from native threads to greenlets.

Under gevent's monkey-patching a ``threading.Thread`` is a greenlet, and gevent's events may only be
set on the hub's own thread. So the model runs in a native thread, and the hub sets the events of
the waiting greenlets: one wake-up for a whole batch.
"""

from __future__ import annotations

from _queue import SimpleQueue
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NoReturn, TypeVar

from gevent.event import Event
from gevent.hub import Hub, get_hub
from gevent.monkey import get_original

from app.errors import ServingError

T = TypeVar("T")

# The hub prints the traceback of every error that ends a greenlet or a pool's task, except for these: they are
# answered by the request that waits for the greenlet.
Hub.NOT_ERROR += (ServingError,)

_start_native_thread = get_original("_thread", "start_new_thread")
native_lock = get_original("_thread", "allocate_lock")  # not patched by gevent


class Handoff:
    """Wakes greenlets, and calls functions on the hub, from another thread.

    Created on the hub's thread; every waiting greenlet must live on that thread. ``deliver`` and
    ``call`` are safe on any thread.
    """

    def __init__(self) -> None:
        self._calls: deque[Callable[[], Any]] = deque()  # append and popleft are atomic
        self._wakeup = get_hub().loop.async_()
        self._wakeup.start(self._run_calls)

    def deliver(self, events: Iterable[Event]) -> None:
        """Set the events, from any thread."""
        self._calls.extend(event.set for event in events)
        self._wakeup.send()

    def call(self, function: Callable[[], Any]) -> None:
        """Call a function on the hub, soon; it must not wait. From any thread."""
        self._calls.append(function)
        self._wakeup.send()

    def call_and_wait(self, function: Callable[[], T]) -> T:
        """Call a function on the hub; return or raise its outcome. From a native thread."""
        outcome: SimpleQueue[Callable[[], T]] = SimpleQueue()

        def call() -> None:
            try:
                result = function()
            except Exception as error:  # noqa: BLE001  (raised in the waiting thread)
                outcome.put(partial(raise_error, error))
            else:
                outcome.put(lambda: result)

        self.call(call)
        return outcome.get()()

    def _run_calls(self) -> None:
        """Call the queued functions, on the hub; one that raises does not delay those behind it."""
        try:
            while self._calls:
                self._calls.popleft()()
        finally:
            if self._calls:
                self._wakeup.send()

    def close(self) -> None:
        """Stop, on the hub's thread; nothing may be delivered afterwards."""
        self._wakeup.close()


def raise_error(error: Exception) -> NoReturn:
    """Raise an error of another thread."""
    raise error


def call_in_thread(function: Callable[[], T]) -> T:
    """Call a function on a thread of gevent's pool while the hub goes on; return or raise its outcome."""
    result: T = get_hub().threadpool.apply(function)
    return result


def start_native_thread(target: Callable[[], None]) -> None:
    """Run ``target`` in a native thread, under monkey-patching too; it does not keep the process alive."""
    _start_native_thread(target, ())
