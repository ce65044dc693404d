"""The workers together: what each has live, told to the others through the scoreboard, and what they may use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TypedDict, cast

from app.control.plan import planned_workers
from app.control.scanner import Key
from app.scoreboard import Scoreboard
from app.serving.model import About, Servable
from app.settings import Settings
from app.system.machine import count_cores


class WorkerReport(TypedDict):
    """What a worker tells the others; ``failed`` has (model, version) of those that it could not load."""

    pid: int
    live: list[About]
    failed: list[tuple[str, int]]


class Workers:
    """All workers of this machine, as any one of them sees them. Methods run on the hub."""

    def __init__(self, settings: Settings, scoreboard: Scoreboard) -> None:
        """Look at the workers of a scoreboard."""
        self._settings = settings
        self._scoreboard = scoreboard

    @property
    def device(self) -> str:
        """What the workers may run on: ``SERVING_DEVICE``."""
        return self._settings.device

    def tell(self, live: Mapping[Key, Servable], failed: Iterable[Key]) -> None:
        """Tell the others what this worker has."""
        note: WorkerReport = {
            "pid": os.getpid(),
            "live": [live[key].model.about() for key in sorted(live)],
            "failed": [(name, version) for name, version, *_ in failed],
        }
        self._scoreboard.tell(note)

    def states(self) -> dict[int, str]:
        """Return every worker's state by its slot."""
        return {slot: state.name.lower() for slot, state in self._scoreboard.states().items()}

    def notes(self) -> dict[int, WorkerReport]:
        """Return what each worker has told, by its slot."""
        return cast("dict[int, WorkerReport]", self._scoreboard.notes())

    def live(self) -> dict[int, dict[str, list[int]]]:
        """Return each worker's live versions by model, by its slot; those that have none are left out."""
        found: dict[int, dict[str, list[int]]] = {}
        for slot, note in self.notes().items():
            for about in note["live"]:
                found.setdefault(slot, {}).setdefault(about["model"], []).append(about["version"])
        return found

    def deaths(self) -> int:
        """Return how many workers have died since the start: killed, crashed, or without their model thread."""
        return self._scoreboard.deaths()

    def limits(self) -> dict[str, float]:
        """Return the limits of settings and machine that explain how fast the workers can be, by name."""
        settings = self._settings
        return {
            "workers_planned": planned_workers(),
            "cores": count_cores(),
            "decode_threads": settings.decode_pool_size,
            "queue_limit": settings.max_queue,
            "batch_wait_limit_seconds": settings.max_wait_ms / 1000,
            "deadline_seconds": settings.deadline_s,
        }
