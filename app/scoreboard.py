"""The scoreboard: the state of every worker of this machine, in memory that all of them share.

Gunicorn's master creates it before the first fork. Each worker owns one *slot*, the lowest free one,
and writes its state and a report there. The slot outlives the worker: the replacement of a dead worker
gets the same number.

It decides whether a worker may accept connections: all workers accept on the same socket, so a worker
without a model would take requests away from those that have one.
"""

from __future__ import annotations

import enum
import json
import mmap
import struct
from collections.abc import Collection

from app.quarantine import Quarantine

REPORT_BYTES = 16 * 1024  # of one worker
SIZE = struct.Struct("I")
COUNT = struct.Struct("Q")
SLOTS = 256  # at most 64 workers, and twice as many while Gunicorn reloads


class State(enum.IntEnum):
    """Life cycle of a worker's model."""

    ABSENT = 0  # no worker in this slot
    LOADING = 1
    READY = 2
    FAILED = 3  # the load failed or the model thread died; the log has the reason
    DRAINING = 4  # shutting down: completes its requests, accepts none


class Scoreboard:
    """The state of each worker, one byte per slot, and each worker's report.

    A slot is written by its own worker, or by the master while it has none, so no lock is needed.

    Attributes:
        slot: this process's own slot; ``enter`` sets it, in the worker.
        quarantine: the inputs that have crashed workers, and those that are being processed.
    """

    def __init__(self) -> None:
        self._states = mmap.mmap(-1, SLOTS + 1)
        self._reports = mmap.mmap(-1, SLOTS * REPORT_BYTES)  # untouched pages cost no memory
        self._deaths = mmap.mmap(-1, COUNT.size)
        self._served = SLOTS  # index of the byte that is 1 once any worker has been ready
        self.slot = 0
        self.quarantine = Quarantine(SLOTS)

    def claim(self, placements: int = 1, taken: Collection[int] = ()) -> int:
        """Claim the lowest free slot of a free placement (in the master, before a fork).

        Args:
            placements: number of placements in the plan; slot modulo this number is its placement.
            taken: placements that living workers of the plan have.

        Raises:
            RuntimeError: all slots are taken.
        """
        free = [slot for slot in range(SLOTS) if self._states[slot] == State.ABSENT]
        if not free:
            raise RuntimeError(f"all {SLOTS} worker slots are taken")
        slot = next((slot for slot in free if slot % placements not in taken), free[0])
        self._states[slot] = State.LOADING
        return slot

    def cancel_claim(self, slot: int) -> None:
        """Free a claimed slot (in the master, after the fork failed)."""
        self._states[slot] = State.ABSENT

    def release(self, slot: int, signal_number: int | None = 0) -> list[bytes]:
        """Free the slot of a worker that has exited, and record its crash (in the master).

        An exit is a crash if the worker was not draining or was killed by a signal.

        Args:
            slot: the worker's slot.
            signal_number: the signal that killed it, 0 for none, None if unknown.

        Returns:
            The digests of the inputs that are blocked from now on.
        """
        blocked = []
        if self._states[slot] != State.DRAINING or signal_number:
            COUNT.pack_into(self._deaths, 0, self.deaths() + 1)
            is_external = self.quarantine.is_external_kill(signal_number)
            blocked = self.quarantine.record_crash(slot, is_external=is_external)
        self.quarantine.clear(slot)
        self._states[slot] = State.ABSENT
        self._write(slot, b"")
        return blocked

    def deaths(self) -> int:
        """Return the number of worker crashes: killed, crashed, or exited because a model thread died."""
        (deaths,) = COUNT.unpack_from(self._deaths)
        return int(deaths)

    def enter(self, slot: int) -> None:
        """Take over a claimed slot (in the worker, after the fork)."""
        self.slot = slot

    def mark(self, state: State) -> None:
        """Set this worker's state (on any thread); a draining worker never becomes ready again."""
        if self.state(self.slot) is State.DRAINING and state in (State.LOADING, State.READY):
            return
        self._states[self.slot] = state
        if state is State.READY:
            self._states[self._served] = 1

    def write_report(self, report: object) -> None:
        """Publish this worker's report: any JSON value, dropped if it exceeds ``REPORT_BYTES``."""
        text = json.dumps(report).encode()
        self._write(self.slot, text if len(text) <= REPORT_BYTES - SIZE.size else b"")

    def read_reports(self) -> dict[int, object]:
        """Return the reports by slot; slots without a complete report are left out."""
        reports = {}
        for slot in self.states():
            begin = slot * REPORT_BYTES
            (size,) = SIZE.unpack_from(self._reports, begin)
            try:
                reports[slot] = json.loads(
                    self._reports[begin + SIZE.size : begin + SIZE.size + size] or b"null"
                )
            except ValueError:  # it is being written
                reports[slot] = None
        return {slot: report for slot, report in reports.items() if report is not None}

    def _write(self, slot: int, text: bytes) -> None:
        """Write a report, its size last: readers see a torn one only if two writes follow at once."""
        begin = slot * REPORT_BYTES
        SIZE.pack_into(self._reports, begin, 0)
        self._reports[begin + SIZE.size : begin + SIZE.size + len(text)] = text
        SIZE.pack_into(self._reports, begin, len(text))

    def occupied(self) -> list[int]:
        """Return the slots that have a worker; cheaper than ``states``."""
        states = self._states[:SLOTS].rstrip(b"\0")
        return [slot for slot, state in enumerate(states) if state]

    def state(self, slot: int) -> State:
        """Return the state of a slot."""
        return State(self._states[slot])

    def states(self) -> dict[int, State]:
        """Return the state of every slot that has a worker."""
        return {slot: State(self._states[slot]) for slot in range(SLOTS) if self._states[slot]}

    def may_accept(self) -> bool:
        """Return whether this worker may accept connections now.

        * A ready worker may.
        * Before any worker was ever ready (the first start) all may, and answer 503: better than a
          connection that hangs.
        * Afterwards a loading worker may not: connections wait in the socket's backlog for a ready
          worker. So neither a reload nor a killed worker costs a request.
        * A failed worker may if no other worker is ready or loading, to answer 503.
        """
        own = self.state(self.slot)
        if own is State.READY or not self.has_served():
            return True
        hope = any(state in (State.READY, State.LOADING) for state in self.states().values())
        return own is State.FAILED and not hope

    def has_served(self) -> bool:
        """Return whether any worker was ever ready."""
        return bool(self._states[self._served])

    def has_substitute(self) -> bool:
        """Return whether this worker is not ready and another one is: connections should go there."""
        others = (state for slot, state in self.states().items() if slot != self.slot)
        return self.state(self.slot) is not State.READY and State.READY in others

    def may_get_substitute(self) -> bool:
        """Return whether another worker is ready or loading (it may be replacing its model just now)."""
        others = {state for slot, state in self.states().items() if slot != self.slot}
        return bool(others & {State.READY, State.LOADING})


# Created at import, because the memory must be mapped before Gunicorn's first fork and all modules of a
# process must share one. In a process that never forks it costs no memory: nobody touches its pages.
scoreboard = Scoreboard()
