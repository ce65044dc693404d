"""Polite clients beside everything else: each knows the right answer and does not take another.

They run in a process of their own, so that what the hostile ones cost this machine's Python is not taken for the
server's slowness. Each request that ends is one line of JSON in a file.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.settings import ROOT
from scripts.hostile.judge import BUSY
from scripts.hostile.routes import MODEL, PICTURE_ROUTES
from scripts.hostile.wire import Address, build, exchange

PICTURE = ROOT / "samples" / "street.jpg"
LABELS = {"Bicycle", "Bus", "Car", "Person"}  # samples/labels.csv
PAUSE_S = 0.15
PROBE_PAUSE_S = 0.05
GIVE_UP_S = 60.0  # a request with its repetitions
PROBE = "healthz"
# What may be another each time: ids, times, and the version that answered.
VOLATILE = {
    "request_id",
    "timings_ms",
    "batch",
    "version",
    "model_version",
    "versions",
    "id",
    "overlay",
}
TOLERANCE = 5e-3  # of a score or a logit: a batch of another size adds up in another order


@dataclass(frozen=True)
class Outcome:
    """One good request that ended: when, how, and its fault, if any."""

    kind: str
    began: float
    seconds: float
    statuses: list[int]
    fault: str

    @property
    def refused(self) -> bool:
        """Whether it was refused with Retry-After before it was answered."""
        return len(self.statuses) > 1


def good_requests() -> dict[str, bytes]:
    """Return the requests of the polite clients by their names."""
    data = PICTURE.read_bytes()
    wanted = ("model_predict", "predict form", "predict json", "heatmaps", "v1 predict", "v2 json")
    requests = {name: PICTURE_ROUTES[name](data) for name in wanted}
    return requests | {
        PROBE: build("GET", "/healthz"),
        "v2 metadata": build("GET", f"/v2/models/{MODEL}"),
    }


def essence(content: Any) -> Any:
    """Return JSON without the fields that differ from request to request."""
    if isinstance(content, dict):
        return {key: essence(each) for key, each in content.items() if key not in VOLATILE}
    return [essence(each) for each in content] if isinstance(content, list) else content


def is_same(one: Any, other: Any) -> bool:
    """Compare two JSON values; numbers may differ by the tolerance."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, float) and isinstance(other, float | int):
        return abs(one - other) <= TOLERANCE
    return bool(one == other)


async def learn(address: Address) -> dict[str, Any]:
    """Send each request once, without load, and return the right answers.

    Raises:
        ValueError: an answer is not what is known of the picture.
    """
    right = {}
    for name, data in good_requests().items():
        done = await exchange(address, data)
        if not done.answers or done.answers[0].status != 200:
            raise ValueError(f"{name} is not answered in peace: {done}")
        right[name] = essence(json.loads(done.answers[0].body))
    if set(right["model_predict"]["result"]) != LABELS:
        raise ValueError(f"{PICTURE.name} shows {LABELS}, the server says {right['model_predict']}")
    return right


async def ask(address: Address, kind: str, data: bytes, right: Any) -> Outcome:
    """Send a request, retry it after a refusal with Retry-After, and compare the answer."""
    began, statuses, fault = time.monotonic(), [], "was refused again and again"
    while time.monotonic() < began + GIVE_UP_S:
        done = await exchange(address, data)
        answer = done.answers[0] if done.answers else None
        statuses.append(answer.status if answer else 0)
        if answer and answer.status in BUSY and answer.headers.get("retry-after", "").isdecimal():
            await asyncio.sleep(min(5, int(answer.headers["retry-after"])))
            continue
        fault = "" if answer else f"no answer: {done.error or 'closed'}"
        if answer and answer.status != 200:
            fault = f"{answer.status}: {answer.body[:200]!r}"
        elif answer and not is_same(essence(json.loads(answer.body)), right):
            fault = f"a wrong answer: {answer.body[:200]!r}"
        break
    return Outcome(kind, began, time.monotonic() - began, statuses, fault)


async def ask_on(
    address: Address, right: dict[str, Any], path: Path, ending: Any, copies: int
) -> None:
    """Run the clients until they are to end; each finishes its request."""
    with path.open("a", encoding="utf-8", buffering=1) as file:

        async def client(kind: str, data: bytes) -> None:
            while not ending.is_set():
                outcome = await ask(address, kind, data, right[kind])
                file.write(json.dumps(vars(outcome)) + "\n")
                await asyncio.sleep(PROBE_PAUSE_S if kind == PROBE else PAUSE_S)

        requests = good_requests().items()
        await asyncio.gather(*(client(*each) for each in requests for _ in range(copies)))


def run_process(
    address: Address, right: dict[str, Any], path: Path, ending: Any, copies: int
) -> None:
    """Run the clients (in the process of their own)."""
    asyncio.run(ask_on(address, right, path, ending, copies))


@contextmanager
def good_clients(
    address: Address, right: dict[str, Any], path: Path, copies: int = 1
) -> Iterator[None]:
    """Run polite clients while the block runs."""
    context = multiprocessing.get_context("spawn")
    ending = context.Event()
    process = context.Process(target=run_process, args=(address, right, path, ending, copies))
    process.start()
    try:
        yield
    finally:
        ending.set()
        process.join(2 * GIVE_UP_S)
        if process.is_alive():
            process.kill()
            process.join()


def read_outcomes(path: Path) -> list[Outcome]:
    """Return all good requests that ended."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Outcome(**json.loads(line)) for line in lines]
