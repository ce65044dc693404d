"""The scoreboard: which of this machine's workers have a model, kept in memory that all of them share.

Gunicorn's master makes it before the first fork. Each worker holds one *slot*, the lowest that is
free, and writes its own state there; a slot survives its worker, so the one that replaces a dead
worker takes the same number.

The scoreboard answers one question: may this worker take connections? All workers accept on the same
socket, so one that cannot answer would take requests away from those that can.
"""

from __future__ import annotations

import enum
import json
import mmap
import struct
from collections.abc import Collection

from app.quarantine import Quarantine

NOTE_BYTES = 16 * 1024  # what one worker may tell the others
SIZE = struct.Struct("I")
COUNT = struct.Struct("Q")
SLOTS = 256  # at most 64 workers, and while Gunicorn reloads there are twice as many


class State(enum.IntEnum):
    """The life of a worker's model."""

    ABSENT = 0  # no worker in this slot
    LOADING = 1
    READY = 2
    FAILED = 3  # the load failed or the model thread died; the log says why
    DRAINING = 4  # shutting down: finishes what it has, takes nothing new


class Scoreboard:
    """The states of all the workers, one byte each, and a note of each: which versions it has live.

    A byte or a note is written by its own worker, or by the master where no worker holds it, so no
    lock is needed.

    Attributes:
        slot: this process's own slot; ``enter`` sets it, in the worker.
        quarantine: the inputs that have ended workers, and what each worker has in hand.
    """

    def __init__(self) -> None:
        """Map memory that the children of this process will share."""
        self._states = mmap.mmap(-1, SLOTS + 1)
        self._notes = mmap.mmap(-1, SLOTS * NOTE_BYTES)  # untouched pages cost no memory
        self._deaths = mmap.mmap(-1, COUNT.size)
        self._served = SLOTS  # index of the byte that says whether any worker was ever ready
        self.slot = 0
        self.quarantine = Quarantine(SLOTS)

    def claim(self, placements: int = 1, taken: Collection[int] = ()) -> int:
        """Take the lowest free slot that has a free seat (in the master, before a fork).

        Args:
            placements: how many the plan has; a slot's seat is its remainder by that.
            taken: the seats that living workers of the plan have.

        Raises:
            RuntimeError: every slot is taken.
        """
        free = [slot for slot in range(SLOTS) if self._states[slot] == State.ABSENT]
        if not free:
            raise RuntimeError(f"all {SLOTS} worker slots are taken")
        slot = next((slot for slot in free if slot % placements not in taken), free[0])
        self._states[slot] = State.LOADING
        return slot

    def give_back(self, slot: int) -> None:
        """Free a slot that no worker came to hold (in the master, after a fork that failed)."""
        self._states[slot] = State.ABSENT

    def release(self, slot: int, signal_number: int | None = 0) -> list[bytes]:
        """Release a slot (in the master, after its worker ended).

        A worker has died where it was not draining, or where a signal ended it.

        Args:
            slot: the worker's.
            signal_number: the signal that ended it, 0 for none; None where that is not known.

        Returns:
            The digests of the inputs that are convicted now.
        """
        convicted = []
        if self._states[slot] != State.DRAINING or signal_number:
            COUNT.pack_into(self._deaths, 0, self.deaths() + 1)
            outside = self.quarantine.was_outside(signal_number)
            convicted = self.quarantine.charge(slot, outside=outside)
        self.quarantine.clear(slot)
        self._states[slot] = State.ABSENT
        self._write(slot, b"")
        return convicted

    def deaths(self) -> int:
        """Return how many workers have died: killed, crashed, or ended by a model thread that died."""
        (deaths,) = COUNT.unpack_from(self._deaths)
        return int(deaths)

    def enter(self, slot: int) -> None:
        """Take a claimed slot as one's own (in the worker, after the fork)."""
        self.slot = slot

    def mark(self, state: State) -> None:
        """Write one's own state (in the worker, on any thread); one that drains does not come back to serve."""
        if self.state(self.slot) is State.DRAINING and state in (State.LOADING, State.READY):
            return
        self._states[self.slot] = state
        if state is State.READY:
            self._states[self._served] = 1

    def tell(self, note: object) -> None:
        """Write one's own note for the others (in the worker); anything that JSON can hold, up to ``NOTE_BYTES``."""
        text = json.dumps(note).encode()
        self._write(self.slot, text if len(text) <= NOTE_BYTES - SIZE.size else b"")

    def notes(self) -> dict[int, object]:
        """Return the note of every slot that has one."""
        found = {}
        for slot in self.states():
            begin = slot * NOTE_BYTES
            (size,) = SIZE.unpack_from(self._notes, begin)
            try:
                found[slot] = json.loads(
                    self._notes[begin + SIZE.size : begin + SIZE.size + size] or b"null"
                )
            except ValueError:  # it is being written
                found[slot] = None
        return {slot: note for slot, note in found.items() if note is not None}

    def _write(self, slot: int, text: bytes) -> None:
        """Write a note; its size last, so that a reader finds no half of it but where two writes follow at once."""
        begin = slot * NOTE_BYTES
        SIZE.pack_into(self._notes, begin, 0)
        self._notes[begin + SIZE.size : begin + SIZE.size + len(text)] = text
        SIZE.pack_into(self._notes, begin, len(text))

    def occupied(self) -> list[int]:
        """Return the slots that have a worker; quicker than ``states``."""
        states = self._states[:SLOTS].rstrip(b"\0")
        return [slot for slot, state in enumerate(states) if state]

    def state(self, slot: int) -> State:
        """Return the state of a slot."""
        return State(self._states[slot])

    def states(self) -> dict[int, State]:
        """Return the state of every slot that has a worker."""
        return {slot: State(self._states[slot]) for slot in range(SLOTS) if self._states[slot]}

    def may_accept(self) -> bool:
        """Tell whether this worker may take connections now.

        * A worker with a model may.
        * Before any worker ever had one (the first start) all may, and answer 503: better than a
          connection that hangs.
        * Later a loading worker may not: connections wait in the socket's backlog for a worker that
          has a model. So neither a reload nor a killed worker costs a request.
        * A worker whose load failed may only where no other is ready or still loading, to answer
          503.
        """
        own = self.state(self.slot)
        if own is State.READY or not self.has_served():
            return True
        hope = any(state in (State.READY, State.LOADING) for state in self.states().values())
        return own is State.FAILED and not hope

    def has_served(self) -> bool:
        """Return whether any worker ever had a model."""
        return bool(self._states[self._served])

    def has_substitute(self) -> bool:
        """Return whether this worker has no model and another one has: connections are to go there."""
        others = (state for slot, state in self.states().items() if slot != self.slot)
        return self.state(self.slot) is not State.READY and State.READY in others

    def may_get_substitute(self) -> bool:
        """Return whether another worker has a model, or is loading one: it may have swapped its own just now."""
        others = {state for slot, state in self.states().items() if slot != self.slot}
        return bool(others & {State.READY, State.LOADING})


scoreboard = Scoreboard()
