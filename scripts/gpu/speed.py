"""Benchmark: requests/s and GPU utilization with 1, 2, 4 and 8 workers per GPU."""

from __future__ import annotations

import http.client
import multiprocessing
import os
import shutil
import statistics
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.bench.form import IMAGE
from scripts.bench.load import Running, run_wrk
from scripts.gpu.server import PICTURE, serving
from scripts.gpu.trial import Trial, gpus, used_mib

SENDERS = 4  # sending processes if there is no wrk


@dataclass(frozen=True)
class Speed:
    """One measurement."""

    workers: int
    clients: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    failed: int
    gpu_busy: float | None
    used_mib: list[int]
    ready_s: float


def benchmark(trial: Trial) -> None:
    """Measure each number of workers; numbers that do not fit into memory are skipped."""
    rows: list[dict[str, Any]] = []
    trial.facts["sent_by"] = "wrk" if shutil.which("wrk") else "the project's own sender"
    trial.facts["rows"] = rows
    for workers in (1, 2) if trial.rehearse else (1, 2, 4, 8):
        count = workers * max(1, len(gpus()))
        faults = len(trial.faults)
        with serving(trial, count) as server:
            if len(trial.faults) > faults:
                continue
            clients = trial.few(32, 4) * count
            rows.append(asdict(measure(trial, server.url, count, clients)))
            trial.expect(not rows[-1]["failed"], f"{rows[-1]['failed']} requests failed")


def measure(trial: Trial, url: str, workers: int, clients: int) -> Speed:
    """Measure a server under load."""
    seconds = trial.few(8, 2)
    target = f"{url}/model_predict"
    send(trial, target, clients, trial.few(2, 1))  # warm up
    busy: list[float] = []
    going = threading.Event()
    going.set()

    def watch() -> None:
        while going.is_set():
            busy.extend(gpu.busy for gpu in gpus() if gpu.busy is not None)
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    found = send(trial, target, clients, seconds)
    used = used_mib()
    going.clear()
    watcher.join()
    mean = round(statistics.mean(busy), 2) if busy else None
    failed = int(found["not_2xx"] + found["failed"])
    per_s = round((found["requests"] - found["not_2xx"]) / found["seconds"], 1)
    p50, p99 = round(found["p50_ms"], 1), round(found["p99_ms"], 1)
    return Speed(workers, clients, per_s, p50, p99, failed, mean, used, trial.facts["ready_s"])


def send(trial: Trial, url: str, clients: int, seconds: float) -> dict[str, float]:
    """Post an image in a closed loop; return counts and times in the format of wrk's script."""
    if shutil.which("wrk"):
        bodies = trial.folder / "bodies"
        bodies.mkdir(exist_ok=True)
        (bodies / "picture").write_bytes(IMAGE.body(PICTURE.read_bytes()))
        return run_wrk(Running(url, os.getpid(), IMAGE, "", 0.0), bodies, clients, seconds)
    with multiprocessing.get_context("spawn").Pool(SENDERS) as pool:
        share = max(1, clients // SENDERS)
        parts = pool.starmap(send_part, [(url, share, seconds)] * SENDERS)
    times = sorted(took for part in parts for took in part[0])
    bad = sum(part[1] for part in parts)
    return {
        "requests": len(times) + bad,
        "seconds": seconds,
        "not_2xx": bad,
        "failed": 0,
        "p50_ms": quantile_ms(times, 0.5),
        "p99_ms": quantile_ms(times, 0.99),
    }


def quantile_ms(times: list[float], share: float) -> float:
    """Return a quantile of sorted times (seconds) in milliseconds; 0 if there are none."""
    return 1000 * times[int(share * (len(times) - 1))] if times else 0.0


def send_part(url: str, clients: int, seconds: float) -> tuple[list[float], int]:
    """Post on persistent connections, one per thread; return the times and the number of failures."""
    body = IMAGE.body(Path(PICTURE).read_bytes())
    where = urlsplit(url)
    until = time.monotonic() + seconds
    times: list[float] = []
    bad: list[object] = []

    def client() -> None:
        connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=30)
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                connection.request("POST", where.path, body, IMAGE.headers)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                bad.append(error)
                connection.close()
                continue
            if answer.status == 200:
                times.append(time.monotonic() - began)
            else:
                bad.append(answer.status)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, len(bad)
