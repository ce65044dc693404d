"""Memory-mapped metric files whose disk blocks are allocated before they are written.

prometheus_client extends its files with ``truncate`` and maps them: on a full disk the first write to
such a page kills the process (SIGBUS). Here the blocks are allocated first. While that fails, a new
series is counted in memory, invisible to the other workers.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

INITIAL_BYTES = 1 << 16  # as in prometheus_client
RETRY_S = 60  # between attempts to allocate on a full disk

logger = logging.getLogger(__name__)


class AllocatedDict(MmapedDict):
    """A metric file that survives a full disk; prometheus_client calls all methods under one lock.

    Args:
        filename: the file, created unless ``read_mode``.
        read_mode: open it read-only.

    Raises:
        OSError: its blocks cannot be allocated.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if not read_mode:
            allocate_file(Path(filename))
        self._unstored: dict[
            str, tuple[float, float]
        ] = {}  # value and time of keys not in the file
        self._retry_at = 0.0
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def read_value(self, key: str) -> tuple[float, float]:
        """Return a key's value and timestamp, 0 for a new key."""
        if self._is_stored(key):
            value: tuple[float, float] = super().read_value(key)  # type: ignore[no-untyped-call]
            return value
        return self._unstored[key]

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Store a key's value and timestamp."""
        if self._is_stored(key):
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]
        else:
            self._unstored[key] = value, timestamp

    def _is_stored(self, key: str) -> bool:
        """Return whether a key is in the file; a new key is added if its blocks can be allocated."""
        if key in self._positions:
            return True
        is_known = key in self._unstored
        if not is_known or time.monotonic() >= self._retry_at:
            try:
                self._make_room(key)
                kept = self._unstored.pop(key, (0.0, 0.0))
                super().write_value(key, *kept)  # type: ignore[no-untyped-call]
            except OSError as error:
                self._unstored.setdefault(key, (0.0, 0.0))
                if not self._retry_at:
                    logger.error("%s; new series are counted by this worker alone", describe(error))
                self._retry_at = time.monotonic() + RETRY_S
        return key in self._positions

    def _make_room(self, key: str) -> None:
        """Allocate the blocks for a new key; ``MmapedDict`` doubles the file. Raises OSError."""
        capacity = self._capacity
        while self._used + len(key.encode()) + 32 > capacity:
            capacity *= 2
        if capacity > self._capacity:
            os.posix_fallocate(self._f.fileno(), 0, capacity)


def allocate(folder: str, kinds: Iterable[str], slot: int) -> bool:
    """Allocate a worker's metric files and make prometheus_client use ``AllocatedDict``.

    Args:
        folder: ``PROMETHEUS_MULTIPROC_DIR``.
        kinds: the metric types that get a file each.
        slot: the worker's slot in the scoreboard.

    Returns:
        False, after logging the error, if the disk is full.
    """
    values.MmapedDict = AllocatedDict  # type: ignore[attr-defined]
    try:
        for kind in kinds:
            allocate_file(Path(folder, f"{kind}_{slot}.db"))
    except OSError as error:
        logger.error(
            "%s; this worker counts for itself alone until it is replaced", describe(error)
        )
        return False
    return True


def allocate_file(path: Path) -> None:
    """Create a metric file if needed and allocate all its blocks. Raises OSError."""
    with path.open("a+b") as file:
        size = os.fstat(file.fileno()).st_size
        os.posix_fallocate(file.fileno(), 0, size or INITIAL_BYTES)


def describe(error: OSError) -> str:
    """Return the log text of a failed allocation."""
    return f"the metrics cannot be written: {error}"
