"""How workers end: the signal that ended each, which Gunicorn does not tell its hooks."""

from __future__ import annotations

import os
from typing import Any

_signals: dict[int, int | None] = {}  # by pid


def watch(arbiter: Any) -> None:
    """Have Gunicorn's master note how each of its workers has ended before it reaps it; once is enough."""
    if "reap_workers" in vars(arbiter):
        return
    reap = arbiter.reap_workers

    def look_and_reap() -> None:
        _signals.update({pid: ending_signal(pid) for pid in arbiter.WORKERS})
        reap()

    arbiter.reap_workers = look_and_reap


def take_signal(pid: int) -> int | None:
    """Return the signal that ended a worker, 0 for none, and forget it; None where that was not seen."""
    return _signals.pop(pid, None)


def ending_signal(pid: int) -> int | None:
    """Return the signal that has ended a child, 0 for none; None where it lives or was reaped already."""
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if found is None:
        return None
    return 0 if found.si_code == os.CLD_EXITED else found.si_status
