"""A run: the server under attack, the clock, the seed, and the result of each phase."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from scripts.hostile.judge import BUSY, Case, find_fault
from scripts.hostile.wire import Address, Exchange, Manner, exchange

SHOWN = 5  # faults of one kind that are kept; the others are counted


@dataclass(frozen=True)
class Options:
    """The options of a run.

    Attributes:
        seed: of everything that is sent.
        scale: share of the full numbers.
        minutes: for all phases together.
        workers: of the server.
        max_lag_s: of /healthz during any phase.
        out: folder of failing inputs and the records of good clients.
        only: phases that are run; empty means all.
        bomb_bytes: about the size of the long bombs.
        bundle: folder of the model to serve.
    """

    out: Path
    bundle: Path
    seed: int = 1
    scale: float = 1.0
    minutes: float = 30.0
    workers: int = 2
    max_lag_s: float = 1.0
    only: tuple[str, ...] = ()
    bomb_bytes: int = 30 << 20

    def scaled(self, count: int, least: int = 1) -> int:
        """Return a full number at this scale."""
        return max(least, round(count * self.scale))


@dataclass
class Row:
    """One phase and its result.

    Attributes:
        name: the phase.
        overload: whether it asks for refusals (429, 503), also of good clients.
        deaths: workers that it ends itself.
        until: when it has to end, on the monotonic clock.
        cut: whether it did for want of time.
        faults: the first few places of each kind of fault.
        count: how many there are of each kind.
        spans: when each case began and ended, with its name.
    """

    name: str
    overload: bool = False
    deaths: int = 0
    until: float = float("inf")
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    sent: int = 0
    cut: bool = False
    statuses: Counter[int] = field(default_factory=Counter)
    slowest_s: float = 0.0
    lag_s: float = 0.0
    good: int = 0
    memory_mib: float = 0.0
    peak_mib: float = 0.0
    faults: dict[str, list[str]] = field(default_factory=dict)
    count: Counter[str] = field(default_factory=Counter)
    spans: list[tuple[float, float, str]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(0.0, self.ended - self.began)

    @property
    def out_of_time(self) -> bool:
        """Whether the phase has to end; noted as cut."""
        self.cut = self.cut or time.monotonic() > self.until
        return self.cut

    def add_fault(self, kind: str, where: str) -> None:
        """Note a fault."""
        self.count[kind] += 1
        places = self.faults.setdefault(kind, [])
        if len(places) < SHOWN:
            places.append(where)

    def add(self, name: str, done: Exchange) -> None:
        """Count the result of a connection that has just ended."""
        self.sent += 1
        now = time.monotonic()
        self.spans.append((now - done.seconds, now, name))
        self.slowest_s = max(self.slowest_s, done.seconds)
        self.statuses.update([answer.status for answer in done.answers] or [0])

    def under_way(self, began: float, ended: float) -> list[str]:
        """Return some of the cases that were under way in a span of time."""
        return [name for start, end, name in self.spans if start < ended and end > began][:SHOWN]

    def share(self, test: str) -> int:
        """Return the answers of a class: ``2xx``, ``4xx``, ``busy``, ``5xx`` or ``none``."""
        if test == "busy":
            return sum(self.statuses[status] for status in BUSY)
        if test == "none":
            return self.statuses[0]
        found = {s: n for s, n in self.statuses.items() if s not in BUSY}
        return sum(count for status, count in found.items() if status // 100 == int(test[0]))


class Trial:
    """A run against one server.

    Attributes:
        options: what is asked for.
        address: of the server.
        rows: the phases so far.
    """

    def __init__(self, url: str, options: Options) -> None:
        """Begin a run; nothing is sent yet."""
        parts = urlsplit(url)
        self.options = options
        self.address: Address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.rows: list[Row] = []

    async def send_all(self, row: Row, cases: Iterable[Case], at_once: int = 4) -> None:
        """Send cases, some at once, until there are no more or the phase's time is over."""
        waiting = iter(cases)

        async def work() -> None:
            for case in waiting:
                if row.out_of_time:
                    return
                await self.send(row, case)

        await asyncio.gather(*(work() for _ in range(at_once)))

    async def send(self, row: Row, case: Case) -> Exchange:
        """Send a case and judge the answers."""
        source = source_of(len(row.spans))
        manner = Manner(60, case.quiet_s, source, case.half_close)
        done = await exchange(self.address, case.data, manner)
        row.add(case.name, done)
        if fault := find_fault(case, done):
            kind, _, detail = fault.partition(": ")
            path = self.save(row.name, case.data, ".http")
            row.add_fault(f"{case.name.partition('#')[0]}: {kind}", f"{case.name} {path} {detail}")
        return done

    def save(self, phase: str, data: bytes, suffix: str) -> Path:
        """Keep a failing input; return where it is."""
        folder = self.options.out / "failing"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{phase}-{hashlib.sha256(data).hexdigest()[:12]}{suffix}"
        path.write_bytes(data)
        return path


def source_of(number: int) -> str:
    """Return a loopback address for a hostile client; good ones come from 127.0.0.1."""
    return f"127.0.1.{1 + number % 200}"
