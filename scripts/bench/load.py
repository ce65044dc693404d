"""The load by wrk, and the CPU time and memory of the server under it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from scripts.bench.form import Form

SCRIPT = Path(__file__).parent / "pictures.lua"
MIB = 1 << 20


@dataclass(frozen=True)
class Running:
    """A contender that answers.

    Attributes:
        url: where.
        pid: the process that the others of it descend from.
        form: how it wants a picture posted.
        answer: what it said to the first picture.
        ready_s: seconds from its start to that answer.
    """

    url: str
    pid: int
    form: Form
    answer: str
    ready_s: float


@dataclass(frozen=True)
class Sample:
    """One measurement: a contender under a number of clients, in one round.

    ``cpu_s_per_request`` counts the server's processes, not wrk; ``pss_mib`` is their memory with
    shared pages counted once.
    """

    clients: int
    requests_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int
    cpu_s_per_request: float
    pss_mib: float


def run_wrk(
    running: Running,
    bodies: Path,
    clients: int,
    seconds: float,
    script: Path = SCRIPT,
    **environment: str,
) -> dict[str, float]:
    """Post the files of a folder in a closed loop, as a script of wrk does; return wrk's counts and times."""
    threads = min(2, clients)
    command = ["wrk", f"-t{threads}", f"-c{clients}", f"-d{seconds:g}s", "--timeout", "60s"]
    for name, value in running.form.headers.items():
        command += ["-H", f"{name}: {value}"]
    done = subprocess.run(
        [*command, "-s", str(script), running.url],
        env=os.environ | {"BENCH_BODIES": str(bodies), "BENCH_REPORT": str(SCRIPT)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    counts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return counts


def measure(
    running: Running,
    bodies: Path,
    clients: int,
    seconds: float,
    script: Path = SCRIPT,
    **environment: str,
) -> Sample:
    """Load a server and all that descends from its root, and weigh it at the end; arguments as ``run_wrk`` has them."""
    before = cpu_seconds(running.pid)
    result = run_wrk(running, bodies, clients, seconds, script, **environment)
    cpu_s = cpu_seconds(running.pid) - before
    answered = result["requests"] - result["not_2xx"]
    return Sample(
        clients,
        answered / result["seconds"],
        result["p50_ms"],
        result["p95_ms"],
        result["p99_ms"],
        int(result["not_2xx"] + result["failed"]),
        cpu_s / max(1, result["requests"]),
        sum(process.memory_full_info().pss for process in family(running.pid)) / MIB,
    )


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all that descend from it."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process and its living descendants have used."""
    times = [process.cpu_times() for process in family(pid)]
    return sum(used.user + used.system for used in times)
