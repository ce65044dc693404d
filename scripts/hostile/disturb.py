"""Disturbances by operators and accidents, all at once: kills, reloads, new versions, full queues, lost clients."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from app.models.bundle import put_in_place, write_sums
from scripts.hostile.dice import throw
from scripts.hostile.gauges import worker_processes
from scripts.hostile.good import PICTURE
from scripts.hostile.images import make_cases
from scripts.hostile.judge import Case
from scripts.hostile.routes import PICTURE_ROUTES
from scripts.hostile.slow import leave
from scripts.hostile.trial import Row, Trial
from scripts.local_server import LocalServer

KILLS = 20
RELOADS = 6
PUBLISHES = 6
BURSTS = 6
BURST = 400  # requests at once; a queue has 32 places
LEFT_OUT = shutil.ignore_patterns("calibration")
READY_WITHIN_S = 60.0


class Disturbance:
    """Disturbs one server until it has done everything it was to do."""

    def __init__(self, trial: Trial, row: Row, server: LocalServer, models: Path) -> None:
        """Disturb ``server``, which serves "demo" below ``models``."""
        self._trial, self._row, self._server = trial, row, server
        self._model = models / "demo"
        self._pid = server.pid
        # One at a time: two that die, or a death and a reload, may well leave nobody for a moment.
        self._workers = asyncio.Lock()

    async def run(self) -> None:
        """Do all of it at once."""
        options = self._trial.options
        counts = (KILLS, RELOADS, PUBLISHES, BURSTS)
        doings = (self._kill, self._reload, self._publish, self._burst)
        steps = [
            self._repeat(doing, options.scaled(count))
            for doing, count in zip(doings, counts, strict=True)
        ]
        cases = make_cases(options.seed + 1, options.scaled(1000, 20))
        await asyncio.gather(
            *steps, self._trial.send_all(self._row, cases, at_once=2), self._leave()
        )

    async def _repeat(self, doing: Callable[[], Awaitable[None]], times: int) -> None:
        for _ in range(times):
            if self._row.out_of_time:
                return
            await doing()
            await asyncio.sleep(1)

    async def _kill(self) -> None:
        """Kill a worker as the kernel would when memory runs out; wait until all are ready again."""
        async with self._workers:
            workers = await asyncio.to_thread(worker_processes, self._pid)
            if workers:
                self._row.deaths += 1
                with suppress(ProcessLookupError):
                    os.kill(workers[0].pid, signal.SIGKILL)
            await self._wait_ready({each.pid for each in workers[:1]}, "after a kill")

    async def _reload(self) -> None:
        """Let Gunicorn start new workers."""
        async with self._workers:
            old = {each.pid for each in await asyncio.to_thread(worker_processes, self._pid)}
            done = await asyncio.to_thread(self._server.control, "signal", "HUP", "gunicorn")
            if done.returncode:
                self._row.add_fault("a reload was refused", done.stdout)
            await self._wait_ready(old, "after a reload")

    async def _wait_ready(self, gone: set[int], when: str) -> None:
        """Wait until these workers are gone and as many as there are to be are ready."""
        until = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < until:
            await asyncio.sleep(0.3)
            now = {each.pid for each in await asyncio.to_thread(worker_processes, self._pid)}
            if not now & gone:
                ready = await asyncio.to_thread(self._server.ready_workers)
                if ready >= self._trial.options.workers:
                    return
        self._row.add_fault(f"not ready within {READY_WITHIN_S:g} s {when}", f"{now=} {gone=}")

    async def _publish(self) -> None:
        """Put a copy of the newest version in place as the next one; wait until it is the one that answers."""
        version = await asyncio.to_thread(publish_copy, self._model)
        until = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < until:
            await asyncio.sleep(0.5)
            live = (await asyncio.to_thread(self._server.readiness)).get("live", {}).values()
            if live and all(versions == [version] for each in live for versions in each.values()):
                return
        self._row.add_fault(
            f"a new version is not live within {READY_WITHIN_S:g} s", f"version {version}"
        )

    async def _burst(self) -> None:
        """Send more requests at once than the queue holds; each is answered or refused with Retry-After."""
        make = PICTURE_ROUTES["predict raw"]
        case = Case("a burst", make(PICTURE.read_bytes()))
        count = self._trial.options.scaled(BURST, 60)
        await asyncio.gather(*(self._trial.send(self._row, case) for _ in range(count)))

    async def _leave(self) -> None:
        """Hang up on the server meanwhile."""
        until = min(self._row.until, time.monotonic() + 10)
        for number in range(self._trial.options.scaled(200, 5)):
            with suppress(OSError, TimeoutError):
                dice = throw(self._trial.options.seed, "leaving", number)
                await leave(
                    self._trial.address, "127.0.2.1", dice, min(until, time.monotonic() + 0.1)
                )


def publish_copy(model: Path) -> int:
    """Put a copy of the newest version in place as the next one, as scripts/publish does; return its number."""
    versions = sorted(
        (path for path in model.iterdir() if path.name.isdecimal()), key=lambda p: int(p.name)
    )
    draft = model / ".draft"
    shutil.copytree(versions[-1], draft, ignore=LEFT_OUT)
    write_sums(draft)
    placed = put_in_place(draft, model)
    for old in versions[:-1]:  # the newest but one is still being served for a moment
        shutil.rmtree(old)
    return int(placed.name)
