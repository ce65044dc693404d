"""Damaged pictures and bombs through the live server, on every route that takes pictures."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

from scripts.hostile.bombs import make_bombs
from scripts.hostile.dice import throw
from scripts.hostile.judge import Case
from scripts.hostile.mutate import make_picture
from scripts.hostile.routes import PICTURE_ROUTES
from scripts.hostile.trial import Row, Trial
from scripts.hostile.wire import build

PICTURES = 5000
LEAST_SCALE = 0.02  # below it the bombs, of seconds each, are left to the phase that decodes


async def run(trial: Trial, row: Row) -> None:
    """Send damaged pictures, then each bomb once by itself, then all bombs at once."""
    options = trial.options
    await trial.send_all(row, make_cases(options.seed, options.scaled(PICTURES, 50)), at_once=8)
    if options.scale < LEAST_SCALE:
        return
    await trial.send_all(row, bomb_cases(options.bomb_bytes), at_once=1)
    await trial.send_all(row, bomb_cases(options.bomb_bytes // 8), at_once=8)


def make_cases(seed: int, count: int) -> Iterator[Case]:
    """Yield requests with damaged pictures, each on some route."""
    for index in range(count):
        name, data = make_picture(seed, index)
        route = throw(seed, "route", index).choice(sorted(PICTURE_ROUTES))
        yield Case(f"{route} {name}#{index}", PICTURE_ROUTES[route](data))


def bomb_cases(size: int) -> Iterator[Case]:
    """Yield each bomb as the body itself, compressed, so that little is sent."""
    for name, make in make_bombs(size).items():
        body = gzip.compress(make(), 1, mtime=0)
        headers = {"Content_Type": "application/octet-stream", "Content_Encoding": "gzip"}
        yield Case(f"bomb {name}", build("POST", "/predict", body, **headers))
