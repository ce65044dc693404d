"""Reduced precisions: the report of their measured agreement with fp32, and the choice of one.

``scripts/optimize`` measures each precision on images that were not used for calibration and writes the report
``precision.json`` into the bundle. A reduced precision is served only if it was measured to agree with fp32.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import BundleError
from app.logs import warn_once
from app.models.agreement import CONFIDENCE, Agreement, ClassCount, Count, images_needed
from app.models.untrusted_files import read_bytes
from app.system.machine import processor

FP32 = "fp32"
INT8 = "int8"
TF32 = "tf32"  # fp32 on a GPU's tensor cores, with ten bits of the mantissa: a reduced precision
REPORT_FILE = "precision.json"
REPORT_FORMAT = 3  # 2 had no config digest
MAX_REPORT_BYTES = 1_000_000
MAX_COUNT = 1_000_000  # of images, classes, images/s; a bound of more would take minutes to compute
MAX_SHOWN = 60  # characters of a wrong value in a warning
MIN_AGREEMENT = 0.99  # of the label sets with fp32's, at the bound

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measurement:
    """The measurement of one precision on one kind of device, against the fp32 reference.

    Attributes:
        device: ``cpu`` or ``cuda``.
        precision: ``fp32``, ``tf32``, ``bf16``, ``fp16`` or ``int8``.
        agreement: of its label sets with the reference's.
        max_deviation: largest difference of any logit; None if one is not finite.
        mean_deviation: mean absolute difference of all logits; None if one is not finite.
        images_per_s: the bare engine's throughput at its best batch size, on ``processor``.
        size_mb: the weights' size on disk as served, 10⁶ bytes.
        processor: the CPU or GPU of the measurement.
        network: digest of the measured quantized network; empty for other precisions.
    """

    device: str
    precision: str
    agreement: Agreement
    max_deviation: float | None
    mean_deviation: float | None
    images_per_s: float
    size_mb: float
    processor: str
    network: str = ""

    @property
    def objection(self) -> str:
        """The reason why the agreement is not sufficient, or ""."""
        counts = {
            "images": self.agreement.everywhere,
            "images with a label": self.agreement.labelled,
        }
        for images, count in counts.items():
            if count.bound < MIN_AGREEMENT:
                needed = images_needed(count.differing, MIN_AGREEMENT)
                return (
                    f"{count.differing:,} of {count.images:,} {images} differ, which shows an agreement of at "
                    f"least {floor_percent(count.bound)} with {CONFIDENCE * 100:.0f} % confidence; for "
                    f"{MIN_AGREEMENT * 100:.0f} % no more than {count.differing:,} of {needed:,} may differ"
                )
        worst = self.agreement.worst_class
        if worst is None:
            return ""
        # A class has too few images to prove 99 %, but enough to rule it out. With many classes one
        # of them looks bad by chance; hence Bonferroni's division.
        limit = (1 - CONFIDENCE) / self.agreement.classes_seen
        if worst.count.probability(MIN_AGREEMENT) >= limit:
            return ""
        return (
            f"{worst.name} differs on {worst.count.differing:,} of the {worst.count.images:,} images where either "
            f"names it, which rules out an agreement of {MIN_AGREEMENT * 100:.0f} %"
        )


@dataclass(frozen=True)
class Report:
    """The report of ``scripts/optimize``.

    Attributes:
        weights: the weights digest of the measured model.
        config: its config digest.
        calibrated: the number of images that int8 was calibrated on; none of them was measured on.
        measured: the number of distinct images that were measured on.
        measurements: one for each device and precision.
    """

    weights: str
    config: str
    calibrated: int
    measured: int
    measurements: tuple[Measurement, ...]

    def as_text(self) -> str:
        """Return the report's JSON. Its shares and bounds are for readers; ``read_report`` recomputes them."""
        content = {"format": REPORT_FORMAT, "confidence": CONFIDENCE, **dataclasses.asdict(self)}
        for row, written in zip(self.measurements, content["measurements"], strict=True):
            written["agreement"]["everywhere"] = write_count(row.agreement.everywhere)
            written["agreement"]["labelled"] = write_count(row.agreement.labelled)
            if worst := row.agreement.worst_class:
                written["agreement"]["worst_class"]["count"] = write_count(worst.count)
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def write_count(count: Count) -> dict[str, float]:
    """Return a count's JSON; share and bound are rounded down."""
    share, bound = (int(value * 1e5) / 1e5 for value in (count.share, count.bound))
    return {"images": count.images, "differing": count.differing, "share": share, "bound": bound}


def read_report(path: Path, weights: str, config: str, int8: Path | None) -> Report | None:
    """Return the report of a file, without its rows about another int8 network than ``int8``.

    None if there is no file, if it is about other weights or another config, and, with a warning, if it is
    unreadable or of another release.
    """
    try:
        if not os.path.lexists(path):
            return None
        report = parse_report(read_bytes(path, MAX_REPORT_BYTES))
    except (BundleError, ValueError, TypeError, LookupError, RecursionError) as error:
        warn_once(
            logger,
            f"{path} is left out, so fp32 is served; scripts/optimize makes it anew: {error}",
        )
        return None
    if (report.weights, report.config) != (weights, config):
        return None
    digest = digest_network(int8)
    rows = tuple(row for row in report.measurements if row.network in ("", digest))
    if len(rows) < len(report.measurements) and digest:
        warn_once(
            logger,
            f"{path} measured another int8 network than {int8}, which is not served; "
            "scripts/optimize makes and measures it anew",
        )
    return dataclasses.replace(report, measurements=rows)


