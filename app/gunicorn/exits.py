"""The signals that ended workers, which Gunicorn does not pass to its hooks."""

from __future__ import annotations

import os
from typing import Any

_signals: dict[int, int | None] = {}  # by pid


def watch(arbiter: Any) -> None:
    """Make Gunicorn's master record how each worker has ended before it reaps it; idempotent."""
    if "reap_workers" in vars(arbiter):
        return
    reap = arbiter.reap_workers

    def record_and_reap() -> None:
        _signals.update({pid: ending_signal(pid) for pid in arbiter.WORKERS})
        reap()

    arbiter.reap_workers = record_and_reap


def take_signal(pid: int) -> int | None:
    """Return and forget the signal that ended a worker: 0 for none, None if unknown."""
    return _signals.pop(pid, None)


def ending_signal(pid: int) -> int | None:
    """Return the signal that ended a child: 0 for none, None if it lives or is already reaped."""
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if found is None:
        return None
    return 0 if found.si_code == os.CLD_EXITED else found.si_status
