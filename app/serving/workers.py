"""The workers of this server: their reports, exchanged through the scoreboard, and their limits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TypedDict, cast

from app.control.manifest import Key
from app.scoreboard import Scoreboard
from app.serving.model import About, Servable
from app.settings import Settings
from app.system.machine import count_cores


class WorkerReport(TypedDict):
    """Report of one worker to the others; ``failed`` has (model, version) of those that it could not load."""

    pid: int
    live: list[About]
    failed: list[tuple[str, int]]


class Workers:
    """Reads the states and reports of all workers. Methods run on the hub."""

    def __init__(self, settings: Settings, scoreboard: Scoreboard, planned: int) -> None:
        self._settings = settings
        self._planned = planned
        self._scoreboard = scoreboard

    @property
    def device(self) -> str:
        """The setting ``SERVING_DEVICE``."""
        return self._settings.device

    def report(self, live: Mapping[Key, Servable], failed: Iterable[Key]) -> None:
        """Publish the report of this worker."""
        report: WorkerReport = {
            "pid": os.getpid(),
            "live": [live[key].model.about() for key in sorted(live)],
            "failed": [(name, version) for name, version, *_ in failed],
        }
        self._scoreboard.write_report(report)

    def states(self) -> dict[int, str]:
        """Return the state of every worker, by slot."""
        return {slot: state.name.lower() for slot, state in self._scoreboard.states().items()}

    def reports(self) -> dict[int, WorkerReport]:
        """Return the report of each worker, by slot."""
        return cast("dict[int, WorkerReport]", self._scoreboard.read_reports())

    def live(self) -> dict[int, dict[str, list[int]]]:
        """Return the live versions of each worker by model, by slot; workers without any are left out."""
        found: dict[int, dict[str, list[int]]] = {}
        for slot, report in self.reports().items():
            for about in report["live"]:
                found.setdefault(slot, {}).setdefault(about["model"], []).append(about["version"])
        return found

    def deaths(self) -> int:
        """Return the number of workers that have died since the start: killed, crashed, or without model thread."""
        return self._scoreboard.deaths()

    def limits(self) -> dict[str, float]:
        """Return the limits of settings and machine that bound the throughput, by name of the metric."""
        settings = self._settings
        return {
            "workers_planned": self._planned,
            "cores": count_cores(),
            "decode_threads": settings.decode_pool_size,
            "queue_limit": settings.max_queue,
            "batch_wait_limit_seconds": settings.max_wait_ms / 1000,
            "deadline_seconds": settings.deadline_s,
        }
