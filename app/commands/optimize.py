"""Make the reduced precisions of a bundle and measure each against fp32: ``scripts/optimize``.

The report (``precision.json``) is written into the bundle, where the server reads it
(``SERVING_PRECISION``). Takes some minutes on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from app.control.footprint import default_batch
from app.engines.conversion import convert_bundle
from app.engines.engine import Choice, Engine
from app.engines.loader import load_engine
from app.engines.quantization import quantize
from app.errors import BundleError, ServingError, SettingsError
from app.logs import say
from app.models.agreement import CONFIDENCE, compare, images_needed
from app.models.artifacts import Artifacts
from app.models.bundle import find_bundle
from app.models.precision import (
    FP32,
    INT8,
    MIN_AGREEMENT,
    TF32,
    Measurement,
    Report,
    digest_network,
    floor_percent,
)
from app.processing.images import InputTransform, decode_image
from app.settings import Settings
from app.system.gpus import list_gpus
from app.system.machine import count_cores, processor

CALIBRATING = 4  # one image in four is for calibration, the others for measurement
SPEED_ROUNDS = 5


@dataclass(frozen=True)
class Images:
    """The distinct images of a folder, divided by purpose: (n, 3, side, side) uint8.

    Attributes:
        calibrating: int8's calibration images, decoded as reduced precisions are served.
        exact: the measured images, decoded as fp32 is served.
        fast: the same images, decoded as reduced precisions are served.
    """

    calibrating: np.ndarray
    exact: np.ndarray
    fast: np.ndarray


def optimize(settings: Settings, pictures: Path | None) -> tuple[Report, Path]:
    """Convert, quantize and measure; return the report and its path.

    Args:
        settings: name the bundle.
        pictures: a folder of representative images; None uses the bundle's ``calibration``.

    Raises:
        BundleError: the bundle cannot be served, or there are too few images.
    """
    bundle = find_bundle(settings.models, settings.model)
    artifacts = Artifacts(bundle, settings.cache)
    images = read_images(
        pictures or bundle.folder / "calibration", settings, bundle.config.transform
    )
    say(f"{bundle.name}, version {bundle.version}: converting")
    convert_bundle(artifacts)
    say(f"quantizing to int8: calibrating on {len(images.calibrating):,} images")
    quantize(artifacts, images.calibrating)
    say(f"fp32 reference (eager torch) on {len(images.exact):,} other images")
    reference = run_engine(load(artifacts, "eager", FP32), images.exact)

    rows = []
    for engine, precision, device in candidates(artifacts):
        say(f"measuring {precision} on {device}")
        served = images.exact if precision == FP32 else images.fast
        row = measure_precision(artifacts, (engine, precision, device), served, reference)
        say(f"  {row.objection or 'it agrees'}; {row.images_per_s:.0f} images/s")
        rows.append(row)
    report = Report(
        artifacts.weights_digest,
        bundle.config.digest(),
        len(images.calibrating),
        len(images.exact),
        tuple(rows),
    )
    return report, artifacts.add_report(report.as_text())


def candidates(artifacts: Artifacts) -> list[tuple[str, str, str]]:
    """Return (engine, precision, device) of everything that this machine can run."""
    from app.engines import openvino  # noqa: PLC0415

    supported = openvino.cpu_precisions(artifacts)
    runnable = [
        ("openvino", precision, "cpu") for precision, reason in supported.items() if not reason
    ]
    if torch.cuda.is_available():
        runnable += [("cuda", precision, "cuda:0") for precision in (FP32, TF32, "fp16")]
    elif list_gpus():
        say(
            "there is a GPU, but torch cannot use it: is its driver too old? only the CPU is measured"
        )
    return runnable


def load(artifacts: Artifacts, engine: str, precision: str, device: str = "cpu") -> Engine:
    """Load an engine on all cores."""
    batch = default_batch(device)
    return load_engine(Choice(engine, precision, device, count_cores(), batch), artifacts)


def measure_precision(
    artifacts: Artifacts,
    candidate: tuple[str, str, str],
    images: np.ndarray,
    reference: np.ndarray,
) -> Measurement:
    """Measure one (engine, precision, device) against the reference's logits."""
    engine_name, precision, device = candidate
    engine = load(artifacts, engine_name, precision, device)
    logits = run_engine(engine, images)
    bundle = artifacts.bundle
    with np.errstate(invalid="ignore"):  # infinite on both sides
        deviation = np.abs(logits - reference)
    finite = bool(np.isfinite(deviation).all())
    network = artifacts.find_network(INT8 if precision == INT8 else FP32)
    size = network.with_suffix(".bin").stat().st_size if network else 0
    kind = device.partition(":")[0]
    return Measurement(
        kind,
        precision,
        compare(bundle.config.decision, logits, reference, bundle.class_names, MIN_AGREEMENT),
        round(float(deviation.max()), 4) if finite else None,
        round(float(deviation.mean()), 5) if finite else None,
        round(measure_speed(engine, images), 1),
        round(size / 1e6, 1),
        list_gpus()[0].name if kind == "cuda" else processor(),
        digest_network(network) if precision == INT8 else "",
    )


