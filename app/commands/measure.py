"""The short-lived process that converts a bundle or measures the footprint of one worker.

    python -m app.commands.measure TASK FOLDER NAME VERSION [SIBLING [TRIES]]

``convert`` makes the OpenVINO network (torch and its gigabyte end with the process). ``measure`` loads the
model as a worker does and measures its memory. The last line on standard output is a ``MeasureResult``.
Settings come from the environment. SIBLING is the footprint of another version of the model, as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from app.control.footprint import (
    CONVERT,
    MEASURE_TIMEOUT_S,
    Footprint,
    MeasureResult,
    default_batch,
    planned_threads,
)
from app.control.plan import usable_gpus
from app.engines.engine import Choice
from app.engines.loader import load_engine, supported_precisions
from app.errors import BundleError, NoDeviceMemory, OutOfMemory, TransientError, first_line
from app.models.artifacts import Artifacts
from app.models.bundle import Bundle, open_bundle
from app.models.precision import FP32, choose_precision
from app.settings import Settings
from app.system.files import lock_host
from app.system.gpus import Gpu, confine_to, free_on, held_by, list_gpus
from app.system.machine import prefer_as_oom_victim, process_peak

MIB = 1 << 20
MAX_TRIES = 3
# CUDA's own memory beside the tensors: its context (534 MiB on an H100) and the kernels in use.
LEAST_CONTEXT, TYPICAL_CONTEXT, MOST_CONTEXT = 64 * MIB, 1024 * MIB, 3072 * MIB


class Disturbed(Exception):
    """Another program changed the GPU's free memory during a measurement."""


@dataclass(frozen=True)
class GpuMemory:
    """GPU memory of one worker in bytes; see ``Footprint``."""

    device_bytes: int = 0
    context_bytes: int = 0


def convert(settings: Settings, bundle: Bundle) -> MeasureResult:
    """Convert a bundle for OpenVINO. Raises BundleError."""
    from app.engines.conversion import ConversionError, convert_bundle  # noqa: PLC0415

    try:
        convert_bundle(Artifacts(bundle, settings.cache))
    except ConversionError as error:
        return MeasureResult(unconvertible=str(error))
    return MeasureResult()


def measure_footprint(
    settings: Settings, bundle: Bundle, sibling: Footprint | None, is_last_try: bool
) -> MeasureResult:
    """Load one worker's model, run its largest batch, and measure its memory.

    Args:
        settings: the settings.
        bundle: the model.
        sibling: another version's footprint, the estimate for a GPU without room to measure.
        is_last_try: estimate CUDA's context instead of raising ``Disturbed``.

    Raises:
        BundleError: the bundle cannot be served.
        Disturbed: the measurement has to be repeated in a new process.
    """
    artifacts = Artifacts(bundle, settings.cache)
    engine, gpu = choose_engine(settings)
    if engine == "openvino" and artifacts.find_network(FP32) is None:
        return MeasureResult(needs_conversion=True)
    import app.web.app  # noqa: PLC0415, F401  (a worker holds its memory too)

    choice, reason = configure(settings, artifacts, engine, gpu)
    memory, is_estimated = GpuMemory(), False
    if gpu is None:
        load_engine(choice, artifacts).close()  # its warm-up runs the largest batch
    else:
        try:
            memory = measure_on_gpu(choice, artifacts, gpu.uuid, is_last_try)
        except NoDeviceMemory:
            if sibling is None or sibling.precision != choice.precision:
                raise
            # The current workers fill the GPU; a worker without room for two versions unloads the old one first.
            # The load on the CPU only verifies the weights and the outputs.
            on_cpu = Choice("eager", FP32, "cpu", planned_threads(settings), 1)
            load_engine(on_cpu, artifacts).close()
            memory, is_estimated = GpuMemory(sibling.device_bytes, sibling.context_bytes), True
            reason += "; the GPU has no room to measure it: counted as the version before"
    device = "cuda" if gpu else "cpu"
    footprint = Footprint(
        engine,
        choice.precision,
        device,
        reason,
        process_peak(),
        memory.device_bytes,
        memory.context_bytes,
    )
    return MeasureResult(footprint, is_estimated)


