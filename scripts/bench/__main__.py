"""Measure: rounds in which every contender is started, loaded and stopped in turn."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from app.settings import ROOT
from app.system.gpus import list_gpus
from app.system.machine import count_cores, processor
from scripts.bench.answers import labels_in, reference
from scripts.bench.chart import draw_chart
from scripts.bench.contenders import CONTENDERS, Contender, wait_for_answer
from scripts.bench.load import measure
from scripts.bench.overload import measure_overload
from scripts.bench.report import print_report, rows_of
from scripts.demo_scenes import draw_scene

BARE = ("bare-fp32", "bare-bf16", "bare-int8")
WARM_UP_S = 2
PICTURES = 24


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/benchmark", description=__doc__)
    names = [*BARE, *(contender.name for contender in CONTENDERS)]
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=names,
        default=names,
        metavar="NAME",
        help=f"who takes part: {', '.join(names)}",
    )
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 32, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15, help="each measurement")
    parser.add_argument(
        "--pictures", type=Path, help="folder of JPEG files; default: drawn, 500 × 375"
    )
    parser.add_argument(
        "--overload",
        type=float,
        metavar="TIMES",
        help="then send ours that many times what it can do, at random (Poisson) times",
    )
    parser.add_argument(
        "--poisson",
        type=float,
        metavar="P99_MS",
        help="then look for the highest Poisson rate whose p99 stays below",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmark")
    return parser.parse_args()


def main() -> None:
    """Run the rounds, then print the table and write JSON and chart."""
    options = parse_arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    pictures = options.pictures or draw_pictures(Path(tempfile.mkdtemp(prefix="pictures-")))
    first = sorted(pictures.glob("*.jpg"))[0]
    chosen = [contender for contender in CONTENDERS if contender.name in options.contenders]
    installed = [one for one in chosen if not one.needs or any(ROOT.glob(one.needs))]
    for contender in chosen:
        if contender not in installed:
            print(
                f"{contender.name} is not installed ({contender.needs}): left out", file=sys.stderr
            )
    bare = [name for name in BARE if name in options.contenders]

    results: dict[str, list[dict[str, Any]]] = {
        name: [] for name in [*bare, *(c.name for c in installed)]
    }
    steps = options.rounds * (len(bare) + len(installed) * len(options.clients))
    with tqdm(total=steps, unit="measurement", file=sys.stderr) as progress:
        for _ in range(options.rounds):
            for name in bare:
                progress.set_description(name)
                results[name].append(run_bare(name, options.seconds))
                progress.update()
            for contender in installed:
                progress.set_description(contender.name)
                results[contender.name].append(
                    run_round(contender, first, pictures, options, progress)
                )

    report = {
        "machine": {
            "processor": processor(),
            "cores": count_cores(),
            "gpus": [gpu.name for gpu in list_gpus()],
        },
        "command": f"scripts/benchmark {' '.join(sys.argv[1:])}".strip(),
        "labels": sorted(reference(first)),
        "results": results,
    }
    for name in [name for name in results if name.startswith("ours-") and "no-model" not in name]:
        if options.overload or options.poisson:
            best = max(s["requests_per_s"] for r in results[name] for s in r["samples"])
            contender = next(c for c in installed if c.name == name)
            with contender.start(first) as running:
                report[f"open-loop {name}"] = measure_overload(running.url, pictures, best, options)
    (options.out / "benchmark.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "benchmark.svg").write_text(draw_chart(rows_of(report)))
    print_report(report)
    print(f"\nwritten to {options.out}/benchmark.json and .svg")


def run_bare(name: str, seconds: float) -> dict[str, Any]:
    """Measure an engine in a process of its own."""
    command = [sys.executable, "-m", "scripts.bench.bare", name.removeprefix("bare-"), str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run_round(
    contender: Contender, first: Path, pictures: Path, options: argparse.Namespace, progress: tqdm
) -> dict[str, Any]:
    """Start a contender, warm it up, measure it under every number of clients, stop it."""
    with (
        tempfile.TemporaryDirectory(prefix="bodies-") as folder,
        contender.start(first) as running,
    ):
        bodies = Path(folder)
        running.form.write_bodies(pictures, bodies)
        measure(running, bodies, max(options.clients), WARM_UP_S)
        samples = []
        for clients in options.clients:
            # What the load before has left behind is answered first.
            wait_for_answer(running.url, running.pid, running.form, first, time.monotonic())
            samples.append(asdict(measure(running, bodies, clients, options.seconds)))
            progress.update()
        labels = sorted(labels_in(running.answer))
        return {"ready_s": running.ready_s, "labels": labels, "samples": samples}


def draw_pictures(folder: Path) -> Path:
    """Draw scenes with the detail of photographs: 500 × 375, some 100 kB."""
    for index in range(PICTURES):
        rng = np.random.default_rng([9, index])
        scene = draw_scene(rng).image.resize((500, 375))
        noisy = np.asarray(scene, np.float32) + rng.normal(0, 9, (375, 500, 1))
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{index:02}.jpg", quality=92)
    return folder


if __name__ == "__main__":
    main()
