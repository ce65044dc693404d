"""Quarantine: inputs that end workers, kept in memory that all processes of the server share.

A file that crashes a decoder takes its worker along. nginx tries the request again with the next worker,
because predicting changes nothing, and so one file could end them all. Therefore each native thread
records what it has *in hand*, by a digest of the client's bytes, and when a worker dies the master
charges what that worker had in hand:

    first death     the input is a *suspect*: a worker processes one suspect at a time, on trial
    it comes through    the suspect is cleared
    a death on trial    *convicted*: refused with status 500 until the server is started again

Only a trial can convict: an input that happens to be in hand in several workers that die is a suspect,
no more. A SIGKILL that is not the kernel's for lack of memory comes from outside (an operator, an
orchestrator) and says little about the inputs: it counts half, unless the input was the only one in
hand. A device that is lost is nobody's fault.

nginx may be quicker than the master: the retry arrives while the death of the first worker is not
charged yet. So each worker also records the requests that are inside it, by the id that nginx gives
them (clients cannot choose it), and a request that still stands in another worker's record waits
until the master has cleared that. One that has seen ``MAX_CRASHES`` workers die is refused, whatever it brings.
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
# Inputs that one worker's native threads work on at once: batches of up to 256, of several versions.
IN_HAND = 1024
INSIDE = (
    4096  # places for requests inside one worker; it takes 1,000 connections on each of its sockets
)
CHARGED = 1024  # inputs, and requests, that are remembered; the oldest is forgotten first
MAX_CRASHES = 3  # with one request inside; the neighbors of a poison see two
CRASH, OUTSIDE = 2, 1  # what a death counts
CONVICTED_AT = 2 * CRASH
NONE = bytes(DIGEST_BYTES)
OUTSIDE_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
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

    def get(self, row: int, place: int) -> bytes:
        """Return what is in a place."""
        begin = row * self._width + place * DIGEST_BYTES
        return self._memory[begin : begin + DIGEST_BYTES]

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


class Charges:
    """Points against digests, in shared memory; the master writes, but for clearing."""

    def __init__(self) -> None:
        """Start with nothing charged."""
        self._table = Table(1, CHARGED)
        self._points = mmap.mmap(
            -1, CHARGED + 1
        )  # the last byte: whether anything was ever charged
        self._next = 0

    def points(self, digest: bytes) -> int:
        """Return the points against a digest."""
        place = self._table.find(0, digest) if self._points[CHARGED] else -1
        return self._points[place] if place >= 0 else 0

    def set(self, digest: bytes, points: int) -> None:
        """Write the points against a digest (in the master)."""
        place = self._table.find(0, digest)
        if place < 0:
            place, self._next = self._next, (self._next + 1) % CHARGED
            self._points[place] = 0
            self._table.put(0, place, digest)
        self._points[place] = min(points, 255)
        self._points[CHARGED] = 1

    def clear(self, digest: bytes) -> None:
        """Take the points back (in any process)."""
        place = self._table.find(0, digest)
        if place >= 0:
            self._points[place] = 0


class Quarantine:
    """The shared record. The master makes it before the first fork."""

    def __init__(self, slots: int) -> None:
        """Start with nothing charged; there are so many slots for workers."""
        self._salt = os.urandom(16)  # nobody outside can compute a digest
        self._in_hand = Table(slots, IN_HAND)
        self._on_trial = Table(slots, 1)
        self._inside = Table(slots, INSIDE)
        self._inputs = Charges()
        self._requests = Charges()
        self._oom_kills = count_oom_kills()

    def digest(self, data: bytes | memoryview) -> bytes:
        """Return the digest of an input, empty for none; the GIL is free meanwhile."""
        if not data:
            return b""
        return hashlib.blake2b(data, digest_size=DIGEST_BYTES, key=self._salt).digest()

    # In a worker, on any thread

    def verdict(self, digest: bytes) -> Verdict:
        """Return what is known of an input."""
        points = self._inputs.points(digest) if digest else 0
        if points >= CONVICTED_AT:
            return Verdict.CONVICTED
        return Verdict.SUSPECT if points else Verdict.CLEAR

    def acquit(self, digest: bytes) -> None:
        """Clear a suspect that came through."""
        if self.verdict(digest) is Verdict.SUSPECT:
            self._inputs.clear(digest)

    def records(self, slot: int) -> Records:
        """Return the record of what one worker's native threads have in hand."""
        return Records(self._in_hand, slot)

    def try_suspect(self, slot: int, digest: bytes) -> None:
        """Record that a worker tries a suspect; an empty digest ends the trial."""
        self._on_trial.put(slot, 0, digest or NONE)

    # Requests, on the hub of a worker

    def enter(self, slot: int, request: bytes) -> None:
        """Record a request as inside a worker. One whose place is taken is not recorded: that is rare."""
        place = place_of(request)
        if self._inside.get(slot, place) == NONE:
            self._inside.put(slot, place, request)

    def leave(self, slot: int, request: bytes) -> None:
        """Take a request out of the record."""
        place = place_of(request)
        if self._inside.get(slot, place) == request:
            self._inside.put(slot, place, NONE)

    def is_inside(self, request: bytes, slots: Iterable[int]) -> bool:
        """Return whether a request is recorded as inside any of some workers."""
        place = place_of(request)
        return any(self._inside.get(slot, place) == request for slot in slots)

    def has_seen_crashes(self, request: bytes) -> bool:
        """Return whether a request was inside too many workers that crashed."""
        return self._requests.points(request) >= MAX_CRASHES

    # In the master

    def charge(self, slot: int, *, outside: bool) -> list[bytes]:
        """Charge what a dead worker had in hand, clear its records, and return who is convicted now.

        Args:
            slot: the worker's.
            outside: it was ended by a signal from outside.
        """
        held, tried = self._in_hand.read(slot), self._on_trial.get(slot, 0)
        weight = OUTSIDE if outside and len(held) > 1 else CRASH
        convicted = []
        for digest in set(held):
            before = self._inputs.points(digest)
            after = before + weight if digest == tried else max(before, weight)
            self._inputs.set(digest, after)
            if before < CONVICTED_AT <= after:
                convicted.append(digest)
        if not outside:
            for request in self._inside.read(slot):
                self._requests.set(request, self._requests.points(request) + 1)
        self.clear(slot)
        return convicted

    def clear(self, slot: int) -> None:
        """Clear the records of a worker that has ended."""
        self._in_hand.clear(slot)
        self._on_trial.clear(slot)
        self._inside.clear(slot)

    def was_outside(self, signal_number: int | None) -> bool:
        """Return whether a worker was ended from outside; call it once for each death.

        The kernel counts whom it killed for lack of memory; SIGKILL without that is somebody's.

        Args:
            signal_number: what ended the worker, 0 for no signal; None where that is not known.
        """
        before, self._oom_kills = self._oom_kills, count_oom_kills()
        if signal_number == signal.SIGKILL:
            return self._oom_kills == before
        return signal_number is None or signal_number in OUTSIDE_SIGNALS


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
        for place, digest in enumerate(filter(None, digests)):
            self._table.put(self._slot, place, digest)


def place_of(request: bytes) -> int:
    """Return the place of a request in each worker's record; ids are random."""
    return int.from_bytes(request[:4]) % INSIDE


def count_oom_kills() -> int:
    """Return how many processes the kernel has killed for lack of memory; 0 where it does not say."""
    try:
        rows = dict(line.split() for line in VMSTAT.read_text(encoding="ascii").splitlines())
        return int(rows["oom_kill"])
    except (OSError, KeyError, ValueError):
        return 0
