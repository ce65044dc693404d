"""The load, by wrk, and what a server costs meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

SCRIPT = Path(__file__).parent / "pictures.lua"
MIB = 1 << 20


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


def run_wrk(url: str, pictures: Path, clients: int, seconds: float) -> dict[str, float]:
    """Send pictures in a closed loop; return wrk's counts and times."""
    threads = min(2, clients)
    command = ["wrk", f"-t{threads}", f"-c{clients}", f"-d{seconds:g}s", "--timeout", "60s"]
    done = subprocess.run(
        [*command, "-s", str(SCRIPT), url],
        env=os.environ | {"BENCH_PICTURES": str(pictures)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(url: str, pid: int, pictures: Path, clients: int, seconds: float) -> Sample:
    """Load a server whose processes descend from ``pid``, and weigh it at the end."""
    before = cpu_seconds(pid)
    result = run_wrk(url, pictures, clients, seconds)
    cpu_s = cpu_seconds(pid) - before
    answered = result["requests"] - result["not_2xx"]
    return Sample(
        clients,
        answered / result["seconds"],
        result["p50_ms"],
        result["p95_ms"],
        result["p99_ms"],
        int(result["not_2xx"] + result["failed"]),
        cpu_s / max(1, result["requests"]),
        sum(process.memory_full_info().pss for process in family(pid)) / MIB,
    )


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all that descend from it."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process and its living descendants have used."""
    times = [process.cpu_times() for process in family(pid)]
    return sum(used.user + used.system for used in times)
