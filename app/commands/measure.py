"""The throw-away process that prepares a bundle and measures one worker.

    python -m app.commands.measure TASK FOLDER NAME VERSION [SIBLING [TRIES]]

``prepare`` converts the bundle for OpenVINO where that is missing (it needs torch and a gigabyte,
which end with the process). ``measure`` loads what a worker loads and reports what it takes (``Footprint``). The last
line on standard output is JSON: the report, or ``{"failure": why}``. Settings come from the
environment. SIBLING is the footprint of another version of the model, as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from app.control.footprint import (
    PREPARE,
    PROBE_TIMEOUT_S,
    UNPREPARED,
    Footprint,
    default_batch,
    planned_threads,
)
from app.control.plan import usable_gpus
from app.engines.engine import Choice, load_engine
from app.errors import BundleError, NoDeviceMemory, OutOfMemory, PassingFailure, first_line
from app.models.artifacts import Artifacts
from app.models.bundle import Bundle, open_bundle
from app.models.precision import FP32, choose_precision
from app.settings import Settings
from app.system.files import lock_host
from app.system.gpus import Gpu, confine_to, free_on, held_by, list_gpus
from app.system.machine import prefer_as_oom_victim, process_peak

MIB = 1 << 20
MEASURE_TRIES = 3
# What CUDA takes of a GPU beside the tensors: its context (534 MiB on an H100) and the kernels that were used.
LEAST_CONTEXT, TYPICAL_CONTEXT, MOST_CONTEXT = 64 * MIB, 1024 * MIB, 3072 * MIB


class Disturbed(Exception):
    """Another program changed the GPU's memory meanwhile."""


def prepare(settings: Settings, bundle: Bundle) -> dict[str, object]:
    """Convert the bundle for OpenVINO; say why where that cannot be done. Raises BundleError."""
    from app.engines.conversion import ConversionError, convert_bundle  # noqa: PLC0415

    try:
        convert_bundle(Artifacts(bundle, settings.cache))
    except ConversionError as error:
        return {"unconvertible": str(error)}
    return {"unconvertible": ""}


def measure(
    settings: Settings, bundle: Bundle, sibling: Footprint | None, last_try: bool
) -> dict[str, object]:
    """Load one worker's model, run its largest batch and report what that took.

    Args:
        settings: the settings.
        bundle: the model.
        sibling: what another version needs, for a GPU without room.
        last_try: take a typical figure for what cannot be measured.

    Raises:
        BundleError: it cannot be served.
        Disturbed: it is to be measured again.
    """
    import app.web.app  # noqa: PLC0415, F401  (its memory is a worker's too)

    artifacts = Artifacts(bundle, settings.cache)
    engine, gpu = choose_engine(settings)
    if engine == "openvino" and artifacts.find_network(FP32) is None:
        return UNPREPARED
    usable = usable_precisions(engine, artifacts)
    report = artifacts.read_report()
    kind = "cuda" if gpu else "cpu"
    precision, reason = choose_precision(report, kind, usable, settings.precision, settings.insist)
    if kind == "cpu" and settings.device == "auto" and list_gpus():
        reason += "; there is a GPU, but torch cannot use it: is its driver too old?"
    max_batch = settings.max_batch or default_batch(kind)
    device = "cpu" if gpu is None else "cuda:0" if gpu.uuid else f"cuda:{gpu.index}"
    choice = Choice(engine, precision, device, planned_threads(settings), max_batch)
    need, assumed = Need(), False
    if gpu is None:
        load_engine(choice, artifacts).close()  # warmed up with the largest batch
    else:
        try:
            need = measure_on_gpu(choice, artifacts, gpu.uuid, last_try)
        except NoDeviceMemory:
            if sibling is None or sibling.precision != precision:
                raise
            # The workers fill the GPU; where a worker's two versions do not fit, the old one goes first. Here it
            # is only made sure that the weights fit the network and answer numbers.
            in_fp32 = Choice("eager", FP32, "cpu", planned_threads(settings), 1)
            load_engine(in_fp32, artifacts).close()
            need, assumed = Need(sibling.device_bytes, sibling.context_bytes), True
            reason += "; the GPU has no room to measure it: counted as the version before"
    footprint = Footprint(
        engine, precision, kind, reason, process_peak(), need.device_bytes, need.context_bytes
    )
    return dataclasses.asdict(footprint) | ({"assumed": True} if assumed else {})


