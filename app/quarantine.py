"""Quarantine: inputs that crash workers, recorded in memory that all processes of the server share.

A file that crashes a decoder kills its worker. nginx retries the request with the next worker, because
predicting is idempotent, so a single file could kill all of them. Therefore each native thread records
the inputs it is processing, by a digest of the client's bytes, and when a worker dies the master
records the crash against its inputs:

    first crash              the input is a *suspect*: each worker processes one suspect at a time, a *trial*
    the trial succeeds       the suspect is cleared
    a crash during a trial   the input is *blocked*: refused with status 500 until the server is restarted

Only a trial can block: an input that happens to be in progress in several workers that crash stays a
suspect. A SIGKILL that is not the kernel's OOM killer's comes from outside (an operator, an
orchestrator) and says little about the inputs: it counts half, unless the input was the only one in
progress. A lost device is not counted.

nginx can be faster than the master: its retry arrives before the crash of the first worker is
recorded. So each worker also records the requests in flight, by the id that nginx gives them (clients
cannot choose it), and a request that is still recorded in another worker waits until the master has
cleared that record. A request that has been in ``MAX_CRASHES`` crashes is refused, whatever its input.
"""

from __future__ import annotations

import enum
import hashlib
import mmap
import os
import signal
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

DIGEST_BYTES = 16
# Inputs in progress in one worker: batches of up to 256, of several versions.
MAX_ACTIVE_INPUTS = 1024
MAX_REQUESTS = 4096  # in flight in one worker; it accepts 1,000 connections per socket
MAX_RECORDED = 1024  # inputs, and requests, with crashes; the oldest is overwritten first
MAX_CRASHES = 3  # of one request; the neighbors of a poisonous input see two
CRASH, EXTERNAL_KILL = 2, 1  # points
BLOCKED_AT = 2 * CRASH
FREE = bytes(DIGEST_BYTES)
EXTERNAL_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
VMSTAT = Path("/proc/vmstat")


class Verdict(enum.Enum):
    """Whether an input may be processed."""

    CLEAR = "clear"
    SUSPECT = "suspect"
    BLOCKED = "blocked"


class Table:
    """Digests in shared memory, one row per worker slot; a free cell is all zeros.

    A row is written by one process: its worker, or the master after that has exited.

    Attributes:
        size: cells per row.
    """

    def __init__(self, rows: int, size: int) -> None:
        self.size = size
        self._width = size * DIGEST_BYTES
        self._memory = mmap.mmap(-1, rows * self._width)  # untouched pages cost no memory

    def put(self, row: int, cell: int, digest: bytes) -> None:
        """Write a digest into a cell."""
        begin = row * self._width + cell * DIGEST_BYTES
        self._memory[begin : begin + DIGEST_BYTES] = digest

    def get(self, row: int, cell: int) -> bytes:
        """Return the digest in a cell."""
        begin = row * self._width + cell * DIGEST_BYTES
        return self._memory[begin : begin + DIGEST_BYTES]

    def find(self, row: int, digest: bytes) -> int:
        """Return the cell of a digest in a row, or -1."""
        begin, end = row * self._width, (row + 1) * self._width
        at = self._memory.find(digest, begin, end)
        while at >= 0 and (at - begin) % DIGEST_BYTES:
            at = self._memory.find(digest, at + 1, end)
        return -1 if at < 0 else (at - begin) // DIGEST_BYTES

    def read(self, row: int) -> list[bytes]:
        """Return the digests of a row."""
        text = self._memory[row * self._width : (row + 1) * self._width]
        cells = (text[i : i + DIGEST_BYTES] for i in range(0, self._width, DIGEST_BYTES))
        return [digest for digest in cells if digest != FREE]

    def clear(self, row: int) -> None:
        """Free all cells of a row."""
        begin = row * self._width
        self._memory[begin : begin + self._width] = bytes(self._width)


class CrashPoints:
    """Crash points by digest, in shared memory; the master adds them, any process may clear them."""

    def __init__(self) -> None:
        self._table = Table(1, MAX_RECORDED)
        self._points = mmap.mmap(-1, MAX_RECORDED + 1)  # the last byte is 1 once there was a crash
        self._next = 0

    def points(self, digest: bytes) -> int:
        """Return a digest's points."""
        cell = self._table.find(0, digest) if self._points[MAX_RECORDED] else -1
        return self._points[cell] if cell >= 0 else 0

    def set(self, digest: bytes, points: int) -> None:
        """Set a digest's points (in the master)."""
        cell = self._table.find(0, digest)
        if cell < 0:
            cell, self._next = self._next, (self._next + 1) % MAX_RECORDED
            self._points[cell] = 0
            self._table.put(0, cell, digest)
        self._points[cell] = min(points, 255)
        self._points[MAX_RECORDED] = 1

    def clear(self, digest: bytes) -> None:
        """Reset a digest's points to 0 (in any process)."""
        cell = self._table.find(0, digest)
        if cell >= 0:
            self._points[cell] = 0


