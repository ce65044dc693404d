"""Who takes part in the benchmark, and how each is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from app.settings import ROOT, count_cores
from tests.server import Server, free_port

READY_WITHIN_S = 120


@dataclass(frozen=True)
class Running:
    """A contender that answers: where, which process is its root, and after how many seconds."""

    url: str
    pid: int
    ready_s: float


@dataclass(frozen=True)
class Contender:
    """One that takes part.

    Attributes:
        name: for ``--contenders`` and the table.
        what: a sentence about it.
        start: a context in which it runs, given one picture to wait with until it answers.
        needs: a module of .venv-bench without which it is left out.
    """

    name: str
    what: str
    start: Callable[[Path], Iterator[Running]]
    needs: str = ""


@contextmanager
def ours(picture: Path, constant: bool = False, **settings: str) -> Iterator[Running]:
    """Run this server as an operator does: supervisord, nginx, Gunicorn, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
    server = Server(folder, **settings)
    if constant:
        conf = folder / "conf" / "supervisor.conf"
        text = conf.read_text()
        plain = "gunicorn -c conf/gunicorn.conf.py"
        conf.write_text(text.replace(plain, f"{plain} scripts.bench.constant:app"))
        shutil.rmtree(folder / "scripts", ignore_errors=True)
        (folder / "scripts").symlink_to(ROOT / "scripts")
    started = time.monotonic()
    server.start()
    try:
        url = f"{server.url}/model_predict"
        ready_s = wait_for_answer(url, picture, started)
        yield Running(url, server.process.pid, ready_s)
    finally:
        server.remove()


@contextmanager
def program(
    picture: Path, command: list[str], path: str = "/model_predict", **environment: str
) -> Iterator[Running]:
    """Run a server of one command; ``{port}`` in it is replaced."""
    port = free_port()
    url = f"http://127.0.0.1:{port}{path}"
    started = time.monotonic()
    process = subprocess.Popen(
        [word.format(port=port) for word in command],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Running(url, process.pid, wait_for_answer(url, picture, started))
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            subprocess.run(["pkill", "-9", "-P", str(process.pid)], check=False)
            process.kill()


def wait_for_answer(url: str, picture: Path, started: float) -> float:
    """Wait until a picture is answered; return the seconds since the start."""
    data = picture.read_bytes()
    while time.monotonic() < started + READY_WITHIN_S:
        try:
            if requests.post(url, files={"image": data}, timeout=60).status_code == 200:
                return time.monotonic() - started
        except requests.RequestException:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"{url} gave no answer within {READY_WITHIN_S} s")


GUNICORN = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-b", "127.0.0.1:{port}"]
PEER = [str(ROOT / ".venv-bench" / "bin" / "python"), "-m"]
USUAL = "scripts.bench.usual_way:app"
MOSEC = [*PEER, "scripts.bench.peers.mosec_server", "--port", "{port}", "--timeout", "60000"]
LITSERVE = [*PEER, "scripts.bench.peers.litserve_server", "{port}"]
ONE_THREAD = {"BENCH_THREADS": "1", "OMP_NUM_THREADS": "1", "BENCH_WORKERS": str(count_cores())}
NO_MODEL = {**ONE_THREAD, "BENCH_MODEL": "constant"}
WORKERS = ["-w", str(count_cores())]

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
        lambda p: program(p, [*GUNICORN, *WORKERS, "--timeout", "120", USUAL], **ONE_THREAD),
    ),
    Contender(
        "mosec",
        "mosec, a worker for each core with one torch thread",
        lambda p: program(p, MOSEC, "/inference", **ONE_THREAD),
        "mosec",
    ),
    Contender(
        "litserve",
        "LitServe, a worker for each core with one torch thread",
        lambda p: program(p, LITSERVE, "/predict", **ONE_THREAD),
        "litserve",
    ),
    Contender("ours-no-model", "this server, constant logits", lambda p: ours(p, constant=True)),
    Contender(
        "usual-no-model",
        "the usual way, constant logits",
        lambda p: program(p, [*GUNICORN, *WORKERS, USUAL], **NO_MODEL),
    ),
    Contender(
        "mosec-no-model",
        "mosec, constant logits",
        lambda p: program(p, MOSEC, "/inference", **NO_MODEL),
        "mosec",
    ),
]
