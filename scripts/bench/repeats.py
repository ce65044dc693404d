"""Measure the answer cache: ``python -m scripts.bench.repeats --pictures FOLDER``.

Two servers, one with the answer cache and one without, are loaded in turns. A share of the requests sends an image
for the first time, the others one of a few that were sent before. The server without the cache shows what
it saves; with a share of 1 its cost remains.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

import numpy as np

from scripts.bench.contenders import ours
from scripts.bench.form import IMAGE
from scripts.bench.heatmaps import spread
from scripts.bench.load import Running, Sample, measure

SCRIPT = Path(__file__).parent / "repeats.lua"
CACHE_MB = "64"


def measure_in_turns(
    servers: dict[str, Running], share: float, options: argparse.Namespace, bodies: Path
) -> dict[str, list[Sample]]:
    """Return the samples of each server, by rounds; the order changes from round to round."""
    samples: dict[str, list[Sample]] = {name: [] for name in servers}
    for turn in range(options.rounds + 1):
        for name in list(servers)[:: 1 if turn % 2 else -1]:
            own = {
                "BENCH_NEW": str(share),
                "BENCH_TAIL": str(len(IMAGE.after)),
                "BENCH_RUN": str(next(options.runs)),
            }
            running, seconds = servers[name], options.seconds
            sample = measure(running, bodies, options.clients, seconds, SCRIPT, **own)
            if sample.errors:
                raise SystemExit(f"cache {name}: {sample.errors} errors")
            if turn:  # the first is for warming up
                samples[name].append(sample)
    return samples


def report(share: float, samples: dict[str, list[Sample]]) -> None:
    """Print the medians of both servers, and the ratios of their requests/s and CPU times within the rounds."""
    for name, own in samples.items():
        rows = [(s.requests_per_s, s.p50_ms, s.p99_ms, s.cpu_s_per_request * 1000) for s in own]
        speed, p50, p99, cpu_ms = np.median(rows, axis=0)
        print(f"new {share:4.0%}  cache {name:3}  {speed:7.1f} requests/s  ", end="")
        print(f"p50 {p50:6.1f} ms  p99 {p99:6.1f} ms  {cpu_ms:5.1f} ms of CPU")
    speeds, cpu = (
        [np.array([getattr(each, what) for each in samples[name]]) for name in ("on", "off")]
        for what in ("requests_per_s", "cpu_s_per_request")
    )
    print(f"new {share:4.0%}  on / off   {spread(speeds[0] / speeds[1])} requests/s", end="  ")
    print(f"{spread(cpu[0] / cpu[1])} CPU", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench.repeats", description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of JPEG files")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--new", nargs="+", type=float, default=[0, 0.5, 0.9, 1], help="shares")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    options = parser.parse_args()
    options.runs = itertools.count()
    first = sorted(options.pictures.glob("*.jpg"))[0]
    with (
        tempfile.TemporaryDirectory(prefix="bodies-") as folder,
        ours(first, precision=options.precision) as off,
        ours(first, precision=options.precision, answer_cache_mb=CACHE_MB) as on,
    ):
        IMAGE.write_bodies(options.pictures, Path(folder))
        for share in options.new:
            report(share, measure_in_turns({"off": off, "on": on}, share, options, Path(folder)))


if __name__ == "__main__":
    main()