def digest_network(path: Path | None) -> str:
    """Return the digest of a network's .xml and .bin; "" without a path. Raises OSError."""
    if path is None:
        return ""
    digest = hashlib.sha256()
    for part in (path, path.with_suffix(".bin")):
        with part.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def parse_report(text: bytes) -> Report:
    """Parse ``Report.as_text``. Raises ValueError, TypeError or LookupError on anything else."""
    content = json.loads(text)
    if not isinstance(content, dict):
        raise TypeError("it is no JSON object")
    if (release := content.get("format")) != REPORT_FORMAT:
        raise ValueError(f"its format is {release}, this release reads {REPORT_FORMAT}")
    measurements = tuple(parse_measurement(row) for row in content["measurements"])
    calibrated, measured = (read_whole(content, key) for key in ("calibrated", "measured"))
    weights, config = str(content["weights"]), str(content["config"])
    return Report(weights, config, calibrated, measured, measurements)


def parse_measurement(row: dict[str, Any]) -> Measurement:
    """Parse one measurement of a report's JSON; raises like ``parse_report``."""
    counts, worst = row["agreement"], row["agreement"]["worst_class"]
    agreement = Agreement(
        parse_count(counts["everywhere"]),
        parse_count(counts["labelled"]),
        read_whole(counts, "classes"),
        read_whole(counts, "classes_seen"),
        worst and ClassCount(str(worst["name"]), parse_count(worst["count"])),
    )
    if agreement.labelled.images > agreement.everywhere.images:
        raise ValueError("it counts more images with a label than images")
    if worst and agreement.classes_seen < 1:
        raise ValueError("it names a worst class and saw none")
    for key in ("device", "precision", "processor", "network"):
        if not isinstance(row.get(key, ""), str):
            raise odd_value(row, key)
    speed = row["images_per_s"]
    if not isinstance(speed, int | float) or not 0 <= speed <= MAX_COUNT:
        raise odd_value(row, "images_per_s")
    return Measurement(**{**row, "agreement": agreement, "images_per_s": float(speed)})


def parse_count(content: dict[str, Any]) -> Count:
    """Parse one count of a report's JSON; raises like ``parse_report``."""
    count = Count(read_whole(content, "images"), read_whole(content, "differing"))
    if count.differing > count.images:
        raise ValueError(f"{count.differing} of {count.images} images differ")
    return count


def read_whole(content: dict[str, Any], key: str) -> int:
    """Return an integer from 0 to ``MAX_COUNT``; raises like ``parse_report``."""
    value = content[key]
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise odd_value(content, key)
    return value


def odd_value(content: dict[str, Any], key: str) -> ValueError:
    """Return the error of an invalid value."""
    return ValueError(f"{key} is {json.dumps(content[key])[:MAX_SHOWN]}")


def choose_precision(
    report: Report | None, device: str, supported: dict[str, str], requested: str, insist: bool
) -> tuple[str, str]:
    """Choose the precision to serve.

    Args:
        report: the measurements, if there are any.
        device: ``cpu`` or ``cuda``.
        supported: each precision of the engine → "", or the reason why this machine cannot serve it.
        requested: a precision, or ``auto`` for the fastest with enough agreement.
        insist: serve ``requested`` even without enough agreement or without a measurement.

    Returns:
        The precision, and the reason as a sentence.

    Raises:
        BundleError: ``requested`` cannot be served here, or lacks agreement.
    """
    rows = report.measurements if report else ()
    measured = {row.precision: row for row in rows if row.device == device}
    if requested == "auto":
        return choose_fastest(
            [row for row in measured.values() if supported.get(row.precision) == ""]
        )
    if reason := supported.get(requested, f"{device} knows only {', '.join(supported)}"):
        raise BundleError(f"SERVING_PRECISION={requested} cannot be served here: {reason}")
    return check_requested(measured.get(requested), requested, insist)


def check_requested(row: Measurement | None, precision: str, insist: bool) -> tuple[str, str]:
    """Return a requested precision and the reason, if its measurement permits it. Raises BundleError."""
    if row and (precision == FP32 or not row.objection):
        return precision, f"asked for; {format_measurement(row)}"
    if precision == FP32:
        return precision, "asked for"
    objection = f"{precision}: {row.objection}" if row else "it was not measured for these weights"
    if insist:
        return precision, f"insisted on, though {objection}"
    raise BundleError(
        f"SERVING_PRECISION={precision} is refused: {objection} "
        "(scripts/optimize measures, SERVING_INSIST=on serves it all the same)"
    )


def choose_fastest(rows: Sequence[Measurement]) -> tuple[str, str]:
    """Return the fastest precision without an objection, or fp32, and the reason as a sentence."""
    if permitted := [row for row in rows if not row.objection]:
        best = max(permitted, key=lambda row: row.images_per_s)
        return best.precision, f"the fastest that agrees: {format_measurement(best)}"
    objections = "; ".join(f"{row.precision}: {row.objection}" for row in rows)
    reason = "no reduced precision was measured"
    if objections:
        reason = f"no reduced precision agrees here ({objections})"
    return FP32, f"{reason}; scripts/optimize measures them"


def format_measurement(row: Measurement) -> str:
    """Return a precision's agreement and speed as text."""
    count = row.agreement.everywhere
    elsewhere = row.device == "cpu" and row.processor != processor()
    return (
        f"{row.precision} gave fp32's label set for {floor_percent(count.share)} of {count.images:,} images not "
        f"calibrated on (at least {floor_percent(count.bound)} with {CONFIDENCE * 100:.0f} % confidence), "
        f"{row.images_per_s:.0f} images/s on {row.processor}{', which is not this processor' * elsewhere}"
    )


def floor_percent(share: float) -> str:
    """Return a share in percent, rounded down: 98.99 % is not 99 %."""
    return f"{math.floor(share * 1000 + 1e-6) / 10:.1f} %"