class Quarantine:
    """The shared record of inputs and requests; the master creates it before the first fork.

    Args:
        slots: number of worker slots.
    """

    def __init__(self, slots: int) -> None:
        self._salt = os.urandom(16)  # clients cannot compute a digest
        self._active = Table(slots, MAX_ACTIVE_INPUTS)
        self._on_trial = Table(slots, 1)
        self._in_flight = Table(slots, MAX_REQUESTS)
        self._inputs = CrashPoints()
        self._requests = CrashPoints()
        self._oom_kills = count_oom_kills()

    def digest(self, data: bytes | memoryview) -> bytes:
        """Return the digest of an input, b"" for no data; releases the GIL for large inputs."""
        if not data:
            return b""
        return hashlib.blake2b(data, digest_size=DIGEST_BYTES, key=self._salt).digest()

    # In a worker, on any thread

    def verdict(self, digest: bytes) -> Verdict:
        """Return whether an input may be processed."""
        points = self._inputs.points(digest) if digest else 0
        if points >= BLOCKED_AT:
            return Verdict.BLOCKED
        return Verdict.SUSPECT if points else Verdict.CLEAR

    def clear_suspect(self, digest: bytes) -> None:
        """Clear a suspect whose trial succeeded."""
        if self.verdict(digest) is Verdict.SUSPECT:
            self._inputs.clear(digest)

    def active_inputs(self, slot: int) -> ActiveInputs:
        """Return the record of the inputs in progress on one worker's native threads."""
        return ActiveInputs(self._active, slot)

    def set_trial(self, slot: int, digest: bytes) -> None:
        """Record the suspect that a worker processes on trial; b"" ends the trial."""
        self._on_trial.put(slot, 0, digest or FREE)

    # Requests, on the hub of a worker

    def enter(self, slot: int, request: bytes) -> None:
        """Record a request as in flight in a worker; not if its cell is taken, which is rare."""
        cell = cell_of(request)
        if self._in_flight.get(slot, cell) == FREE:
            self._in_flight.put(slot, cell, request)

    def leave(self, slot: int, request: bytes) -> None:
        """Remove a request from the record."""
        cell = cell_of(request)
        if self._in_flight.get(slot, cell) == request:
            self._in_flight.put(slot, cell, FREE)

    def is_in_flight(self, request: bytes, slots: Iterable[int]) -> bool:
        """Return whether a request is recorded as in flight in any of these workers."""
        cell = cell_of(request)
        return any(self._in_flight.get(slot, cell) == request for slot in slots)

    def has_seen_crashes(self, request: bytes) -> bool:
        """Return whether a request was in flight in ``MAX_CRASHES`` workers that crashed."""
        return self._requests.points(request) >= MAX_CRASHES

    # In the master

    def record_crash(self, slot: int, *, is_external: bool) -> list[bytes]:
        """Record a crash against the worker's inputs and requests, and clear its records.

        Args:
            slot: the worker's slot.
            is_external: it was killed by a signal from outside.

        Returns:
            The digests of the inputs that are blocked from now on.
        """
        active, tried = self._active.read(slot), self._on_trial.get(slot, 0)
        points = EXTERNAL_KILL if is_external and len(active) > 1 else CRASH
        blocked = []
        for digest in set(active):
            before = self._inputs.points(digest)
            after = before + points if digest == tried else max(before, points)
            self._inputs.set(digest, after)
            if before < BLOCKED_AT <= after:
                blocked.append(digest)
        if not is_external:
            for request in self._in_flight.read(slot):
                self._requests.set(request, self._requests.points(request) + 1)
        self.clear(slot)
        return blocked

    def clear(self, slot: int) -> None:
        """Clear the records of a worker that has exited."""
        self._active.clear(slot)
        self._on_trial.clear(slot)
        self._in_flight.clear(slot)

    def is_external_kill(self, signal_number: int | None) -> bool:
        """Return whether a worker was killed from outside; call it once per crash.

        A SIGKILL is external unless the kernel's count of OOM kills has grown.

        Args:
            signal_number: the signal that killed the worker, 0 for none, None if unknown.
        """
        before, self._oom_kills = self._oom_kills, count_oom_kills()
        if signal_number == signal.SIGKILL:
            return self._oom_kills == before
        return signal_number is None or signal_number in EXTERNAL_SIGNALS


class ActiveInputs:
    """The inputs in progress in one worker; methods are safe on any of its threads.

    Args:
        table: shared with the master; None for a private one.
        slot: the worker's row.
    """

    def __init__(self, table: Table | None = None, slot: int = 0) -> None:
        self._table = table or Table(1, MAX_ACTIVE_INPUTS)
        self._slot = slot
        self._free = deque(range(self._table.size))  # append and pop are atomic

    def hold(self, digests: Iterable[bytes]) -> Sequence[int]:
        """Record digests and return their cells for ``release``; digests beyond the last cell are not recorded."""
        cells: list[int] = []
        for digest in filter(None, digests):
            try:
                cell = self._free.pop()
            except IndexError:
                break
            self._table.put(self._slot, cell, digest)
            cells.append(cell)
        return cells

    def release(self, cells: Sequence[int]) -> None:
        """Free cells that ``hold`` returned."""
        for cell in cells:
            self._table.put(self._slot, cell, FREE)
            self._free.append(cell)

    def keep_only(self, digests: Iterable[bytes]) -> None:
        """Remove all other digests: the worker is about to exit and these are the cause."""
        self._table.clear(self._slot)
        for cell, digest in enumerate(filter(None, digests)):
            self._table.put(self._slot, cell, digest)


def cell_of(request: bytes) -> int:
    """Return the cell of a request in each worker's row; ids are random."""
    return int.from_bytes(request[:4]) % MAX_REQUESTS


def count_oom_kills() -> int:
    """Return the kernel's count of OOM kills since boot, or 0 if unknown."""
    try:
        rows = dict(line.split() for line in VMSTAT.read_text(encoding="ascii").splitlines())
        return int(rows["oom_kill"])
    except (OSError, KeyError, ValueError):
        return 0
