"""Run the whole server as an operator does: supervisord, nginx and Gunicorn, on their own ports."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import requests

from tests.helpers import ROOT, wait_until

LINKED = (
    ".venv",
    "app",
    "samples",
    "scripts",
    "tests",
    "requirements.txt",
    "requirements-optimize.txt",
)
READY_WITHIN_S = 90


def free_port() -> int:
    """Return a free port, below those that the kernel assigns to connections meanwhile."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port


class Server:
    """supervisord with the project's own configuration, in its own folder.

    The configuration is a copy, which a test may edit; everything else is the project's own.

    Attributes:
        folder: where it runs; ``folder/run`` has its logs and sockets.
        url: the way through nginx.
        direct_url: the way past nginx.
    """

    def __init__(self, folder: Path, wsgi_app: str = "", **settings: str) -> None:
        """Lay out the folder.

        Args:
            folder: where it runs.
            wsgi_app: a module of tests/ that serves instead of the project's own application.
            settings: environment variables without their prefix.
        """
        self.folder = folder
        for name in LINKED:
            (folder / name).symlink_to(ROOT / name)
        (folder / "run").mkdir()
        shutil.copytree(
            ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("__pycache__")
        )
        port, direct_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.direct_url = f"http://127.0.0.1:{direct_port}"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SERVING_")
        }
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
        self.environment["SERVING_RUN"] = str(folder / "run")
        self.environment["SERVING_PORT"] = str(port)
        self.environment["SERVING_DIRECT_PORT"] = str(direct_port)
        if wsgi_app:
            self.environment["GUNICORN_APP"] = wsgi_app
        self.environment |= {f"SERVING_{name.upper()}": value for name, value in settings.items()}
        self.process: subprocess.Popen | None = None

    def start(
        self,
        command: Sequence[str] = ("supervisord", "-c", "conf/supervisor.conf"),
        stdout: IO | int | None = None,
    ) -> "Server":
        """Start supervisord; it is not ready yet. Without another standard output, ``console`` shows it."""
        if command[0] == "supervisord" and os.getuid() == 0:
            command = [*command, "--user", "root"]
        # A shell's background job ignores SIGINT, and its children would.
        command = ["env", "--default-signal=INT", *command]
        with (self.folder / "run" / "console").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=stdout or log, stderr=log
            )
        return self

    def wait_ready(self, workers: int = 1) -> "Server":
        """Wait until that many workers have a model."""
        try:
            wait_until(lambda: self.ready_workers() >= workers, READY_WITHIN_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.console()[-4000:]}") from error
        return self

    def ready_workers(self) -> int:
        """Return how many workers have a model."""
        states = self.readiness().get("workers", {})
        return sum(state == "ready" for state in states.values())

    def readiness(self) -> dict:
        """Return the answer of /readyz, or nothing without one."""
        try:
            return requests.get(f"{self.url}/readyz", timeout=30).json()
        except (requests.RequestException, ValueError):
            return {}

    def predict(self, data: bytes, **options) -> requests.Response:
        """Post an image through nginx."""
        options = {"timeout": 60} | options
        return requests.post(f"{self.url}/model_predict", files={"image": data}, **options)

    def control(self, *words: str) -> subprocess.CompletedProcess:
        """Run supervisorctl as an operator does."""
        return self.run("supervisorctl", "-c", "conf/supervisor.conf", *words)

    def run(self, *command: str) -> subprocess.CompletedProcess:
        """Run a command in the server's folder and return its output."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def console(self) -> str:
        """Return the output on the terminal."""
        return (self.folder / "run" / "console").read_text(errors="replace")

    def log(self, name: str) -> str:
        """Return a log's complete lines; the last one may still be on its way."""
        path = self.folder / "run" / f"{name}.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return text[: text.rfind("\n") + 1]

    def log_lines(self, name: str = "gunicorn") -> list[dict]:
        """Return a log's JSON lines."""
        lines = self.log(name).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def lines_of(self, request_id: str, name: str = "gunicorn") -> list[dict]:
        """Return a request's lines in a log; they come a moment after its answer."""

        def find_lines() -> list[dict]:
            return [line for line in self.log_lines(name) if line.get("request_id") == request_id]

        wait_until(find_lines, 10, f"a line of {request_id} in {name}.log")
        return find_lines()

    def worker_pids(self) -> list[int]:
        """Return the Gunicorn workers' process ids; none while there is no master.

        Without supervisorctl: it takes a third of a second of the processor, and tests ask in loops.
        """
        supervisor = int((self.folder / "run" / "supervisord.pid").read_text())
        return [
            worker
            for program in children(supervisor)
            if b"conf/gunicorn.conf.py" in command_line(program)
            for worker in children(program)
        ]

    def kill_worker(self, pid: int) -> None:
        """Kill a worker as the kernel does if memory runs out."""
        os.kill(pid, signal.SIGKILL)

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Stop as Ctrl-C does, or as ``docker stop`` with SIGTERM; return the exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(how)
        status = self.process.wait(timeout=90)
        self.process = None
        return status

    def remove(self) -> None:
        """Kill every process, which takes no time, and delete the folder."""
        if self.process is not None:
            for pid in [self.process.pid, *descendants(self.process.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)  # supervisord first: it replaces what it misses
            self.process.wait(timeout=30)
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)


def descendants(pid: int) -> list[int]:
    """Return the process ids of all children and their children, parents first."""
    return [found for child in children(pid) for found in (child, *descendants(child))]


def children(pid: int) -> list[int]:
    """Return the process ids of a process's children; none if it has ended."""
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []


def command_line(pid: int) -> bytes:
    """Return a process's program and arguments; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
