"""Memory and CPU limits of this process's control groups, versions 1 and 2.

``/proc/self/cgroup`` names the process's group in each hierarchy; ``/proc/self/mountinfo`` gives the mount point
of a hierarchy and the group that is mounted there, which in a container is usually the container's own. Limits
nest: every group from the process's own up to the mounted one applies. See https://docs.kernel.org/admin-guide/cgroup-v2.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/")
PAGE_CACHE = ("active_file", "inactive_file")  # rows of memory.stat


@dataclass(frozen=True)
class MemoryLimit:
    """Memory limit of one group, in bytes.

    Attributes:
        free: bytes below the limit, page cache included because the kernel reclaims it.
        total: the limit.
    """

    free: int
    total: int


def memory_limits(root: Path = ROOT) -> list[MemoryLimit]:
    """Return the memory limit of every group that applies to this process.

    Args:
        root: the root of the file system; another one in tests.
    """
    limits = []
    for version, folder in list_groups("memory", root):
        stat = read_table(folder / "memory.stat")
        if version == 1:
            # The second is the minimum over all ancestors, including those outside the container's view.
            total = [read_number(folder / "memory.limit_in_bytes")]
            total.append(stat.get("hierarchical_memory_limit"))
            used = read_number(folder / "memory.usage_in_bytes")
            cached = sum(stat.get(f"total_{name}", 0) for name in PAGE_CACHE)
        else:
            # Above memory.high the kernel throttles the group instead of killing it: also a limit to stay below.
            total = [read_number(folder / f"memory.{name}") for name in ("max", "high")]
            used = read_number(folder / "memory.current")
            cached = sum(stat.get(name, 0) for name in PAGE_CACHE)
        known = [limit for limit in total if limit is not None]
        if known and used is not None:
            limits.append(MemoryLimit(max(0, min(known) - used + cached), min(known)))
    return limits


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return the CPU quota of this process's groups, in CPUs; None if unlimited."""
    quotas = []
    for version, folder in list_groups("cpu", root):
        if version == 1:
            quota = read_number(folder / "cpu.cfs_quota_us")
            period = read_number(folder / "cpu.cfs_period_us")
        else:  # "150000 100000", or "max 100000"
            words = [*read_words(folder / "cpu.max"), "", ""]
            quota, period = (int(word) if word.isdecimal() else None for word in words[:2])
        if quota is not None and period and quota > 0:  # -1: no limit
            quotas.append(quota / period)
    return min(quotas, default=None)


def list_groups(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    """Yield (version, folder) of each group of a controller that applies to this process, innermost first."""
    own = dict(own_groups(controller, root))
    for version, mounted_group, mount_point in list_mounts(controller, root):
        if version not in own:
            continue
        group, top = PurePosixPath(own[version]), PurePosixPath(mounted_group)
        # A group of another namespace ("/../x") is not below the mount: use the mounted group.
        inside = group.relative_to(top) if group.is_relative_to(top) else PurePosixPath()
        folder = mount_point / inside if ".." not in inside.parts else mount_point
        while folder != mount_point:
            yield version, folder
            folder = folder.parent
        yield version, mount_point


def own_groups(controller: str, root: Path) -> Iterator[tuple[int, str]]:
    """Yield (version, path) of this process's groups; rows are ``4:memory:/docker/1f…`` or ``0::/…``."""
    for line in read_lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if controller in names.split(","):
            yield 1, path
        elif number == "0" and not names:
            yield 2, path


def list_mounts(controller: str, root: Path) -> Iterator[tuple[int, str, Path]]:
    """Yield (version, mounted group, mount point) of each hierarchy that has the controller."""
    for line in read_lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = after.partition(" ")
        fields = before.split()
        if len(fields) < 5 or kind not in ("cgroup", "cgroup2"):
            continue
        if kind == "cgroup" and controller not in options.split(" ")[-1].split(","):
            continue
        group, mount_point = (unescape(field) for field in fields[3:5])
        yield 1 if kind == "cgroup" else 2, group, root / mount_point.lstrip("/")


def unescape(field: str) -> str:
    r"""Decode the octal escapes of a mountinfo path: ``\040`` is a space."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def read_lines(path: Path) -> list[str]:
    """Return a file's lines, or none if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def read_words(path: Path) -> list[str]:
    """Return the words of a file's first line, or none if it cannot be read."""
    return "".join(read_lines(path)[:1]).split()


def read_number(path: Path) -> int | None:
    """Return a file's integer, or None if it holds none (``max``)."""
    word = "".join(read_words(path))
    return int(word) if re.fullmatch(r"-?\d+", word) else None


def read_table(path: Path) -> dict[str, int]:
    """Return a file's rows of name and integer."""
    rows = (line.split() for line in read_lines(path))
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}
