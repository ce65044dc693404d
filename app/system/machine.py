"""The machine: the host's memory, with its container's limit, the processor, locks between processes."""

from __future__ import annotations

import fcntl
import functools
import os
import platform
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from app.system.cgroup import ROOT, cpu_quota, memory_limits

GIB = 1 << 30
CGROUP = Path("/sys/fs/cgroup")  # version 2
LOCK_POLL_S = 0.05


@dataclass(frozen=True)
class Memory:
    """Bytes of a memory."""

    free: int
    total: int


def read_host_memory(root: Path = ROOT) -> Memory:
    """Return the host's memory, or what its control groups leave of it (a container's limit).

    The page cache counts as free, in the groups too: the kernel gives it up.

    Args:
        root: where the machine's files begin.
    """
    lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    rows = dict(line.split(":") for line in lines)
    free, total = (int(rows[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    limits = memory_limits(root)
    return Memory(
        min([free, *(limit.free for limit in limits)]),
        min([total, *(limit.total for limit in limits)]),
    )


def count_cores() -> int:
    """Return the number of CPU cores that this process may use: its affinity mask, limited by its cgroups' quota.

    A fraction is rounded down (1.5 → 1): two threads that compute would use up the quota before its period is
    over, and then the kernel stops the whole process, the hub included.
    """
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


@functools.cache  # budgets stay as they were planned
def total_memory() -> int:
    """Return the bytes of this machine's memory, or of its container's if that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *(limit.total for limit in memory_limits())])


def read_cpu_pressure(
    cgroup: Path = CGROUP, host: Path = Path("/proc/pressure/cpu")
) -> float | None:
    """Return for how many seconds something here has waited for a processor, since the start of the machine.

    It counts the container, or the host where there is none that tells. None where the kernel does
    not measure it (https://docs.kernel.org/accounting/psi.html).
    """
    for path in (cgroup / "cpu.pressure", host):
        try:
            first = path.read_text(encoding="ascii").partition("\n")[0]
            return int(first.rpartition("total=")[2]) / 1e6
        except (OSError, ValueError):
            continue
    return None


def processor() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def process_memory(process: Path = Path("/proc/self")) -> int:
    """Return this process's own bytes of host memory: its share of what it maps (PSS).

    Where the kernel does not tell (gVisor), shared pages count in full (RSS).
    """
    try:
        return read_kilobytes(process / "smaps_rollup", "Pss")
    except (OSError, LookupError):
        return read_kilobytes(process / "status", "VmRSS")


def process_peak(process: Path = Path("/proc/self")) -> int:
    """Return the most bytes of host memory that were this process's own, shared pages by its share of now."""
    now = process_memory(process)
    try:
        grown = read_kilobytes(process / "status", "VmHWM") - read_kilobytes(
            process / "status", "VmRSS"
        )
    except LookupError:  # a kernel without the peak
        return now
    return now + max(0, grown)


def read_kilobytes(path: Path, name: str) -> int:
    """Return the bytes of a row such as ``VmRSS:  1024 kB``. Raises OSError, or LookupError where it has none."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"{path} has no {name}")


@dataclass(frozen=True)
class ProcessUse:
    """What a process has used: seconds of CPU time since its start, and bytes of memory now, shared ones too."""

    cpu_s: float
    memory: int


def read_stat(pid: int) -> list[str]:
    """Return the fields of a process's ``/proc/PID/stat`` from the third on. Raises OSError."""
    # The second is the program's name, in brackets; it may hold anything.
    text = Path("/proc", str(pid), "stat").read_text(encoding="utf-8")
    return text.rpartition(")")[2].split()


def read_process(pid: int) -> ProcessUse | None:
    """Return what a process uses; None where there is none (any more)."""
    try:
        fields = read_stat(pid)
        pages = int(Path("/proc", str(pid), "statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return None
    ticks = int(fields[11]) + int(fields[12])  # proc(5) counts them as the 14th and 15th
    return ProcessUse(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))


@contextmanager
def hold_lock(path: Path, timeout_s: float) -> Iterator[bool | None]:
    """Hold a lock that other processes know by its file; the whole thread waits until it is free.

    Where the file cannot be made or locked, or its holder does not let go in time, nothing is held:
    better twice the work than none.

    Args:
        path: the file.
        timeout_s: how long to wait.

    Yields:
        Whether the lock is held; False where somebody else holds it, None where it cannot be made or locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # To read as well, and without waiting: a FIFO in its place would wait for its other end.
        lock = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666))
    except OSError:
        yield None
        return
    with lock:  # closing it lets go, and so does the kernel when the process ends
        yield wait_for_lock(lock, timeout_s)


@contextmanager
def hold_host_lock(name: str, timeout_s: float) -> Iterator[bool | None]:
    """Hold a lock that every server on this host knows by its name, whatever its folders; else as ``hold_lock``.

    The file lies where everybody may write, so it is not trusted: a link is not followed, nothing is written,
    and any user's file will do as long as it can be opened.
    """
    try:
        lock = open_shared(Path(tempfile.gettempdir(), f"resnet-serving-{name}.lock"))
    except OSError:
        yield None
        return
    with lock:
        yield wait_for_lock(lock, timeout_s)


def open_shared(path: Path) -> IO[str]:
    """Open a plain file that other users may have made, or make it. Raises OSError."""
    # Without O_NONBLOCK a FIFO would stop us. Where O_CREAT finds another user's file the kernel may refuse.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        with suppress(FileExistsError):  # made meanwhile
            made = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
            os.fchmod(made, 0o644)  # whatever the umask: other users have to open it too
            os.close(made)
        descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no plain file")
    return os.fdopen(descriptor)


def wait_for_lock(lock: IO[str], timeout_s: float) -> bool | None:
    """Lock an open file; return False where that is not possible in time, None where it never is."""
    until = time.monotonic() + timeout_s
    while (held := try_lock(lock.fileno(), fcntl.LOCK_EX)) is False and time.monotonic() < until:
        time.sleep(LOCK_POLL_S)
    return held


def try_lock(handle: int, kind: int) -> bool | None:
    """Lock an open file or folder at once; return False where another process holds it, None where none can."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def offer_to_end() -> None:
    """Make this process the first that the kernel ends when memory runs out, its children too."""
    with suppress(OSError):  # no /proc, or one that cannot be written: as the kernel likes
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
