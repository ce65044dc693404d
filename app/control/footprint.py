"""The footprint of a version: the engine, the precision and the memory of one worker, measured once.

A short-lived process (``app/commands/measure.py``) loads the model as a worker does and reports the memory it
took. The footprint is kept beside the bundle under a key of everything that it depends on, so each machine, model
and precision is measured once. Nothing here touches CUDA or imports torch.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from importlib.metadata import version
from typing import Any

from app.errors import BundleError, TransientError
from app.models.artifacts import NETWORKS, Artifacts
from app.models.bundle import Bundle
from app.models.precision import FP32, INT8, TF32
from app.settings import ROOT, Settings
from app.system.gpus import list_gpus
from app.system.machine import count_cores, processor

CONVERT, MEASURE = "convert", "measure"  # the tasks of app/commands/measure.py
MEASURE_TIMEOUT_S = 300
FORMAT = 3  # of the kept footprints; raised when their meaning changes
MAX_BYTES = 1 << 50  # of a valid footprint
# Engine and device → the precisions that it serves there.
PRECISIONS = {
    ("openvino", "cpu"): tuple(NETWORKS),
    ("eager", "cpu"): (FP32,),
    ("cuda", "cuda"): (FP32, TF32, "fp16"),
}
CORES_PER_CPU_WORKER = 4  # one worker's Python keeps up with the forwards of four cores

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Footprint:
    """How a version runs in a worker, and the memory that it takes.

    Attributes:
        engine: the chosen engine.
        precision: the chosen precision.
        device: ``cpu`` or ``cuda``.
        reason: the reason for the precision.
        host_bytes: peak host memory of one worker at its largest batch.
        device_bytes: the same on the GPU, with CUDA's context; 0 on the CPU.
        context_bytes: the part of ``device_bytes`` that a process takes once, for all its versions.
    """

    engine: str
    precision: str
    device: str
    reason: str
    host_bytes: int
    device_bytes: int = 0
    context_bytes: int = 0


@dataclass(frozen=True)
class MeasureResult:
    """The result of a task of ``app/commands/measure.py``: one line of JSON between two processes.

    Attributes:
        footprint: the measured footprint, or None.
        is_estimated: the footprint is taken from another version, because the GPU has no room to measure.
        needs_conversion: the OpenVINO network has to be made first.
        unconvertible: the reason why OpenVINO cannot convert the network, or empty.
        failure: the reason why the bundle cannot be served, or empty.
        is_transient: the failure may pass.
        notes: what the process logged.
    """

    footprint: Footprint | None = None
    is_estimated: bool = False
    needs_conversion: bool = False
    unconvertible: str = ""
    failure: str = ""
    is_transient: bool = False
    notes: tuple[str, ...] = ()

    def as_text(self) -> str:
        """Return the result as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_text(cls, text: str) -> MeasureResult:
        """Parse ``as_text``. Raises ValueError or TypeError on anything else."""
        content: dict[str, Any] = json.loads(text)
        footprint = content.pop("footprint", None)
        content["notes"] = tuple(content.get("notes", ()))
        return cls(footprint and Footprint(**footprint), **content)


def find_footprint(
    settings: Settings, artifacts: Artifacts, sibling: Footprint | None = None
) -> Footprint:
    """Return the footprint of a version: the kept one if nothing has changed, else a new measurement.

    Args:
        settings: the settings.
        artifacts: the bundle's derived files.
        sibling: another version's footprint, the estimate for a GPU without room to measure.

    Raises:
        BundleError: the bundle cannot be served; the message says why.
    """
    key = footprint_key(settings, artifacts)
    if kept := parse_footprint(artifacts.read_footprints().get(key)):
        return kept
    result = measure_bundle(settings, artifacts.bundle, sibling)
    if result.footprint is None:
        raise TransientError("the measure process has reported no footprint")
    if result.is_estimated:  # it is measured at the next chance
        return result.footprint
    try:
        content = dataclasses.asdict(result.footprint)
        artifacts.add_footprint(footprint_key(settings, artifacts), content)
    except BundleError as error:
        logger.warning("%s; the version is measured again at the next start", error)
    return result.footprint


def measure_bundle(settings: Settings, bundle: Bundle, sibling: Footprint | None) -> MeasureResult:
    """Measure a bundle; convert it for OpenVINO first if necessary, and fall back to eager torch.

    Raises:
        BundleError: the bundle cannot be served, or only by another engine than SERVING_ENGINE.
    """
    result = run_measure(MEASURE, bundle, settings.environ, sibling)
    if not result.needs_conversion:
        return result
    unconvertible = run_measure(CONVERT, bundle, settings.environ).unconvertible
    if not unconvertible:
        return run_measure(MEASURE, bundle, settings.environ)
    if settings.engine == "openvino":
        raise BundleError(unconvertible)
    result = run_measure(MEASURE, bundle, {**settings.environ, "SERVING_ENGINE": "eager"})
    if result.footprint is None:
        return result
    reason = f"{unconvertible}; {result.footprint.reason}"
    return dataclasses.replace(
        result, footprint=dataclasses.replace(result.footprint, reason=reason)
    )