@dataclass(frozen=True)
class Need:
    """What one worker needs on a GPU, in bytes, as ``Footprint`` has it."""

    device_bytes: int = 0
    context_bytes: int = 0


def measure_on_gpu(choice: Choice, artifacts: Artifacts, uuid: str, last_try: bool) -> Need:
    """Load an engine on a GPU while no other server's process does; return what this process took there.

    Tensors are counted by torch's own allocator, at their peak. Only what CUDA takes beside them (its context, the
    kernels) is a difference of the whole GPU, where the driver does not tell it of this process.

    Raises:
        BundleError: it cannot be served so.
        Disturbed: the difference cannot be true.
    """
    import torch  # noqa: PLC0415

    with lock_host(uuid or choice.device, PROBE_TIMEOUT_S / 2):
        before = free_on(uuid)
        torch.cuda.init()  # type: ignore[no-untyped-call]
        engine = load_engine(choice, artifacts)
        torch.cuda.synchronize()
        after = free_on(uuid)
        held = held_by(uuid, os.getpid())
        reserved, peak = torch.cuda.memory_reserved(), torch.cuda.max_memory_reserved()
        engine.close()
    if held is None and before is not None and after is not None:
        held = before - after
    context = TYPICAL_CONTEXT if held is None else held - reserved
    if not LEAST_CONTEXT <= context <= MOST_CONTEXT:
        if not last_try:
            raise Disturbed
        context = TYPICAL_CONTEXT
    return Need(peak + context, context)


def choose_engine(settings: Settings) -> tuple[str, Gpu | None]:
    """Return the engine, and the GPU to measure on or None: the emptiest of those that may be used.

    Raises:
        BundleError: a GPU was asked for that is not there.
    """
    if list_gpus(settings.device):
        gpu = max(usable_gpus(settings.device), key=lambda gpu: gpu.free)
        if gpu.uuid:
            confine_to(gpu.uuid)
        import torch  # noqa: PLC0415

        if torch.cuda.is_available():
            return "cuda", gpu
    if settings.device not in ("auto", "cpu"):
        count = len(list_gpus(settings.device))
        raise BundleError(f"SERVING_DEVICE={settings.device}: there are {count} usable GPUs here")
    return ("openvino" if settings.engine == "auto" else settings.engine), None


def usable_precisions(engine: str, artifacts: Artifacts) -> dict[str, str]:
    """Return every precision of an engine → empty, or why it cannot be served here."""
    if engine == "openvino":
        from app.engines import openvino  # noqa: PLC0415

        return openvino.usable_precisions(artifacts)
    if engine == "cuda":
        from app.engines import cuda  # noqa: PLC0415

        return cuda.usable_precisions()
    return {FP32: ""}


def main(
    task: str, folder: str, name: str, version: str, sibling: str = "", tries: str = "1"
) -> None:
    """Do the task and report it."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    prefer_as_oom_victim()  # a foreign model that takes too much must not end a worker
    settings = Settings.from_env(os.environ)
    try:
        bundle = open_bundle(Path(folder), name, int(version))
        if task == PREPARE:
            report = prepare(settings, bundle)
        else:
            known = Footprint(**json.loads(sibling)) if sibling else None
            report = measure(settings, bundle, known, last_try=int(tries) >= MEASURE_TRIES)
    except BundleError as error:
        report = {"failure": str(error), "passing": isinstance(error, PassingFailure)}
    except OutOfMemory as error:
        report = {"failure": f"not enough memory: {error.message}", "passing": True}
    except MemoryError as error:
        report = {"failure": f"not enough memory: {first_line(error)}", "passing": True}
    except OSError as error:  # a full disk, above all
        report = {"failure": first_line(error), "passing": True}
    except Disturbed:  # from the start: a process makes its context once
        again = [task, folder, name, version, sibling, str(int(tries) + 1)]
        os.execv(sys.executable, [sys.executable, "-m", "app.commands.measure", *again])  # noqa: S606
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
