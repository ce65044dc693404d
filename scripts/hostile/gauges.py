"""Resources of the server's processes, read from /proc: memory, descriptors, threads, temporary files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

from scripts.hostile.trial import Row

MIB = 1 << 20
EVERY_S = 0.25
GONE = (psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError, ProcessLookupError)


@dataclass
class Gauges:
    """Sum of the resources of all processes of a server, by kind.

    Attributes:
        workers: Gunicorn workers.
        worker_mib: their memory, shared pages counted once (PSS).
        nginx_mib: the same of nginx.
        descriptors: open in all of them.
        threads: native ones, of all of them.
        temporary_mib: files that nginx and the workers hold for a while, deleted ones too.
    """

    workers: int = 0
    worker_mib: float = 0.0
    nginx_mib: float = 0.0
    descriptors: int = 0
    threads: int = 0
    temporary_mib: float = 0.0


# How far above the start a gauge may be at the end: (for each worker, for the server).
MAY_RISE = {
    "workers": (0, 0),
    "worker_mib": (100, 50),
    "nginx_mib": (0, 40),
    "descriptors": (8, 24),
    "threads": (4, 4),
    "temporary_mib": (0, 1),
}


def worker_processes(supervisord: int) -> list[psutil.Process]:
    """Return Gunicorn's workers: children of its master with the master's own command."""
    found = []
    for program in psutil.Process(supervisord).children():
        with suppress(*GONE):
            command = program.cmdline()
            if any("gunicorn" in word for word in command):
                found += [each for each in program.children() if each.cmdline() == command]
    return found


def read_gauges(supervisord: int, run: Path) -> Gauges:
    """Read everything once."""
    gauges = Gauges()
    workers = {each.pid for each in worker_processes(supervisord)}
    gauges.workers = len(workers)
    for process in psutil.Process(supervisord).children(recursive=True):
        with suppress(*GONE):
            held_mib = process.memory_full_info().pss / MIB
            gauges.descriptors += process.num_fds()
            gauges.threads += process.num_threads()
            if process.pid in workers:
                gauges.worker_mib += held_mib
            elif "nginx" in process.name():
                gauges.nginx_mib += held_mib
            gauges.temporary_mib += deleted_bytes(process.pid) / MIB
    stored = (path for path in (run / "nginx").rglob("*") if path.is_file())
    gauges.temporary_mib += sum(path.stat().st_size for path in stored) / MIB
    return gauges


def deleted_bytes(pid: int) -> int:
    """Return the size of the files that a process holds open though they have no name any more."""
    total = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if os.readlink(link).endswith("(deleted)"):
                total += link.stat().st_size
    return total


def risen(before: Gauges, after: Gauges) -> list[str]:
    """Return which gauges are too far above an earlier reading, in words; too few workers are named too."""
    faults = []
    for name in (each.name for each in fields(Gauges)):
        each, server = MAY_RISE[name]
        old, new = getattr(before, name), getattr(after, name)
        if new > old + each * before.workers + server:
            faults.append(f"{name} rose from {old:,.0f} to {new:,.0f}")
    if after.workers < before.workers:
        faults.append(f"workers fell from {before.workers} to {after.workers}")
    return faults


class Watch:
    """Watches the workers on a thread: their peak memory, and their process ids.

    Attributes:
        peak_mib: the most that one worker held since this was last set to 0.
        seen: process ids of all workers that ever were.
    """

    def __init__(self, supervisord: int) -> None:
        """Look at the workers below that process."""
        self.peak_mib = 0.0
        self.seen: set[int] = set()
        self._supervisord = supervisord
        self._ending = threading.Event()

    @contextmanager
    def running(self) -> Iterator[Watch]:
        """Look while the block runs."""
        thread = threading.Thread(target=self._look, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ending.set()
            thread.join()

    def look(self) -> None:
        """Look once."""
        with suppress(*GONE):
            for worker in worker_processes(self._supervisord):
                self.seen.add(worker.pid)
                with suppress(*GONE):
                    self.peak_mib = max(self.peak_mib, worker.memory_info().rss / MIB)

    def _look(self) -> None:
        while not self._ending.wait(EVERY_S):
            self.look()


def settle(supervisord: int, run: Path, before: Gauges, within_s: float) -> tuple[Gauges, Row]:
    """Wait until all gauges are back, at most ``within_s``; return the last reading and the rises."""
    row = Row("settling")
    while True:
        now = read_gauges(supervisord, run)
        faults = risen(before, now)
        row.ended = time.monotonic()
        if not faults or row.ended > row.began + within_s:
            break
        time.sleep(1)
    for text in faults:
        row.add_fault(f"not back {within_s:g} s after the last request", text)
    return now, row
