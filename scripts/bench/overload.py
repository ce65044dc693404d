"""Open-loop load: requests at random (Poisson) times, whether or not the earlier ones are answered.

MLPerf's server scenario (mlperf.org, Inference rules): the highest rate at which p99 stays below a
bound. And overload: many times what the server can do, where answers must go on and the rest be
refused fast.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from scripts.bench.form import IMAGE

SEARCH_STEPS = 6


@dataclass(frozen=True)
class Answer:
    """One request's status (0: none came) and seconds."""

    status: int
    seconds: float


def measure_overload(
    url: str, pictures: Path, best_per_s: float, options: argparse.Namespace
) -> dict[str, float]:
    """Measure the loads of ``--overload`` and ``--poisson``; ``best_per_s`` is the best rate of the closed loop."""
    bodies = [build_request(url, path.read_bytes()) for path in sorted(pictures.glob("*.jpg"))]
    found: dict[str, float] = {}
    if options.overload:
        answers = asyncio.run(send(url, bodies, best_per_s * options.overload, options.seconds))
        good = [a for a in answers if a.status == 200]
        refused = [a.seconds * 1000 for a in answers if a.status == 429]
        found |= {
            "offered_per_s": len(answers) / options.seconds,
            "goodput_share_of_best": len(good) / options.seconds / best_per_s,
            "refused_p99_ms": float(np.percentile(refused, 99)) if refused else 0.0,
            "refused": len(refused),
            "otherwise": len(answers) - len(good) - len(refused),
        }
    if options.poisson:
        found["poisson_per_s"] = find_highest_rate(url, bodies, best_per_s, options)
        found["poisson_share_of_best"] = found["poisson_per_s"] / best_per_s
    return found


def find_highest_rate(
    url: str, bodies: list[bytes], best_per_s: float, options: argparse.Namespace
) -> float:
    """Return the highest rate with p99 at most ``--poisson`` ms and no error, by halving the interval."""
    low, high = 0.0, best_per_s * 1.1
    for _ in range(SEARCH_STEPS):
        rate = (low + high) / 2
        answers = asyncio.run(send(url, bodies, rate, options.seconds))
        p99_ms = float(np.percentile([a.seconds for a in answers], 99)) * 1000
        if p99_ms <= options.poisson and all(a.status == 200 for a in answers):
            low = rate
        else:
            high = rate
    return low


def build_request(url: str, picture: bytes) -> bytes:
    """Return a whole HTTP request, as curl -F image=@… would send it."""
    body = IMAGE.body(picture)
    parts = urlsplit(url)
    headers = {"Host": parts.netloc, "Connection": "close", "Content-Length": str(len(body))}
    lines = [f"{name}: {value}" for name, value in (headers | IMAGE.headers).items()]
    head = "\r\n".join([f"POST {parts.path} HTTP/1.1", *lines, "", ""])
    return head.encode() + body


async def send(url: str, requests: list[bytes], rate_per_s: float, seconds: float) -> list[Answer]:
    """Send requests at exponentially distributed distances for some seconds; wait for every answer."""
    rng = np.random.default_rng(0)
    started = time.monotonic()
    at = 0.0
    tasks: list[asyncio.Task[Answer]] = []
    while (at := at + rng.exponential(1 / rate_per_s)) < seconds:
        await asyncio.sleep(max(0.0, started + at - time.monotonic()))
        tasks.append(asyncio.create_task(ask(url, requests[len(tasks) % len(requests)])))
    return list(await asyncio.gather(*tasks))


async def ask(url: str, request: bytes) -> Answer:
    """Send one request on a connection of its own."""
    parts = urlsplit(url)
    started = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(request)
        head = await reader.readline()
        status = int(head.split()[1])
        await reader.read()
        writer.close()
    except (OSError, IndexError, ValueError):
        status = 0
    return Answer(status, time.monotonic() - started)
