"""Trials: inputs that may have ended a worker are processed one at a time (see ``app/quarantine.py``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gevent.lock import BoundedSemaphore

from app.errors import ServingError
from app.quarantine import Quarantine
from app.serving.thread_pool import NeedsTrial

T = TypeVar("T")

CLIENTS_FAULTS = range(400, 499)  # the input was looked at, and refused for what it is; 499 hung up


class Trials:
    """Runs attempts on the hub, those on suspects one after the other."""

    def __init__(self, quarantine: Quarantine, slot: int) -> None:
        """Start with nobody on trial in the worker of a slot."""
        self._quarantine = quarantine
        self._slot = slot
        self._turn = BoundedSemaphore()

    def run(self, attempt: Callable[[bool], T]) -> T:
        """Return or raise what an attempt does; repeat it as a trial where it raises NeedsTrial.

        A suspect that comes through is cleared: it was answered, or refused for what it is. One whose
        time has run out stays a suspect.

        Args:
            attempt: takes whether it is a trial.
        """
        try:
            return attempt(False)
        except NeedsTrial as suspect:
            digest = suspect.digest
        with self._turn:
            self._quarantine.set_trial(self._slot, digest)
            try:
                result = attempt(True)
            except ServingError as error:
                if error.status in CLIENTS_FAULTS:
                    self._quarantine.clear_suspect(digest)
                raise
            finally:
                self._quarantine.set_trial(self._slot, b"")
            self._quarantine.clear_suspect(digest)
            return result
