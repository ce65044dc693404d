"""A server of its own for a step: whole, or Gunicorn and the follower alone where nginx is missing."""

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

import requests

from app.settings import ROOT
from scripts.gpu.trial import Trial
from scripts.local_server import LocalServer

PICTURE = ROOT / "samples" / "street.jpg"


class GpuServer:
    """A server that a step may kill, reload and fill with versions.

    Attributes:
        url: where it answers.
        has_gateway: nginx is in front, so that no request is lost with its worker.
    """

    def __init__(self, trial: Trial, **settings: str) -> None:
        """Lay out its folder; nothing runs yet."""
        folder = trial.folder / f"server-{time.monotonic_ns()}"
        self.server = LocalServer(folder / "run", **{"device": trial.device} | settings)
        self.has_gateway = bool(shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"))
        self.has_gateway &= bool(shutil.which("supervisord", path=self.server.environment["PATH"]))
        self.url = self.server.url if self.has_gateway else self.server.direct_url
        self._follower: subprocess.Popen | None = None

    def start(self) -> GpuServer:
        """Start it; it is not ready yet."""
        if self.has_gateway:
            self.server.start()
            return self
        self.server.start(["scripts/run-gunicorn"])
        self._follower = subprocess.Popen(
            [sys.executable, "-m", "app.commands.watch"],
            cwd=ROOT,
            env=self.server.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return self

    def stop(self) -> None:
        """Stop it."""
        if self._follower is not None:
            self._follower.terminate()
            self._follower.wait(timeout=30)
        try:
            self.server.stop(signal.SIGTERM)
        except subprocess.TimeoutExpired:
            if self.server.process is not None:
                self.server.process.kill()

    @property
    def master(self) -> int:
        """Gunicorn's master."""
        if not self.has_gateway:
            return self.server.process.pid if self.server.process else 0
        return int(self.server.control("pid", "gunicorn").stdout)

    def workers(self) -> list[int]:
        """Return the workers' process ids."""
        try:
            master = self.master
            children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        except (OSError, ValueError):
            return []
        return [int(pid) for pid in children if "gunicorn" in command_of(int(pid))]

    def readiness(self) -> dict:
        """Return what /readyz answers, or nothing where there is no answer."""
        try:
            answer: dict = requests.get(f"{self.url}/readyz", timeout=10).json()
        except (requests.RequestException, ValueError):
            return {}
        return answer

    def ready(self) -> int:
        """Return how many workers have a model."""
        states = self.readiness().get("workers", {})
        return sum(state == "ready" for state in states.values())

    def live(self) -> list[list[int]]:
        """Return the versions that each worker has live."""
        live = self.readiness().get("live", {})
        return [versions for models in live.values() for versions in models.values()]

    def predict(self) -> requests.Response:
        """Ask for a picture's labels."""
        with PICTURE.open("rb") as file:
            return requests.post(f"{self.url}/model_predict", files={"image": file}, timeout=60)

    def draw(self) -> requests.Response:
        """Ask for a heat map."""
        with PICTURE.open("rb") as file:
            return requests.post(f"{self.url}/predict/heatmap", files={"image": file}, timeout=60)

    def planned(self) -> list[str]:
        """Return the lines of the plan."""
        lines = [line for line in self.lines() if line.get("logger") == "plan"]
        return [str(line.get("message", line)) for line in lines]

    def lines(self) -> list[dict]:
        """Return the log's lines; without a gateway they are on the console."""
        if self.has_gateway:
            return self.server.log_lines()
        import json  # noqa: PLC0415

        text = self.server.console().splitlines()
        return [json.loads(line) for line in text if line.startswith("{") and line.endswith("}")]

    def told(self) -> str:
        """Return what its log said last of errors, for a fault's sentence."""
        bad = [line for line in self.lines() if line.get("level") in ("ERROR", "CRITICAL")]
        return "; ".join(str(line.get("message", "")) for line in bad[-3:])[:600]


def command_of(pid: int) -> str:
    """Return a process's command line, or nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


@contextmanager
def serving(trial: Trial, workers: int, **settings: str) -> Iterator[GpuServer]:
    """Run a server with so many workers that are all ready; note a fault where they do not become it."""
    server = GpuServer(trial, workers=str(workers), **settings).start()
    try:
        began = time.monotonic()
        if not trial.wait(lambda: server.ready() >= workers, 75, f"{workers} workers ready"):
            trial.faults.append(f"its log says: {server.told()}")
        trial.facts["ready_s"] = round(time.monotonic() - began, 1)
        yield server
    finally:
        server.stop()


@contextmanager
def loaded(server: GpuServer, clients: int) -> Iterator[Counter[str]]:
    """Have clients ask for labels and heat maps while the block runs; yields how often each status came."""
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
