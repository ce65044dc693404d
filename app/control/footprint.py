"""What one worker needs, measured and remembered.

A throw-away process (``app/commands/measure.py``) loads one worker's model and reports what it took. That is kept
with the bundle, by everything that it depends on, so it is measured once for a machine, model and
precision. Nothing here touches CUDA or imports torch.
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

from app.errors import BundleError, PassingFailure
from app.models.artifacts import NETWORKS, Artifacts
from app.models.bundle import Bundle
from app.models.precision import FP32, INT8, TF32
from app.settings import ROOT, Settings
from app.system.gpus import list_gpus
from app.system.machine import count_cores, processor

PREPARE, MEASURE = "prepare", "measure"  # what app/commands/measure.py does
# Its answer where OpenVINO's network is to be made first.
UNPREPARED: dict[str, object] = {"unprepared": True}
PROBE_TIMEOUT_S = 300
FORMAT = 3  # of what is kept; raised when a footprint means something else than before
MAX_BYTES = 1 << 50  # that a worker can need
# Engine and device → what it serves there.
KNOWN = {
    ("openvino", "cpu"): tuple(NETWORKS),
    ("eager", "cpu"): (FP32,),
    ("cuda", "cuda"): (FP32, TF32, "fp16"),
}
CORES_PER_CPU_WORKER = 4  # one worker's Python keeps up with the forwards of four cores

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Footprint:
    """What one worker needs, and how it would run.

    Attributes:
        engine: the engine that was chosen.
        precision: the precision that was chosen.
        device: ``cpu`` or ``cuda``.
        reason: why this precision.
        host_bytes: host memory of one worker at its largest batch.
        device_bytes: the same on the GPU, with CUDA's context; 0 on the CPU.
        context_bytes: of those, what a process has once, however many versions it holds.
    """

    engine: str
    precision: str
    device: str
    reason: str
    host_bytes: int
    device_bytes: int = 0
    context_bytes: int = 0


def find_footprint(
    settings: Settings, artifacts: Artifacts, sibling: Footprint | None = None
) -> Footprint:
    """Return what one worker needs: as measured before under the same conditions, or measured now.

    Args:
        settings: the settings.
        artifacts: the bundle.
        sibling: what another version of the model needs; taken for the GPU where that has no room to measure.

    Raises:
        BundleError: the bundle cannot be served; the text says why.
    """
    key = footprint_key(settings, artifacts)
    if known := read_footprint(artifacts.read_footprints().get(key)):
        return known
    bundle = artifacts.bundle
    measured = run_probe(MEASURE, bundle, settings.environ, sibling)
    if measured == UNPREPARED:
        unconvertible = run_probe(PREPARE, bundle, settings.environ)["unconvertible"]
        if unconvertible and settings.engine == "openvino":
            raise BundleError(str(unconvertible))
        fallback = {"SERVING_ENGINE": "eager"} if unconvertible else {}
        measured = run_probe(MEASURE, bundle, {**settings.environ, **fallback})
        if unconvertible:
            measured["reason"] = f"{unconvertible}; {measured['reason']}"
    is_assumed = measured.pop("assumed", False)
    footprint = Footprint(**measured)  # type: ignore[arg-type]
    if is_assumed:  # to be measured when there is room
        return footprint
    try:
        artifacts.add_footprint(footprint_key(settings, artifacts), measured)
    except BundleError as error:
        logger.warning("%s; the version is measured again at the next start", error)
    return footprint


def read_footprint(content: object) -> Footprint | None:
    """Return a footprint that was kept; None where there is none, or it is another release's or damaged."""
    if not isinstance(content, dict):
        return None
    kinds = {"str": str, "int": int}
    fields = {field.name: kinds.get(str(field.type), object) for field in fields_of(Footprint)}
    if (
        set(content) != set(fields)
        or not all(isinstance(value, fields[name]) for name, value in content.items())
        or not can_be(Footprint(**content))
    ):
        logger.warning("a footprint is not as expected and is measured again: %.200s", content)
        return None
    return Footprint(**content)


def can_be(footprint: Footprint) -> bool:
    """Tell whether a footprint can have been measured: what is planned from it must not fail."""
    sizes = (footprint.host_bytes, footprint.device_bytes, footprint.context_bytes)
    return (
        footprint.precision in KNOWN.get((footprint.engine, footprint.device), ())
        and footprint.host_bytes > 0
        and all(0 <= size <= MAX_BYTES for size in sizes)
    )


def serving_network(artifacts: Artifacts, footprint: Footprint) -> str:
    """Return the folder of the converted network that a version is served with; empty where it needs none."""
    if footprint.engine != "openvino":
        return ""
    network = artifacts.find_network(NETWORKS[footprint.precision])
    return str(network.parent.resolve()) if network else ""


def footprint_key(settings: Settings, artifacts: Artifacts) -> str:
    """Return what a footprint depends on, as one line."""
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
        "classes": len(artifacts.bundle.class_names),  # measuring compares it with the outputs
        "processor": processor(),
        "gpus": [(gpu.name, gpu.driver) for gpu in list_gpus(settings.device)],
        "versions": [version("openvino"), version("torch")],
    }
    return json.dumps(conditions, sort_keys=True)


def run_probe(
    task: str, bundle: Bundle, serving: Mapping[str, str], sibling: Footprint | None = None
) -> dict[str, object]:
    """Run the throw-away process on a bundle with these ``SERVING_`` variables and return what it reports.

    ``sibling`` is what another version needs, as ``find_footprint`` takes it.

    Raises:
        BundleError: what it reports as its failure, or that it died.
    """
    # Neither other settings, nor the files that a worker counts in (app/metrics.py).
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("SERVING_", "PROMETHEUS_"))
    }
    try:
        done = subprocess.run(  # noqa: S603
            [
                sys.executable,
                "-m",
                "app.commands.measure",
                task,
                bundle.folder.resolve(),
                bundle.name,
                str(bundle.version),
                json.dumps(dataclasses.asdict(sibling)) if sibling else "",
            ],
            cwd=ROOT,
            env=environment | dict(serving),
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PassingFailure(f"the probe ({task}) took longer than {PROBE_TIMEOUT_S} s") from error
    try:
        report: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        last_words = (done.stderr.strip() or "without a word").splitlines()[-1]
        how = f"ended with {done.returncode}: {last_words}"
        if done.returncode == -signal.SIGKILL:
            how = "was killed, most likely for lack of memory (converting a model takes about a gigabyte)"
        raise PassingFailure(f"the probe ({task}) {how}") from error
    if failure := report.get("failure"):
        raise (PassingFailure if report.get("passing") else BundleError)(str(failure))
    return report


def default_batch(device: str) -> int:
    """Return the largest batch where none is set: the smallest at which the device's speed stops to grow.

    On the CPU measured with ``scripts/benchmark`` (docs/performance.md): a lane gains nothing above
    four, and larger batches only make clients wait for each other. For GPUs from NVIDIA's published
    ResNet-50 figures (DeepLearningExamples: nearly flat above 64).
    """
    return 4 if device == "cpu" else 64


def planned_threads(settings: Settings) -> int:
    """Return the threads that a CPU worker will have where memory is no limit: what the probe measures with."""
    return share_cores(settings, settings.workers or max(1, count_cores() // CORES_PER_CPU_WORKER))


def share_cores(settings: Settings, workers: int) -> int:
    """Return the threads of one worker among so many."""
    return settings.threads or max(1, count_cores() // workers)