def choose_engine(settings: Settings) -> tuple[str, Gpu | None]:
    """Return the engine, and the usable GPU with the most free memory or None.

    Raises:
        BundleError: the GPU named by SERVING_DEVICE does not exist.
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


def configure(
    settings: Settings, artifacts: Artifacts, engine: str, gpu: Gpu | None
) -> tuple[Choice, str]:
    """Return the engine's configuration, and the reason for its precision. Raises BundleError."""
    kind = "cuda" if gpu else "cpu"
    precision, reason = choose_precision(
        artifacts.read_report(),
        kind,
        supported_precisions(engine, artifacts),
        settings.precision,
        settings.insist,
    )
    if kind == "cpu" and settings.device == "auto" and list_gpus():
        reason += "; there is a GPU, but torch cannot use it: is its driver too old?"
    max_batch = settings.max_batch or default_batch(kind)
    device = "cpu" if gpu is None else "cuda:0" if gpu.uuid else f"cuda:{gpu.index}"
    return Choice(engine, precision, device, planned_threads(settings), max_batch), reason


def measure_on_gpu(choice: Choice, artifacts: Artifacts, uuid: str, is_last_try: bool) -> GpuMemory:
    """Load an engine on a GPU, under the lock of all servers on this host, and return this process's GPU memory.

    Tensors are counted by torch's allocator, at their peak. CUDA's own memory (its context, the kernels) is the
    driver's figure for this process or, if it has none, the difference in the GPU's free memory.

    Raises:
        BundleError: the bundle cannot be served this way.
        Disturbed: the difference is impossible.
    """
    import torch  # noqa: PLC0415

    with lock_host(uuid or choice.device, MEASURE_TIMEOUT_S / 2):
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
        if not is_last_try:
            raise Disturbed
        context = TYPICAL_CONTEXT
    return GpuMemory(peak + context, context)


@contextmanager
def collect_messages() -> Iterator[list[str]]:
    """Yield a list that receives what this program logs in the body: the parent logs it again."""
    messages: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    ours = logging.getLogger("app")
    before = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        ours.setLevel(before)
        ours.removeHandler(handler)


def main(
    task: str, folder: str, name: str, version: str, sibling: str = "", tries: str = "1"
) -> None:
    """Run a task and print its result."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    prefer_as_oom_victim()  # the kernel ends this process rather than a worker if memory runs out
    settings = Settings.from_env(os.environ)
    notes: list[str] = []
    try:
        with collect_messages() as notes:
            bundle = open_bundle(Path(folder), name, int(version))
            if task == CONVERT:
                result = convert(settings, bundle)
            else:
                other = Footprint(**json.loads(sibling)) if sibling else None
                is_last_try = int(tries) >= MAX_TRIES
                result = measure_footprint(settings, bundle, other, is_last_try)
    except BundleError as error:
        is_transient = isinstance(error, TransientError)
        result = MeasureResult(failure=str(error), is_transient=is_transient)
    except OutOfMemory as error:
        result = MeasureResult(failure=f"not enough memory: {error.message}", is_transient=True)
    except MemoryError as error:
        result = MeasureResult(failure=f"not enough memory: {first_line(error)}", is_transient=True)
    except OSError as error:  # a full disk, above all
        result = MeasureResult(failure=first_line(error), is_transient=True)
    except Disturbed:  # in a new process, because CUDA's context is created once per process
        again = [task, folder, name, version, sibling, str(int(tries) + 1)]
        os.execv(sys.executable, [sys.executable, "-m", "app.commands.measure", *again])  # noqa: S606
    print(replace(result, notes=tuple(notes)).as_text())


if __name__ == "__main__":
    main(*sys.argv[1:])