def parse_footprint(content: object) -> Footprint | None:
    """Return a kept footprint; None if there is none, or it is damaged or of another release."""
    if not isinstance(content, dict):
        return None
    kinds = {"str": str, "int": int}
    fields = {field.name: kinds.get(str(field.type), object) for field in fields_of(Footprint)}
    if (
        set(content) != set(fields)
        or not all(isinstance(value, fields[name]) for name, value in content.items())
        or not is_plausible(Footprint(**content))
    ):
        logger.warning("a footprint is not as expected and is measured again: %.200s", content)
        return None
    return Footprint(**content)


def is_plausible(footprint: Footprint) -> bool:
    """Return whether a footprint has a known engine and possible sizes: a plan made from it must not fail."""
    sizes = (footprint.host_bytes, footprint.device_bytes, footprint.context_bytes)
    return (
        footprint.precision in PRECISIONS.get((footprint.engine, footprint.device), ())
        and footprint.host_bytes > 0
        and all(0 <= size <= MAX_BYTES for size in sizes)
    )


def serving_network(artifacts: Artifacts, footprint: Footprint) -> str:
    """Return the folder of the converted network that a version is served with; "" for other engines."""
    if footprint.engine != "openvino":
        return ""
    network = artifacts.find_network(NETWORKS[footprint.precision])
    return str(network.parent.resolve()) if network else ""


def footprint_key(settings: Settings, artifacts: Artifacts) -> str:
    """Return the key of a footprint: everything that it depends on, as one line of JSON."""
    conditions = {
        "format": FORMAT,
        "engine": settings.engine,
        "device": settings.device,
        "precision": settings.precision,
        "insist": settings.insist,
        "max_batch": settings.max_batch,
        "threads": planned_threads(settings),
        "report": str(artifacts.read_report()),
        "networks": [artifacts.name_network(kind) for kind in (FP32, INT8)],
        "classes": len(artifacts.bundle.class_names),  # compared with the network's outputs
        "processor": processor(),
        "gpus": [(gpu.name, gpu.driver) for gpu in list_gpus(settings.device)],
        "versions": [version("openvino"), version("torch")],
    }
    return json.dumps(conditions, sort_keys=True)


def run_measure(
    task: str, bundle: Bundle, environ: Mapping[str, str], sibling: Footprint | None = None
) -> MeasureResult:
    """Run ``app/commands/measure.py`` on a bundle and return its result.

    Args:
        task: ``CONVERT`` or ``MEASURE``.
        bundle: the bundle.
        environ: the ``SERVING_`` variables of the process.
        sibling: see ``find_footprint``.

    Raises:
        BundleError: the bundle cannot be served, or the process died.
    """
    # Neither this process's settings, nor the folder of the workers' metrics (app/metrics.py).
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("SERVING_", "PROMETHEUS_"))
    }
    arguments = [
        task,
        str(bundle.folder.resolve()),
        bundle.name,
        str(bundle.version),
        json.dumps(dataclasses.asdict(sibling)) if sibling else "",
    ]
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "app.commands.measure", *arguments],
            cwd=ROOT,
            env=inherited | dict(environ),
            capture_output=True,
            text=True,
            timeout=MEASURE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = f"the {task} process took longer than {MEASURE_TIMEOUT_S} s"
        raise TransientError(message) from error
    try:
        result = MeasureResult.from_text(done.stdout.splitlines()[-1])
    except (IndexError, ValueError, TypeError, AttributeError) as error:
        raise TransientError(f"the {task} process {describe_death(done)}") from error
    for note in result.notes:
        logger.info("%s", note)
    if result.failure:
        raise (TransientError if result.is_transient else BundleError)(result.failure)
    return result


def describe_death(process: subprocess.CompletedProcess[str]) -> str:
    """Return how a process without a result has ended, with its last line on standard error."""
    if process.returncode == -signal.SIGKILL:
        return (
            "was killed, most likely for lack of memory (converting a model takes about a gigabyte)"
        )
    last_line = (process.stderr.strip() or "without a word").splitlines()[-1]
    return f"ended with {process.returncode}: {last_line}"


def default_batch(device: str) -> int:
    """Return the default of SERVING_MAX_BATCH: the smallest batch at the device's full throughput.

    On the CPU measured with ``scripts/benchmark`` (docs/performance.md): a lane gains nothing above
    four, and larger batches only add latency. On GPUs from NVIDIA's published ResNet-50 figures
    (DeepLearningExamples: nearly flat above 64).
    """
    return 4 if device == "cpu" else 64


def planned_threads(settings: Settings) -> int:
    """Return the threads of a CPU worker if memory is no limit; measured with as many."""
    return share_cores(settings, settings.workers or max(1, count_cores() // CORES_PER_CPU_WORKER))


def share_cores(settings: Settings, workers: int) -> int:
    """Return the threads of each worker."""
    return settings.threads or max(1, count_cores() // workers)
