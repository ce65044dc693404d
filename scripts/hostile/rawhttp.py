"""Bytes on raw sockets: the list of streams, then damaged ones; a good request after each bunch is answered right."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.hostile.dice import throw
from scripts.hostile.judge import Case
from scripts.hostile.mutate import damage
from scripts.hostile.smuggling import get
from scripts.hostile.streams import QUIET_S, all_streams
from scripts.hostile.trial import Row, Trial

MUTATED = 3000
AT_ONCE = 40  # most of them only wait until it is clear that nothing more comes


async def run(trial: Trial, row: Row) -> None:
    """Send all streams of the list, and damaged ones."""
    options = trial.options
    await trial.send_all(row, with_checks(all_streams()), at_once=AT_ONCE)
    count = options.scaled(MUTATED, 100)
    await trial.send_all(row, with_checks(damaged(options.seed, count)), at_once=AT_ONCE)


def with_checks(cases: Iterator[Case], every: int = 10) -> Iterator[Case]:
    """Yield cases, and after some of them a good request that must be answered as always."""
    check = Case("a good request afterwards", get(b"/healthz", b"Connection: close\r\n"))
    for number, case in enumerate(cases):
        yield case
        if number % every == 0:
            yield check


def damaged(seed: int, count: int) -> Iterator[Case]:
    """Yield damaged streams; the number of requests in them is unknown, so any number of answers is right."""
    streams = [case.data for case in all_streams() if len(case.data) < 10_000]
    for index in range(count):
        dice = throw(seed, "stream", index)
        data = damage(dice.choice(streams), dice)
        many = data.count(b"HTTP/") + data.count(b"\n") + 1
        yield Case(f"damaged stream#{index}", data, most=many, may_close=True, quiet_s=QUIET_S)
