"""A step's own server: complete, or only Gunicorn and the watcher if nginx is not installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from app.settings import ROOT
from scripts.gpu.trial import Trial
from scripts.local_server import LocalServer

PICTURE = ROOT / "samples" / "street.jpg"


class GpuServer:
    """A server that a step may kill, reload and publish to.

    Args:
        trial: the step.
        settings: ``SERVING_*`` settings, without prefix.

    Attributes:
        url: its base URL.
        has_gateway: nginx is in front and retries the requests of a killed worker.
    """

    def __init__(self, trial: Trial, **settings: str) -> None:
        folder = trial.folder / f"server-{time.monotonic_ns()}"
        self.server = LocalServer(folder / "run", **{"device": trial.device} | settings)
        self.has_gateway = bool(shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"))
        self.has_gateway &= bool(shutil.which("supervisord", path=self.server.environment["PATH"]))
        self.url = self.server.url if self.has_gateway else self.server.direct_url
        self._watcher: subprocess.Popen[bytes] | None = None

    def start(self) -> GpuServer:
        """Start it without waiting until it is ready."""
        if self.has_gateway:
            self.server.start()
            return self
        self.server.start(["scripts/run-gunicorn"])
        self._watcher = subprocess.Popen(
            [sys.executable, "-m", "app.commands.watch"],
            cwd=ROOT,
            env=self.server.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return self

    def stop(self) -> None:
        """Stop it."""
        if self._watcher is not None:
            self._watcher.terminate()
            self._watcher.wait(timeout=30)
        try:
            self.server.stop(signal.SIGTERM)
        except subprocess.TimeoutExpired:
            if self.server.process is not None:
                self.server.process.kill()

    @property
    def master(self) -> int:
        """PID of Gunicorn's master."""
        if not self.has_gateway:
            return self.server.process.pid if self.server.process else 0
        return int(self.server.control("pid", "gunicorn").stdout)

    def workers(self) -> list[int]:
        """Return the workers' PIDs."""
        try:
            master = self.master
            children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        except (OSError, ValueError):
            return []
        return [int(pid) for pid in children if "gunicorn" in command_of(int(pid))]

    def readiness(self) -> dict[str, Any]:
        """Return the JSON of /readyz, or an empty object if there is no answer."""
        try:
            answer: dict[str, Any] = requests.get(f"{self.url}/readyz", timeout=10).json()
        except (requests.RequestException, ValueError):
            return {}
        return answer

    def ready(self) -> int:
        """Return the number of ready workers."""
        states = self.readiness().get("workers", {})
        return sum(state == "ready" for state in states.values())

    def live(self) -> list[list[int]]:
        """Return the versions that each worker has live."""
        live = self.readiness().get("live", {})
        return [versions for models in live.values() for versions in models.values()]

    def serves_only(self, version: int) -> bool:
        """Return whether one worker is ready and that version is all it has live."""
        return self.live() == [[version]]

    def new_workers(self, known: set[int]) -> set[int]:
        """Return the PIDs of the workers that are not among ``known``."""
        return set(self.workers()) - known

    def are_gone(self, pids: set[int]) -> bool:
        """Return whether none of these workers is left."""
        return pids.isdisjoint(self.workers())

    def predict(self) -> requests.Response:
        """Request an image's labels."""
        with PICTURE.open("rb") as file:
            return requests.post(f"{self.url}/model_predict", files={"image": file}, timeout=60)

    def draw(self) -> requests.Response:
        """Request a heat map."""
        with PICTURE.open("rb") as file:
            return requests.post(f"{self.url}/predict/heatmap", files={"image": file}, timeout=60)

    def planned(self) -> list[str]:
        """Return the log lines of the plan."""
        lines = [line for line in self.lines() if line.get("logger") == "plan"]
        return [str(line.get("message", line)) for line in lines]

    def lines(self) -> list[dict[str, Any]]:
        """Return the log's lines; without a gateway they go to the console."""
        if self.has_gateway:
            lines: list[dict[str, Any]] = self.server.log_lines()
            return lines
        import json  # noqa: PLC0415

        text = self.server.console().splitlines()
        return [json.loads(line) for line in text if line.startswith("{") and line.endswith("}")]

    def last_errors(self) -> str:
        """Return the last error messages of its log."""
        bad = [line for line in self.lines() if line.get("level") in ("ERROR", "CRITICAL")]
        return "; ".join(str(line.get("message", "")) for line in bad[-3:])[:600]


def command_of(pid: int) -> str:
    """Return a process's command line, or "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


@contextmanager
def serving(trial: Trial, workers: int, **settings: str) -> Iterator[GpuServer]:
    """Run a server until the body ends; record a fault if its workers do not become ready in time."""
    server = GpuServer(trial, workers=str(workers), **settings).start()
    try:
        began = time.monotonic()
        if not trial.wait(lambda: server.ready() >= workers, 75, f"{workers} workers ready"):
            trial.faults.append(f"its log says: {server.last_errors()}")
        trial.facts["ready_s"] = round(time.monotonic() - began, 1)
        yield server
    finally:
        server.stop()


@contextmanager
def loaded(server: GpuServer, clients: int) -> Iterator[Counter[str]]:
    """Send predictions and heat maps from several clients during the body; yields the count of each status."""
    going = threading.Event()
    going.set()
    seen: Counter[str] = Counter()

    def ask(number: int) -> None:
        while going.is_set():
            try:
                answer = server.draw() if number % 4 == 3 else server.predict()
                seen[str(answer.status_code)] += 1
            except requests.RequestException as error:
                seen[type(error).__name__] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        going.clear()
        for thread in threads:
            thread.join()
