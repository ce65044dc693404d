"""Files to count in that have their place on the disk before they are written to.

prometheus_client makes its files by length alone and maps them: on a full disk the first write to such
a page ends the process (SIGBUS). Here the pages are allocated first. Where there is no place, a series
is counted in memory, unseen by the other workers, until there is.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

INITIAL_BYTES = 1 << 16  # prometheus_client's own
RETRY_S = 60  # until a full disk is tried again

logger = logging.getLogger(__name__)


class AllocatedDict(MmapedDict):
    """A file of counts; see ``MmapedDict``, whose methods are called under one lock."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        """Open or make the file. Raises OSError where it has no place."""
        if not read_mode:
            allocate_file(Path(filename))
        self._homeless: dict[str, tuple[float, float]] = {}  # value and time of what has no place
        self._retry_at = 0.0
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def read_value(self, key: str) -> tuple[float, float]:
        """Return a value and its time; a new one is 0."""
        if self._has_place(key):
            value: tuple[float, float] = super().read_value(key)  # type: ignore[no-untyped-call]
            return value
        return self._homeless[key]

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Keep a value and its time."""
        if self._has_place(key):
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]
        else:
            self._homeless[key] = value, timestamp

    def _has_place(self, key: str) -> bool:
        """Return whether a key is in the file, after adding a new one if there is room."""
        if key in self._positions:
            return True
        homeless = key in self._homeless
        if not homeless or time.monotonic() >= self._retry_at:
            try:
                self._make_room(key)
                kept = self._homeless.pop(key, (0.0, 0.0))
                super().write_value(key, *kept)  # type: ignore[no-untyped-call]
            except OSError as error:
                self._homeless.setdefault(key, (0.0, 0.0))
                if not self._retry_at:
                    logger.error("%s; new series are counted by this worker alone", told(error))
                self._retry_at = time.monotonic() + RETRY_S
        return key in self._positions

    def _make_room(self, key: str) -> None:
        """Allocate the pages that a new key needs; ``MmapedDict`` doubles the file. Raises OSError."""
        capacity = self._capacity
        while self._used + len(key.encode()) + 32 > capacity:
            capacity *= 2
        if capacity > self._capacity:
            os.posix_fallocate(self._f.fileno(), 0, capacity)


def allocate(folder: str, kinds: Iterable[str], slot: int) -> bool:
    """Allocate a worker's files, and from now on all others; log a full disk and return False."""
    values.MmapedDict = AllocatedDict  # type: ignore[attr-defined]
    try:
        for kind in kinds:
            allocate_file(Path(folder, f"{kind}_{slot}.db"))
    except OSError as error:
        logger.error("%s; this worker counts for itself alone until it is replaced", told(error))
        return False
    return True


def allocate_file(path: Path) -> None:
    """Make a file of counts where there is none, and give all of it its place. Raises OSError."""
    with path.open("a+b") as file:
        size = os.fstat(file.fileno()).st_size
        os.posix_fallocate(file.fileno(), 0, size or INITIAL_BYTES)


def told(error: OSError) -> str:
    """Return why there is no place for counts."""
    return f"the metrics cannot be written: {error}"
