"""Measure the cost of heat maps: ``python -m scripts.bench.heatmaps --pictures FOLDER``.

First the networks alone, with the features as a second output and without, in turns: what everybody pays,
whether they want heat maps or not. Then a server: requests without heat maps, with the strongest label's,
with every label's, and drawn, in turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from app.engines.conversion import convert_bundle
from app.engines.openvino import computing_type, cpu_precisions
from app.models.artifacts import NETWORKS, Artifacts
from app.models.bundle import find_bundle
from app.models.precision import FP32
from app.settings import ROOT, Settings
from scripts.bench.contenders import ours
from scripts.bench.form import IMAGE
from scripts.bench.load import measure

import openvino  # isort: skip  (after app.engines.openvino: see there)

ASKED = {
    "without": "/predict",
    "strongest": "/predict?heatmap=strongest",
    "every label": "/predict?heatmap=all",
    "drawn": "/predict/heatmap",
}
SETTLE_S = 2  # for what the clients before had asked and did not wait for


def compile_one(path: Path, precision: str, with_features: bool) -> openvino.InferRequest:
    """Compile a network for one thread, as a lane has it."""
    core = openvino.Core()
    network = core.read_model(path)
    if not with_features:
        network.remove_result(network.get_results()[1])
    computing = "f32" if precision == FP32 else computing_type()
    settings = {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": 1,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": computing,
    }
    return core.compile_model(network, "CPU", settings).create_infer_request()


def compare_networks(artifacts: Artifacts, precision: str, batch: int, rounds: int) -> np.ndarray:
    """Return (rounds,) times with features over those without, each of two forwards in turns."""
    path = artifacts.find_network(NETWORKS[precision])
    if path is None:
        raise FileNotFoundError(f"there is no network for {precision}")
    requests = [compile_one(path, precision, with_features) for with_features in (False, True)]
    side = artifacts.bundle.config.transform.side
    pixels = np.random.default_rng(0).integers(0, 256, (batch, 3, side, side), np.uint8)

    def forward(request: openvino.InferRequest) -> float:
        started = time.perf_counter()
        request.infer({0: pixels}, share_inputs=True, share_outputs=True)
        return time.perf_counter() - started

    for request in requests:
        forward(request)
    times = []
    for turn in range(rounds):
        pair = [(place, forward(requests[place])) for place in ((0, 1) if turn % 2 else (1, 0))]
        times.append([took for _, took in sorted(pair)])
    without, with_features = np.array(times).T
    slowdown: np.ndarray = with_features / without
    return slowdown


def compare_requests(pictures: Path, precision: str, options: argparse.Namespace) -> None:
    """Load a server with each kind of request in turns; print requests/s, CPU time, and both over those without.

    Others who use the machine take from the requests/s, and hardly from the CPU time.
    """
    with tempfile.TemporaryDirectory() as folder:
        IMAGE.write_bodies(pictures, Path(folder))
        first = sorted(pictures.glob("*.jpg"))[0]
        with ours(first, precision=precision) as running:
            base = running.url.removesuffix("/model_predict")
            rows: dict[str, list[tuple[float, float]]] = {name: [] for name in ASKED}
            for turn in range(options.rounds + 1):
                for name, path in ASKED.items():
                    time.sleep(SETTLE_S)
                    asking = replace(running, url=base + path)
                    sample = measure(asking, Path(folder), options.clients, options.seconds)
                    if sample.errors:
                        raise SystemExit(f"{path}: {sample.errors} errors")
                    if turn:  # the first is for warming up
                        rows[name].append((sample.requests_per_s, sample.cpu_s_per_request))
    without = np.array(rows["without"])
    for name, measured in rows.items():
        speed, cpu_s = np.median(measured, axis=0)
        faster, dearer = (measured / without).T
        print(f"{precision:5} {name:12} {speed:7.1f} requests/s  {spread(faster)}", end="  ")
        print(f"{cpu_s * 1000:7.1f} ms of CPU  {spread(dearer)}", flush=True)


def spread(ratios: np.ndarray) -> str:
    """Return the median with the middle half."""
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return f"{middle:.3f} ({low:.3f}–{high:.3f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench.heatmaps", description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of JPEG files")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--forwards", type=int, default=100)
    options = parser.parse_args()
    artifacts = Artifacts(find_bundle(ROOT / "models"), Settings.from_env({}).cache)
    convert_bundle(artifacts)
    usable = [name for name, reason in cpu_precisions(artifacts).items() if not reason]
    for precision in usable:
        for batch in (1, 4):
            ratios = compare_networks(artifacts, precision, batch, options.forwards)
            print(f"{precision:5} network alone, batch {batch}: time {spread(ratios)}", flush=True)
    for precision in usable:
        compare_requests(options.pictures, precision, options)


if __name__ == "__main__":
    main()
