"""Send everything hostile to a server of its own, good clients beside it; print a table; status 1 for a fault."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from app.models.bundle import find_bundle
from app.settings import ROOT
from scripts.hostile import bodies, decoding, images, rawhttp, slow
from scripts.hostile.disturb import LEFT_OUT, Disturbance
from scripts.hostile.gauges import Gauges, Watch, read_gauges, settle
from scripts.hostile.good import PROBE, Outcome, good_clients, learn, read_outcomes
from scripts.hostile.loglines import check_logs, measure_logs
from scripts.hostile.report import print_report
from scripts.hostile.trial import Options, Row, Trial
from scripts.local_server import LocalServer

SETTLE_S = 60.0
REST_S = 1.0  # between phases
WARM_UP_S = 5.0  # of good clients, before anything is measured
PHASES = ("decoding", "images", "bodies", "rawhttp", "slow", "disturb")
# What a phase may take of the minutes that are left when it begins, if all of them are run.
SHARES = {
    "decoding": 0.3,
    "images": 0.35,
    "bodies": 0.4,
    "rawhttp": 0.4,
    "slow": 0.5,
    "disturb": 0.9,
}
MOST_PEAK_MIB = 600  # of a worker, above what it held before
OVERLOAD = frozenset({"slow", "disturb"})  # phases in which good clients may be asked to retry

Phase = Callable[[Trial, Row], Awaitable[None]]


@dataclass
class Live:
    """A server that runs, and how it and its logs were before anything was sent."""

    server: LocalServer
    models: Path
    before: Gauges
    watch: Watch
    outcomes: Path
    logs: dict[str, int]

    @property
    def pid(self) -> int:
        """Its supervisord."""
        return self.server.pid


def parse_arguments(arguments: list[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PHASES,
        default=(),
        metavar="PHASE",
        help=f"of {', '.join(PHASES)}",
    )
    parser.add_argument("--seed", type=int, default=1, help="of everything that is sent")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="share of the full numbers, such as 0.01"
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="for all phases together")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--max-lag",
        type=float,
        default=1.0,
        metavar="S",
        help="slowest answer of /healthz that is sound",
    )
    parser.add_argument(
        "--bomb-mib", type=float, default=30.0, help="size of the long bombs, unpacked"
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        default=find_bundle(ROOT / "models").folder,
        help='folder of the model to serve as "demo"; default: the demo',
    )
    parser.add_argument("--out", type=Path, help="folder for failing inputs; default: a new one")
    given = parser.parse_args(arguments)
    out = given.out or Path(tempfile.mkdtemp(prefix="chaos-"))
    return Options(
        out=out,
        bundle=given.bundle,
        seed=given.seed,
        scale=given.scale,
        minutes=given.minutes,
        workers=given.workers,
        max_lag_s=given.max_lag,
        only=tuple(given.only),
        bomb_bytes=int(given.bomb_mib * 2**20),
    )


def main() -> None:
    """Run the phases and print the table."""
    options = parse_arguments(sys.argv[1:])
    rows, before, after = run(options)
    print_report(rows, before, after)
    print(f"\nseed {options.seed}; failing inputs and logs are kept in {options.out}")
    sys.exit(any(row.count for row in rows))


def run(options: Options) -> tuple[list[Row], Gauges | None, Gauges | None]:
    """Run the chosen phases; return them, and the gauges before and after."""
    options.out.mkdir(parents=True, exist_ok=True)
    ending = time.monotonic() + options.minutes * 60
    phases = [name for name in PHASES if not options.only or name in options.only]
    rows: list[Row] = []
    if "decoding" in phases:
        phases.remove("decoding")
        trial = Trial("http://127.0.0.1:1", options)
        rows.append(asyncio.run(run_phase(trial, "decoding", decoding.run, ending, None)))
    if not phases:
        return rows, None, None
    with running(options) as live:
        trial = Trial(live.server.url, options)
        right = asyncio.run(learn(trial.address))
        with good_clients(trial.address, right, live.outcomes):
            time.sleep(WARM_UP_S)
            live.before = read_gauges(live.pid, live.server.run)
            rows += attack(live, trial, phases, ending)
        after, settling = settle(live.pid, live.server.run, live.before, SETTLE_S)
        rows.append(settling)
        add_good(rows, read_outcomes(live.outcomes), options.max_lag_s)
        rows.append(check_all_logs(live))
        return rows, live.before, after


def attack(live: Live, trial: Trial, phases: list[str], ending: float) -> list[Row]:
    """Run phases against the server, one after the other, with a rest between."""
    doing: dict[str, Phase] = {
        "images": images.run,
        "bodies": bodies.run,
        "rawhttp": rawhttp.run,
        "slow": slow.run,
        "disturb": partial(run_disturbance, live),
    }
    rows = []
    with live.watch.running():
        for name in phases:
            rows.append(asyncio.run(run_phase(trial, name, doing[name], ending, live)))
            time.sleep(REST_S)
    return rows


async def run_phase(trial: Trial, name: str, phase: Phase, ending: float, live: Live | None) -> Row:
    """Run one phase and record its effect on the workers."""
    now = time.monotonic()
    share = 1.0 if len(trial.options.only) == 1 else SHARES[name]
    row = Row(name, overload=name in OVERLOAD, until=now + max(10.0, (ending - now) * share))
    print(f"{name} …", file=sys.stderr, flush=True)
    if live is None:
        await phase(trial, row)
        row.ended = time.monotonic()
        return row
    held = read_gauges(live.pid, live.server.run)
    live.watch.peak_mib = 0.0
    live.watch.look()
    rest_mib, seen = live.watch.peak_mib, set(live.watch.seen)
    await phase(trial, row)
    row.ended = time.monotonic()
    row.memory_mib = read_gauges(live.pid, live.server.run).worker_mib - held.worker_mib
    row.peak_mib = live.watch.peak_mib
    if name == "disturb":  # workers come and go, and hold two versions for a while
        return row
    if row.peak_mib > rest_mib + MOST_PEAK_MIB:
        grown = f"{rest_mib:.0f} to {row.peak_mib:.0f} MiB"
        row.add_fault(f"a worker took over {MOST_PEAK_MIB} MiB more than at rest", grown)
    if new := live.watch.seen - seen:
        row.add_fault("workers died and were replaced", f"new ones: {sorted(new)}")
    return row


async def run_disturbance(live: Live, trial: Trial, row: Row) -> None:
    """Disturb the server in every way at once."""
    await Disturbance(trial, row, live.server, live.models).run()


def add_good(rows: list[Row], outcomes: list[Outcome], max_lag_s: float) -> None:
    """Add the results of the good clients to the phases during which they ran."""
    for row in rows:
        for each in outcomes:
            if not row.began <= each.began <= row.ended:
                continue
            row.good += 1
            if each.kind == PROBE and each.seconds > max_lag_s and not row.overload:
                meanwhile = ", ".join(row.under_way(each.began, each.began + each.seconds))
                row.add_fault(
                    f"/healthz took over {max_lag_s:g} s", f"{each.seconds:.2f} s: {meanwhile}"
                )
            if each.kind == PROBE:
                row.lag_s = max(row.lag_s, each.seconds)
            if each.fault:
                row.add_fault(
                    f"a good client ({each.kind}) met {each.fault[:150]}", f"{each.statuses}"
                )
            elif each.refused and not row.overload:
                row.add_fault(f"a good client ({each.kind}) was refused", f"{each.statuses}")


def check_all_logs(live: Live) -> Row:
    """Read the server's logs."""
    row = Row("logs")
    for fault, line in check_logs(live.server.run, live.logs):
        row.add_fault(fault, line)
    return row


@contextmanager
def running(options: Options) -> Iterator[Live]:
    """Run a server in a folder of its own, with a copy of the model; its logs are kept."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-server-"))
    models = folder / "models"
    shutil.copytree(options.bundle, models / "demo" / "1", ignore=LEFT_OUT)
    settings = {
        "models": str(models),
        "precision": "fp32",
        "workers": str(options.workers),
        # A short queue: bursts fill it, and what is in it is answered within the deadline on a slow machine too.
        "max_queue": "32",
        "memory_reserve_percent": "0",  # as many workers as were asked for, whoever else is at work here
    }
    server = LocalServer(folder / "run", **settings)
    try:
        server.start().wait_ready(options.workers)
        outcomes = options.out / "good.jsonl"
        outcomes.unlink(missing_ok=True)
        yield Live(server, models, Gauges(), Watch(server.pid), outcomes, measure_logs(server.run))
    finally:
        server.stop()
        for path in server.run.glob("*.log*"):
            shutil.copy(path, options.out)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
