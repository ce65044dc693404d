"""Make the reduced precisions of a bundle and measure each against fp32: ``scripts/optimize``.

The report (``precision.json``) lies in the bundle afterwards; the server reads it
(``SERVING_PRECISION``). Takes a minute or two on two cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from app.bundle import find_bundle
from app.conversion import convert_bundle
from app.decision import Decision
from app.engines import Choice, Engine, load_engine
from app.errors import BundleError, ServingError, SettingsError
from app.footprint import default_batch
from app.gpus import list_gpus
from app.images import Frame, decode_image
from app.logs import say
from app.machine import processor
from app.optimized import Optimized
from app.precision import FP32, TF32, Measurement, Report
from app.quantisation import quantise
from app.settings import Settings, count_cores

MIN_PICTURES = 100  # with fewer, one picture would be more than the 1 % that may differ
SPEED_ROUNDS = 5


def optimize(settings: Settings, pictures: Path | None) -> tuple[Report, Path]:
    """Convert, quantise, measure; return the report and where it lies.

    Args:
        settings: which bundle.
        pictures: folder of pictures of the kind that will come; None takes the bundle's own.

    Raises:
        BundleError: the bundle cannot be served, or there are too few pictures.
    """
    bundle = find_bundle(settings.models, settings.model)
    optimized = Optimized(bundle, settings.cache)
    folder = pictures or bundle.folder / "calibration"
    images = read_pictures(folder, settings, bundle.card.frame)
    # As reduced precisions are served.
    fast = read_pictures(folder, settings, bundle.card.frame, fast=True)
    say(f"{bundle.name}, version {bundle.version}: converting")
    convert_bundle(optimized)
    say(f"fp32 reference (eager torch) on {len(images)} pictures")
    reference = run_engine(load(optimized, "eager", FP32), images)
    say("quantising to int8")
    quantise(optimized, images)

    rows = []
    for engine, precision, device in candidates(optimized):
        say(f"measuring {precision} on {device}")
        served = images if precision == FP32 else fast
        row = measure(optimized, (engine, precision, device), served, reference)
        say(f"  {row.agreement:.2%} of the label sets, {row.images_per_s:.0f} images/s")
        rows.append(row)
    report = Report(optimized.weights_hash, len(images), tuple(rows))
    return report, optimized.add_report(report.as_text())


def candidates(optimized: Optimized) -> list[tuple[str, str, str]]:
    """Return (engine, precision, device) of everything that this machine can run."""
    from app.engines import openvino  # noqa: PLC0415

    usable = openvino.usable_precisions(optimized)
    found = [("openvino", precision, "cpu") for precision, reason in usable.items() if not reason]
    if torch.cuda.is_available():
        found += [("cuda", precision, "cuda:0") for precision in (FP32, TF32, "fp16")]
    elif list_gpus():
        say(
            "there is a GPU, but torch cannot use it: is its driver too old? only the CPU is measured"
        )
    return found


def load(optimized: Optimized, engine: str, precision: str, device: str = "cpu") -> Engine:
    """Load an engine with all the cores."""
    batch = default_batch(device)
    return load_engine(Choice(engine, precision, device, count_cores(), batch), optimized)


def measure(
    optimized: Optimized,
    candidate: tuple[str, str, str],
    images: np.ndarray,
    reference: np.ndarray,
) -> Measurement:
    """Measure one candidate against the reference's logits."""
    engine_name, precision, device = candidate
    engine = load(optimized, engine_name, precision, device)
    logits = run_engine(engine, images)
    deviation = np.abs(logits - reference)
    network = optimized.find_network("int8" if precision == "int8" else FP32)
    size = network.with_suffix(".bin").stat().st_size if network else 0
    kind = device.partition(":")[0]
    return Measurement(
        kind,
        precision,
        round(measure_agreement(optimized.bundle.card.decision, logits, reference), 5),
        round(float(deviation.max()), 4),
        round(float(deviation.mean()), 5),
        round(measure_speed(engine, images), 1),
        round(size / 1e6, 1),
        list_gpus()[0].name if kind == "cuda" else processor(),
    )


def measure_agreement(decision: Decision, logits: np.ndarray, reference: np.ndarray) -> float:
    """Return the share of pictures whose set of passing classes is exactly the reference's."""
    same = decision.passes(logits) == decision.passes(reference)
    return float(same.all(axis=1).mean())


def measure_speed(engine: Engine, images: np.ndarray) -> float:
    """Return images per second: the best batch size's median of some rounds."""
    speeds = []
    for size in (1, 2, 4, default_batch(engine.device)):
        engine.forward(list(images[:size]))
        rounds = []
        for _ in range(SPEED_ROUNDS):
            started = time.perf_counter()
            engine.forward(list(images[:size]))
            rounds.append(size / (time.perf_counter() - started))
        speeds.append(float(np.median(rounds)))
    return max(speeds)


def run_engine(engine: Engine, images: np.ndarray) -> np.ndarray:
    """Return (n, classes) logits, in batches."""
    batch = default_batch(engine.device)
    starts = range(0, len(images), batch)
    parts = [engine.forward(list(images[start : start + batch])).logits for start in starts]
    return np.concatenate(parts)


def read_pictures(folder: Path, settings: Settings, frame: Frame, fast: bool = False) -> np.ndarray:
    """Return every picture of a folder: (n, 3, side, side) uint8, decoded ``fast`` or exactly.

    Raises:
        BundleError: there are too few; the text says what is needed.
    """
    images = []
    for path in sorted(folder.glob("**/*")) if folder.is_dir() else []:
        if path.is_file():
            try:
                with path.open("rb") as file:
                    images.append(
                        decode_image(file, settings.max_pixels, settings.exif_rotate, fast, frame)
                    )
            except ServingError as error:
                if not fast:
                    say(f"left out {path}: {error.message}")
    if len(images) < MIN_PICTURES:
        raise BundleError(
            f"{folder} holds {len(images)} pictures; at least {MIN_PICTURES} of the kind that will "
            "come are needed, to calibrate and to measure (scripts/optimize --pictures FOLDER)"
        )
    return np.stack(images)


def main() -> None:
    """Optimize the bundle that the environment's settings choose, and print the report."""
    parser = argparse.ArgumentParser(prog="scripts/optimize", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--pictures", type=Path, help="folder of pictures; default: the model's calibration/"
    )
    options = parser.parse_args()
    try:
        report, path = optimize(Settings.from_env(os.environ), options.pictures)
    except (BundleError, SettingsError) as error:
        sys.exit(str(error))
    print(
        f"{'device':7}{'precision':>10}{'agreement':>11}{'largest':>9}{'mean':>8}{'images/s':>10}{'MB':>7}"
    )
    for row in report.measurements:
        print(
            f"{row.device:7}{row.precision:>10}{row.agreement:>11.2%}{row.max_deviation:>9.3f}"
            f"{row.mean_deviation:>8.4f}{row.images_per_s:>10.1f}{row.size_mb:>7.1f}"
        )
    print(f"written to {path}; a running server takes it over within seconds")


if __name__ == "__main__":
    main()
