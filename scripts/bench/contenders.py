"""The contenders of the benchmark, and how each is started."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

from app.settings import ROOT
from app.system.machine import count_cores
from scripts.bench import CONSTANT
from scripts.bench.form import IMAGE, TRITON, Form, multipart
from scripts.bench.load import Running, family
from scripts.local_server import LocalServer, free_port

READY_WITHIN_S = 120


@dataclass(frozen=True)
class Contender:
    """One that takes part.

    Attributes:
        name: for ``--contenders`` and the table.
        what: a sentence about it.
        start: a context in which it runs, given one picture to wait with until it answers.
        needs: what a path below the project must match, or it is left out.
    """

    name: str
    what: str
    start: Callable[[Path], AbstractContextManager[Running]]
    needs: str = ""


@contextmanager
def ours(picture: Path, constant: bool = False, **settings: str) -> Iterator[Running]:
    """Run this server as an operator does: supervisord, nginx, Gunicorn, in a runtime folder of its own.

    Args:
        picture: the picture to wait with until it is answered.
        constant: serve ``scripts.bench.constant``, whose logits cost nothing.
        settings: the server's settings.

    Raises:
        WrongModelError: the server serves another model than the one asked for.
    """
    application = "scripts.bench.constant:app" if constant else ""
    # Speeds are measured, whatever agrees with fp32.
    server = LocalServer(
        Path(tempfile.mkdtemp(prefix="benchmark-")), application, insist="on", **settings
    )
    started = time.monotonic()
    server.start()
    try:
        url = f"{server.url}/model_predict"
        running = wait_for_answer(url, server.pid, IMAGE, picture, started)
        check_model(server.url, constant)
        yield running
    finally:
        server.remove()


class WrongModelError(Exception):
    """The server that was started serves another model than the one to be measured."""


def check_model(url: str, constant: bool) -> None:
    """Raise WrongModelError unless the server has the constant model, or a real one."""
    served = requests.get(url, headers={"Accept": "application/json"}, timeout=60).json()
    if (served["model"] == CONSTANT) != constant:
        expected = "the constant model" if constant else "a real model"
        raise WrongModelError(f"{url} serves {served['model']!r} instead of {expected}")


@contextmanager
def program(
    picture: Path,
    command: list[str],
    path: str = "/model_predict",
    form: Form = IMAGE,
    **environment: str,
) -> Iterator[Running]:
    """Run a server of one command; ``{port}`` in it is replaced.

    What it writes to its home or for a while goes to a folder that is removed after it.
    """
    port = free_port()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [word.format(port=port) for word in command],
            cwd=ROOT,
            env=os.environ | {"HOME": folder, "TMPDIR": folder} | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{port}{path}"
            yield wait_for_answer(url, process.pid, form, picture, started)
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server and all of its processes: some roots leave theirs behind (TorchServe its Java)."""
    members = family(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=40)  # Triton gives itself 30 seconds
    for member in members:
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    for member in psutil.wait_procs(members, timeout=5)[1]:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def wait_for_answer(url: str, pid: int, form: Form, picture: Path, started: float) -> Running:
    """Wait until a picture is answered."""
    body = form.body(picture.read_bytes())
    while time.monotonic() < started + READY_WITHIN_S:
        with suppress(requests.RequestException):
            answer = requests.post(url, data=body, headers=form.headers, timeout=60)
            if answer.status_code == 200:
                return Running(url, pid, form, answer.text, time.monotonic() - started)
        time.sleep(0.05)
    raise TimeoutError(f"{url} gave no answer within {READY_WITHIN_S} s")


GUNICORN = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-b", "127.0.0.1:{port}"]
USUAL = "scripts.bench.usual_way:app"
ONE_THREAD = {"BENCH_THREADS": "1", "OMP_NUM_THREADS": "1", "BENCH_WORKERS": str(count_cores())}
NO_MODEL = {**ONE_THREAD, "BENCH_MODEL": "constant"}
WORKERS = ["-w", str(count_cores())]


@dataclass(frozen=True)
class Peer:
    """Another server: its command after ``python -m``, where it answers and in which form.

    ``venv`` has its Python, and ``needs`` is what must be installed there.
    """

    name: str
    command: str
    path: str
    needs: str
    form: Form = IMAGE
    venv: str = ".venv-bench"

    def contender(self, name: str, what: str, environment: dict[str, str]) -> Contender:
        """Return it as one that takes part."""
        command = [str(ROOT / self.venv / "bin" / "python"), "-m", *self.command.split()]
        return Contender(
            name,
            f"{self.name}, {what}",
            lambda p: program(p, command, self.path, self.form, **environment),
            f"{self.venv}/lib/python3*/site-packages/{self.needs}",
        )


PEERS = {
    "mosec": Peer(
        "mosec",
        "scripts.bench.peers.mosec_server --port {port} --timeout 60000",
        "/inference",
        "mosec",
    ),
    "litserve": Peer(
        "LitServe", "scripts.bench.peers.litserve_server {port}", "/predict", "litserve"
    ),
    "bentoml": Peer(
        "BentoML",
        "bentoml serve scripts.bench.peers.bentoml_service:Predict --host 127.0.0.1 --port {port}",
        "/predict",
        "bentoml",
        multipart("images"),
    ),
    "triton": Peer(
        "Triton, Python backend",
        "scripts.bench.peers.triton_server {port}",
        "/v2/models/resnet/infer",
        "pytriton",
        TRITON,
        ".venv-bench-triton",
    ),
    "torchserve": Peer(
        "TorchServe",
        "scripts.bench.peers.torchserve_server {port}",
        "/predictions/resnet",
        "ts",
        multipart("data"),
    ),
}

CONTENDERS = [
    Contender("ours-fp32", "this server, fp32", lambda p: ours(p, precision="fp32")),
    Contender("ours-bf16", "this server, bf16", lambda p: ours(p, precision="bf16")),
    Contender("ours-int8", "this server, int8", lambda p: ours(p, precision="int8")),
    Contender(
        "usual-as-typed",
        "gunicorn -w 4 -k gevent, Flask, eager torch",
        lambda p: program(p, [*GUNICORN, "-w", "4", "--timeout", "120", USUAL]),
    ),
    Contender(
        "usual-one-thread",
        "the same, a worker for each core with one torch thread",
        lambda p: program(
            p, [*GUNICORN, *WORKERS, "--timeout", "120", USUAL], form=IMAGE, **ONE_THREAD
        ),
    ),
    *(
        peer.contender(name, "a worker for each core with one torch thread", ONE_THREAD)
        for name, peer in PEERS.items()
    ),
    Contender(
        "ours-no-model",
        "this server, constant logits; pictures decoded as in fp32",
        lambda p: ours(p, constant=True, decode="exact"),
    ),
    Contender(
        "ours-no-model-fast",
        "the same; pictures decoded as in a reduced precision",
        lambda p: ours(p, constant=True, decode="fast"),
    ),
    Contender(
        "usual-no-model",
        "the usual way, constant logits",
        lambda p: program(p, [*GUNICORN, *WORKERS, USUAL], form=IMAGE, **NO_MODEL),
    ),
    *(
        peer.contender(f"{name}-no-model", "constant logits", NO_MODEL)
        for name, peer in PEERS.items()
    ),
]
