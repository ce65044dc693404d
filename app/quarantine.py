"""Quarantine: inputs that end workers, kept in memory that all processes of the server share.

A file that crashes a decoder takes its worker along. nginx tries the request again with the next worker,
because predicting changes nothing, and so one file could end them all. Therefore each native thread
records what it has *in hand*, by a digest of the client's bytes, and when a worker dies the master
charges what that worker had in hand:

    first death     the input is a *suspect*: a worker processes one suspect at a time, so that a
                    second death has one culprit
    it comes through    the suspect is cleared
    second death    *convicted*: refused with status 500 until the server is started again

A SIGKILL that is not the kernel's for lack of memory comes from outside (an operator, an orchestrator)
and says little about the inputs: it counts half, unless the input was the only one in hand.

nginx may be quicker than the master: the retry arrives while the death of the first worker is not
charged yet. So each worker also records the requests that are inside it, by the id that nginx gives
them (clients cannot choose it), and a request that still stands in another worker's record waits
until the master has cleared that.
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
IN_HAND = (
    320  # inputs that one worker's native threads work on at once: a batch of 256, and decoders
)
INSIDE = 1024  # requests inside one worker, as many as it takes connections
CHARGED = 1024  # inputs that are remembered; the oldest is forgotten first
CRASH, OUTSIDE = 2, 1  # what a death counts
CONVICTED_AT = 2 * CRASH
NONE = bytes(DIGEST_BYTES)
VMSTAT = Path("/proc/vmstat")


class Verdict(enum.Enum):
    """What is known of an input."""

    CLEAR = "clear"
    SUSPECT = "suspect"
    CONVICTED = "convicted"


class Table:
    """Digests in shared memory: for each worker's slot a row of ``size`` places; a free place is all zeros.

    One process writes a row: its worker, or the master once that is gone.

    Attributes:
        size: places of a row.
    """

    def __init__(self, rows: int, size: int) -> None:
        """Map the memory; pages that nobody touches cost none."""
        self.size = size
        self._width = size * DIGEST_BYTES
        self._memory = mmap.mmap(-1, rows * self._width)

    def put(self, row: int, place: int, digest: bytes) -> None:
        """Write a digest into a place."""
        begin = row * self._width + place * DIGEST_BYTES
        self._memory[begin : begin + DIGEST_BYTES] = digest

    def find(self, row: int, digest: bytes) -> int:
        """Return the place of a digest in a row, or -1."""
        begin, end = row * self._width, (row + 1) * self._width
        at = self._memory.find(digest, begin, end)
        while at >= 0 and (at - begin) % DIGEST_BYTES:
            at = self._memory.find(digest, at + 1, end)
        return -1 if at < 0 else (at - begin) // DIGEST_BYTES

    def read(self, row: int) -> list[bytes]:
        """Return the digests in a row."""
        text = self._memory[row * self._width : (row + 1) * self._width]
        places = (text[i : i + DIGEST_BYTES] for i in range(0, self._width, DIGEST_BYTES))
        return [digest for digest in places if digest != NONE]

    def clear(self, row: int) -> None:
        """Free all places of a row."""
        begin = row * self._width
        self._memory[begin : begin + self._width] = bytes(self._width)


class Quarantine:
    """The shared record. The master makes it before the first fork."""

    def __init__(self, slots: int) -> None:
        """Start with nothing charged; there are so many slots for workers."""
        self._salt = os.urandom(16)  # nobody outside can compute a digest
        self._in_hand = Table(slots, IN_HAND)
        self._inside = Table(slots, INSIDE)
        self._charged = Table(1, CHARGED)
        self._points = mmap.mmap(
            -1, CHARGED + 1
        )  # the last byte: whether anything was ever charged
        self._next = 0
        self._oom_kills = count_oom_kills()

    def digest(self, data: bytes | memoryview) -> bytes:
        """Return the digest of an input; the GIL is free meanwhile."""
        return hashlib.blake2b(data, digest_size=DIGEST_BYTES, key=self._salt).digest()

    # In a worker, on any thread

    def verdict(self, digest: bytes) -> Verdict:
        """Return what is known of an input."""
        if not self._points[CHARGED]:
            return Verdict.CLEAR
        place = self._charged.find(0, digest)
        points = self._points[place] if place >= 0 else 0
        if points >= CONVICTED_AT:
            return Verdict.CONVICTED
        return Verdict.SUSPECT if points else Verdict.CLEAR

    def acquit(self, digest: bytes) -> None:
        """Clear a suspect that came through."""
        place = self._charged.find(0, digest)
        if place >= 0 and self._points[place] < CONVICTED_AT:
            self._points[place] = 0

    def hands(self, slot: int) -> Records:
        """Return the record of what one worker's native threads have in hand."""
        return Records(self._in_hand, slot)

    def visitors(self, slot: int) -> Records:
        """Return the record of the requests that are inside one worker."""
        return Records(self._inside, slot)

    def is_inside_another(self, digest: bytes, own: int, slots: Iterable[int]) -> bool:
        """Tell if a request is recorded as inside another worker than one's own."""
        return any(self._inside.find(slot, digest) >= 0 for slot in slots if slot != own)

    # In the master

    def charge(self, slot: int, *, outside: bool) -> list[bytes]:
        """Charge what a dead worker had in hand, clear its records, and return who is convicted now.

        Args:
            slot: the worker's.
            outside: it was ended by a signal from outside.
        """
        held = set(self._in_hand.read(slot))
        weight = OUTSIDE if outside and len(held) > 1 else CRASH
        convicted = [digest for digest in held if self._add(digest, weight)]
        self.clear(slot)
        return convicted

    def clear(self, slot: int) -> None:
        """Clear the records of a worker that has ended."""
        self._in_hand.clear(slot)
        self._inside.clear(slot)

    def was_outside(self, signal_number: int) -> bool:
        """Tell if a signal that ended a worker came from outside; call it once for each death.

        The kernel counts whom it killed for lack of memory; SIGKILL without that is somebody's.
        """
        before, self._oom_kills = self._oom_kills, count_oom_kills()
        if signal_number == signal.SIGKILL:
            return self._oom_kills == before
        return signal_number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)

    def _add(self, digest: bytes, weight: int) -> bool:
        """Charge one input; return True if that convicts it."""
        place = self._charged.find(0, digest)
        if place < 0:
            place, self._next = self._next, (self._next + 1) % CHARGED
            self._points[place] = 0
            self._charged.put(0, place, digest)
        before = self._points[place]
        self._points[place] = min(before + weight, 255)
        self._points[CHARGED] = 1
        return before < CONVICTED_AT <= before + weight


