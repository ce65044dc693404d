"""Trials: inputs that may have ended a worker are processed one at a time (see ``app/quarantine.py``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gevent.lock import BoundedSemaphore

from app.errors import ServingError
from app.quarantine import Quarantine
from app.serving.thread_pool import NeedsTrial

T = TypeVar("T")

CLIENTS_FAULTS = range(400, 499)  # the input was processed and rejected; 499 is a disconnect


class Trials:
    """Runs attempts on the hub, those on suspects one at a time."""

    def __init__(self, quarantine: Quarantine, slot: int) -> None:
        self._quarantine = quarantine
        self._slot = slot
        self._turn = BoundedSemaphore()

    def run(self, attempt: Callable[[bool], T]) -> T:
        """Run an attempt, and again as a trial if it raises NeedsTrial; return or raise its outcome.

        A suspect that is answered, or rejected as a client's error, is cleared. One whose deadline passes
        stays a suspect.

        Args:
            attempt: called with whether it is a trial.
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
