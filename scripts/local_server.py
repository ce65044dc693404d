"""The whole server (supervisord, nginx, Gunicorn) on free ports and in a runtime folder of its own.

The benchmark, ``scripts/chaos`` and ``scripts/test-gpu`` measure and disturb it; a server that runs from the
same checkout goes on beside it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

from app.settings import PREFIX, ROOT

READY_WITHIN_S = 90.0
STOPPED_WITHIN_S = 90.0
POLL_S = 0.05


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class LocalServer:
    """A server with the project's own configuration, chosen by environment variables only.

    Attributes:
        run: its runtime folder.
        url: its URL through nginx.
        direct_url: its URL at Gunicorn.
        environment: the environment of its processes.
        process: supervisord, or the command that was started instead; None before the start.
    """

    def __init__(self, run: Path, application: str = "", **settings: str) -> None:
        """Create the runtime folder.

        Args:
            run: the runtime folder.
            application: the WSGI application (``module:name``) to serve instead of the project's.
            settings: settings without their prefix, as text: ``workers="2"``.
        """
        run.mkdir(parents=True, exist_ok=True)
        port, direct_port = free_port(), free_port()
        self.run = run
        self.url = f"http://127.0.0.1:{port}"
        self.direct_url = f"http://127.0.0.1:{direct_port}"
        own = {"run": str(run), "host": "127.0.0.1", "port": str(port)}
        own |= {"direct_port": str(direct_port)} | settings
        inherited = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
        self.environment = inherited | {
            f"{PREFIX}{name.upper()}": text for name, text in own.items()
        }
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
        if application:
            self.environment["GUNICORN_APP"] = application
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self, command: Sequence[str] = ("supervisord", "-c", "conf/supervisor.conf")
    ) -> LocalServer:
        """Start supervisord, or another command in the project's root; its output goes to ``console``."""
        if command[0] == "supervisord" and os.getuid() == 0:
            command = [*command, "--user", "root"]
        with (self.run / "console").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log
            )
        return self

    @property
    def pid(self) -> int:
        """Process id of the started command; 0 before the start and after the stop."""
        return self.process.pid if self.process else 0

    def wait_ready(self, workers: int = 1) -> LocalServer:
        """Wait until that many workers have a model.

        Raises:
            TimeoutError: they have none within 90 s; the text has the end of the console.
        """
        until = time.monotonic() + READY_WITHIN_S
        while self.ready_workers() < workers:
            if time.monotonic() > until:
                text = f"{workers} workers are not ready within {READY_WITHIN_S:g} s"
                raise TimeoutError(f"{text}:\n{self.console()[-4000:]}")
            time.sleep(POLL_S)
        return self

    def ready_workers(self) -> int:
        """Return the number of workers that have a model."""
        states = self.readiness().get("workers", {})
        return sum(state == "ready" for state in states.values())

    def readiness(self) -> dict[str, Any]:
        """Return the answer of /readyz; empty if there is none."""
        try:
            answer: dict[str, Any] = requests.get(f"{self.url}/readyz", timeout=30).json()
        except (requests.RequestException, ValueError):
            return {}
        return answer

    def control(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run supervisorctl."""
        address = f"unix://{self.run}/supervisor.sock"
        command = ["supervisorctl", "-c", "conf/supervisor.conf", "-s", address, *words]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def console(self) -> str:
        """Return the output of the started command."""
        return (self.run / "console").read_text(errors="replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the complete JSON lines of Gunicorn's log."""
        path = self.run / "gunicorn.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it and wait for its end. Raises subprocess.TimeoutExpired after 90 s."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(timeout=STOPPED_WITHIN_S)
        self.process = None

    def remove(self) -> None:
        """Stop it and delete its runtime folder."""
        self.stop()
        shutil.rmtree(self.run, ignore_errors=True)
