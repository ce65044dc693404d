"""Precision is earned: a reduced precision is served only where it was measured to agree with fp32.

``scripts/optimize`` measures each precision on the bundle's calibration pictures and writes the
report ``precision.json`` into the bundle; here it is read and the precision chosen.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from app.errors import BundleError

FP32 = "fp32"
TF32 = "tf32"  # fp32 on a GPU's tensor cores, with ten bits of the mantissa; it has to be earned
REPORT_FILE = "precision.json"
MIN_AGREEMENT = 0.99  # of the label sets, against fp32


@dataclass(frozen=True)
class Measurement:
    """One precision on one kind of device, against the fp32 reference on the calibration pictures.

    Attributes:
        device: ``cpu`` or ``cuda``.
        precision: ``fp32``, ``tf32``, ``bf16``, ``fp16`` or ``int8``.
        agreement: share of the pictures whose label set is exactly the reference's, 0..1.
        max_deviation: largest difference of any logit.
        mean_deviation: mean absolute difference of all logits.
        images_per_s: the bare engine's speed at its best batch, on ``processor``.
        size_mb: the weights' size on disk as served, 10⁶ bytes.
        processor: what it was measured on.
    """

    device: str
    precision: str
    agreement: float
    max_deviation: float
    mean_deviation: float
    images_per_s: float
    size_mb: float
    processor: str


@dataclass(frozen=True)
class Report:
    """What ``scripts/optimize`` found. ``weights`` is the content hash that it is true for."""

    weights: str
    pictures: int
    measurements: tuple[Measurement, ...]

    def as_text(self) -> str:
        """Return the report's file."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def read_report(path: Path, weights: str) -> Report | None:
    """Return the report of a file; None where there is none, or it is about other weights.

    Raises:
        BundleError: the file is no such report.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        measurements = tuple(Measurement(**row) for row in content["measurements"])
        report = Report(str(content["weights"]), int(content["pictures"]), measurements)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise BundleError(f"{path} is no precision report: {error!r}") from error
    return report if report.weights == weights else None


def choose_precision(
    report: Report | None, device: str, usable: dict[str, str], wanted: str, insist: bool
) -> tuple[str, str]:
    """Choose the precision to serve.

    Args:
        report: what was measured, if anything was.
        device: ``cpu`` or ``cuda``.
        usable: every precision that the engine knows → empty, or why this machine cannot serve it.
        wanted: a precision, or ``auto`` for the fastest that agrees.
        insist: serve ``wanted`` even where it does not agree, or was never measured.

    Returns:
        The precision, and the reason in a sentence.

    Raises:
        BundleError: ``wanted`` cannot be served, or has not earned it.
    """
    measured = (
        {row.precision: row for row in report.measurements if row.device == device}
        if report
        else {}
    )
    if wanted == "auto":
        earned = [
            row
            for row in measured.values()
            if row.agreement >= MIN_AGREEMENT and not usable.get(row.precision, "unknown")
        ]
        if earned:
            best = max(earned, key=lambda row: row.images_per_s)
            return best.precision, f"the fastest that agrees: {describe(best, report)}"
        what = (
            "no reduced precision agrees here" if measured else "no reduced precision was measured"
        )
        return FP32, f"{what}; scripts/optimize measures them"
    if reason := usable.get(wanted, f"{device} knows only {', '.join(usable)}"):
        raise BundleError(f"SERVING_PRECISION={wanted} cannot be served here: {reason}")
    row = measured.get(wanted)
    if wanted == FP32 or (row and row.agreement >= MIN_AGREEMENT):
        return wanted, f"asked for; {describe(row, report)}" if row else "asked for"
    found = describe(row, report) if row else "it was not measured for these weights"
    if insist:
        return wanted, f"insisted on, though {found}"
    raise BundleError(
        f"SERVING_PRECISION={wanted} is refused: {found}; {MIN_AGREEMENT:.0%} of the label sets must agree "
        "(scripts/optimize measures, SERVING_INSIST=on serves it all the same)"
    )


def describe(row: Measurement, report: Report | None) -> str:
    """Return a measurement in words."""
    pictures = report.pictures if report else 0
    return (
        f"{row.precision} gave the label sets of fp32 for {row.agreement:.2%} of {pictures} pictures, "
        f"{row.images_per_s:.0f} images/s on {row.processor}"
    )