class Records:
    """One worker's row of a table. Methods are safe on any thread of that worker."""

    def __init__(self, table: Table | None = None, slot: int = 0) -> None:
        """Start with all places free; without a table the record is this process's own."""
        self._table = table or Table(1, IN_HAND)
        self._slot = slot
        self._free = deque(range(self._table.size))  # append and pop are atomic

    def hold(self, digests: Iterable[bytes]) -> Sequence[int]:
        """Record digests; return their places for ``release``. What finds no place is not recorded."""
        places: list[int] = []
        for digest in filter(None, digests):
            try:
                place = self._free.pop()
            except IndexError:
                break
            self._table.put(self._slot, place, digest)
            places.append(place)
        return places

    def release(self, places: Sequence[int]) -> None:
        """Free places."""
        for place in places:
            self._table.put(self._slot, place, NONE)
            self._free.append(place)

    def keep_only(self, digests: Iterable[bytes]) -> None:
        """Take everything else out of the record: the worker ends itself and knows why."""
        self._table.clear(self._slot)
        for place, digest in enumerate(digests):
            self._table.put(self._slot, place, digest)


def count_oom_kills() -> int:
    """Return how many processes the kernel has killed for lack of memory; 0 where it does not say."""
    try:
        rows = dict(line.split() for line in VMSTAT.read_text(encoding="ascii").splitlines())
        return int(rows["oom_kill"])
    except (OSError, KeyError, ValueError):
        return 0
