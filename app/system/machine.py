"""The machine: memory, CPU, and the resources that one process uses, read from /proc."""

from __future__ import annotations

import functools
import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.system.cgroup import ROOT, cpu_quota, memory_limits

GIB = 1 << 30
CGROUP = Path("/sys/fs/cgroup")  # version 2


@dataclass(frozen=True)
class Memory:
    """Free and total bytes of a memory."""

    free: int
    total: int


def read_host_memory(root: Path = ROOT) -> Memory:
    """Return the host's memory, capped by the limits of this process's control groups (a container's limit).

    The page cache counts as free, in the groups too: the kernel reclaims it.

    Args:
        root: the root of the file system; another one in tests.
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
    """Return the seconds during which at least one task waited for a CPU, since boot.

    The value is the container's if its control group reports one, otherwise the host's; None if the
    kernel does not measure it (https://docs.kernel.org/accounting/psi.html).
    """
    for path in (cgroup / "cpu.pressure", host):
        try:
            some = path.read_text(encoding="ascii").partition("\n")[0]
            return int(some.rpartition("total=")[2]) / 1e6
        except (OSError, ValueError):
            continue
    return None


def processor() -> str:
    """Return the CPU's model name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def process_memory(process: Path = Path("/proc/self")) -> int:
    """Return the process's proportional set size (PSS) in bytes.

    If the kernel does not report it (gVisor), the resident set size: shared pages then count in full.
    """
    try:
        return read_kilobytes(process / "smaps_rollup", "Pss")
    except (OSError, LookupError):
        return read_kilobytes(process / "status", "VmRSS")


def process_peak(process: Path = Path("/proc/self")) -> int:
    """Return the process's peak memory in bytes: PSS now plus the growth of RSS from now to its peak."""
    now = process_memory(process)
    try:
        growth = read_kilobytes(process / "status", "VmHWM") - read_kilobytes(
            process / "status", "VmRSS"
        )
    except LookupError:  # a kernel that does not track the peak
        return now
    return now + max(0, growth)


def read_kilobytes(path: Path, name: str) -> int:
    """Return the bytes of a row such as ``VmRSS:  1024 kB``.

    Raises:
        OSError: the file cannot be read.
        LookupError: it has no such row.
    """
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"{path} has no {name}")


@dataclass(frozen=True)
class ProcessUse:
    """Resources of a process.

    Attributes:
        cpu_s: seconds of CPU time since its start, user and system.
        memory: resident set size in bytes.
    """

    cpu_s: float
    memory: int


def read_stat(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` from the third on. Raises OSError."""
    # The second is the program's name, in brackets; it may hold anything.
    text = Path("/proc", str(pid), "stat").read_text(encoding="utf-8")
    return text.rpartition(")")[2].split()


def read_process(pid: int) -> ProcessUse | None:
    """Return CPU time and memory of a process, or None if it is gone."""
    try:
        fields = read_stat(pid)
        pages = int(Path("/proc", str(pid), "statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return None
    ticks = int(fields[11]) + int(fields[12])  # proc(5) counts them as the 14th and 15th
    return ProcessUse(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))


def prefer_as_oom_victim() -> None:
    """Make this process and its children the OOM killer's first choice."""
    with suppress(OSError):  # no /proc, or it is read-only: the kernel chooses by itself
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