def measure_speed(engine: Engine, images: np.ndarray) -> float:
    """Return images per second at the best batch size; the median of several rounds."""
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
    """Return (n, classes) logits, computed in batches."""
    batch = default_batch(engine.device)
    starts = range(0, len(images), batch)
    parts = [engine.forward(list(images[start : start + batch])).logits for start in starts]
    return np.concatenate(parts)


def read_images(folder: Path, settings: Settings, transform: InputTransform) -> Images:
    """Return a folder's images, divided into calibration and measurement.

    An image's purpose is chosen by its pixels, so it never changes with the folder's other content. Duplicates
    count once.

    Raises:
        BundleError: there are too few to measure on; the message says how many are needed.
    """
    calibrating, exact, fast = [], [], []
    for pixels, as_served, digest in decode_distinct(folder, settings, transform):
        if digest[0] % CALIBRATING == 0:
            calibrating.append(as_served)
        else:
            exact.append(pixels)
            fast.append(as_served)
    needed, with_one = (images_needed(differing, MIN_AGREEMENT) for differing in (0, 1))
    if len(exact) < needed or not calibrating:
        raise BundleError(
            f"{folder} holds {len(exact) + len(calibrating):,} different images, of which {len(exact):,} are to be "
            f"measured on (one in {CALIBRATING} calibrates instead); at least {needed} are needed, "
            f"{with_one} if one of them differs, to show an agreement of {MIN_AGREEMENT * 100:.0f} %. Until "
            "then fp32 is served (scripts/optimize --pictures FOLDER: of the kind that will come)"
        )
    return Images(np.stack(calibrating), np.stack(exact), np.stack(fast))


def decode_distinct(
    folder: Path, settings: Settings, transform: InputTransform
) -> Iterator[tuple[np.ndarray, np.ndarray, bytes]]:
    """Yield each distinct image of a folder: decoded exactly, decoded fast, and a digest of its pixels."""
    first: dict[bytes, Path] = {}
    for path in sorted(folder.glob("**/*")) if folder.is_dir() else []:
        if not path.is_file():
            continue
        try:
            pixels, as_served = (
                decode_file(path, settings, transform, fast=fast) for fast in (False, True)
            )
        except (ServingError, OSError) as error:
            say(f"left out {path}: {getattr(error, 'message', error)}")
            continue
        digest = hashlib.sha256(pixels.tobytes()).digest()
        if digest in first:
            say(f"left out {path}: it shows the same as {first[digest]}")
            continue
        first[digest] = path
        yield pixels, as_served, digest


def decode_file(
    path: Path, settings: Settings, transform: InputTransform, fast: bool
) -> np.ndarray:
    """Return one image as the network's input. Raises ServingError or OSError."""
    with path.open("rb") as file:
        return decode_image(file, settings.max_pixels, settings.exif_rotate, fast, transform)


def main() -> None:
    """Optimize the bundle chosen by the environment's settings, and print the report."""
    parser = argparse.ArgumentParser(prog="scripts/optimize", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--pictures", type=Path, help="folder of images; default: the model's calibration/"
    )
    options = parser.parse_args()
    try:
        report, path = optimize(Settings.from_env(os.environ), options.pictures)
    except (BundleError, SettingsError) as error:
        sys.exit(str(error))
    print_report(report)
    print(f"written to {path}; a running server takes it over within seconds")


def print_report(report: Report) -> None:
    """Print a line for each measurement, and the conclusion."""
    print(
        f"{report.measured:,} images measured, {report.calibrated:,} others calibrated on; shares of the label "
        f"sets that are fp32's, and what is shown of them with {CONFIDENCE * 100:.0f} % confidence"
    )
    print(
        f"{'device':7}{'precision':>10}{'differ':>8}{'share':>9}{'shown':>9}{'labelled':>10}{'shown':>9}"
        f"{'largest':>9}{'mean':>8}{'images/s':>10}{'MB':>7}  worst class"
    )
    for row in report.measurements:
        print(format_row(row))
    for row in report.measurements:
        if row.objection:
            print(f"{row.precision} on {row.device} has not earned its place: {row.objection}")
    if all(row.objection for row in report.measurements if row.precision != FP32):
        print("no reduced precision has earned its place: fp32 is served")


def format_row(row: Measurement) -> str:
    """Return a measurement as a line of the table."""
    everywhere, labelled = row.agreement.everywhere, row.agreement.labelled
    shares = (everywhere.share, everywhere.bound, labelled.share, labelled.bound)
    share, shown, of_labelled, shown_of_labelled = map(floor_percent, shares)
    deviations = (row.max_deviation, row.mean_deviation)
    largest, mean = ("NaN" if value is None else f"{value:.4f}" for value in deviations)
    worst = row.agreement.worst_class
    return (
        f"{row.device:7}{row.precision:>10}{everywhere.differing:>8,}{share:>9}{shown:>9}{of_labelled:>10}"
        f"{shown_of_labelled:>9}{largest:>9}{mean:>8}{row.images_per_s:>10.1f}{row.size_mb:>7.1f}"
        + (f"  {worst.name}: {worst.count.differing:,} of {worst.count.images:,}" if worst else "")
    )


if __name__ == "__main__":
    main()
