"""How workers end: the signal that ended each, which Gunicorn does not tell its hooks."""

from __future__ import annotations

import os
from typing import Any

_signals: dict[int, int] = {}  # by pid


def watch(arbiter: Any) -> None:
    """Have Gunicorn's master note how each of its workers has ended before it reaps it; once is enough."""
    if "reap_workers" in vars(arbiter):
        return
    reap = arbiter.reap_workers

    def look_and_reap() -> None:
        _signals.update({pid: ending_signal(pid) for pid in arbiter.WORKERS})
        reap()

    arbiter.reap_workers = look_and_reap


def take_signal(pid: int) -> int:
    """Return the signal that ended a worker, 0 for none, and forget it."""
    return _signals.pop(pid, 0)


def ending_signal(pid: int) -> int:
    """Return the signal that has ended a child that is still to be reaped; 0 for none."""
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return found.si_status if found and found.si_code != os.CLD_EXITED else 0
