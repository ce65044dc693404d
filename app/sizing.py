"""How many workers fit: measured, not guessed. ``scripts/plan-workers`` prints what comes out.

A throw-away process (``app/probe.py``) loads one worker's model and reports what it took; that is
kept with the bundle, so it is measured once for a machine, model and precision. How much is free is
looked up each time. The count is the least of what GPU memory, host memory and cores allow.

Gunicorn's master makes the plan before it forks: nothing here touches CUDA or imports torch.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from app.bundle import find_bundle
from app.engines import Choice
from app.errors import BundleError
from app.machine import GIB, Gpu, list_gpus, processor, read_host_memory
from app.optimized import Optimized
from app.precision import FP32, read_report
from app.settings import Settings, count_cores

CORES_PER_CPU_WORKER = 4  # one worker's Python keeps up with the forwards of four cores
CORES_PER_GPU_WORKER = 2  # one for a worker's Python, one for its decode threads
PREPARE, MEASURE = "prepare", "measure"  # what app/probe.py does
UNPREPARED: dict[str, object] = {
    "unprepared": True
}  # its answer where OpenVINO's network is to be made first
PROBE_TIMEOUT_S = 300
MEMORY_POLL_S = 0.2


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
    """

    engine: str
    precision: str
    device: str
    reason: str
    host_bytes: int
    device_bytes: int = 0


@dataclass(frozen=True)
class Plan:
    """The workers to start.

    Attributes:
        choices: one for each worker, in the order of their slots.
        optimized: what they serve, as its weights were when the plan was made; None where there is
            nothing to serve.
        lines: (what, text) rows of the table that gives the reasons.
        warning: empty, or what an operator should know at once.
        failure: empty, or why no worker can serve; the workers start all the same and answer 503.
        footprint: what was measured.
    """

    choices: tuple[Choice, ...]
    optimized: Optimized | None = None
    lines: tuple[tuple[str, str], ...] = ()
    warning: str = ""
    failure: str = ""
    footprint: Footprint | None = None

    def choice(self, slot: int) -> Choice:
        """Return how the worker in a slot runs; a slot outlives its worker, so its replacement runs the same way."""
        return self.choices[slot % len(self.choices)]


def make_plan(settings: Settings, before: Plan | None = None) -> Plan:
    """Plan the workers; measures first where this was not measured yet (seconds, in processes of its own).

    Args:
        settings: the settings.
        before: the plan whose workers run now and will leave: what they hold counts as free.
    """
    try:
        bundle = find_bundle(settings.models, settings.model)
        optimized = Optimized(bundle, settings.cache)
        footprint = find_footprint(settings, optimized)
        gpus = usable_gpus(settings.device) if footprint.device == "cuda" else []
    except BundleError as error:
        choice = Choice("eager", FP32, "cpu", 1, settings.max_batch or 1)
        return Plan((choice,) * (settings.workers or 1), failure=str(error))
    return fit_workers(settings, optimized, footprint, gpus, before)


# The master adopts a plan before it forks; its workers find it here.
_adopted: Plan | None = None


def adopt_plan(settings: Settings) -> Plan:
    """Make the plan that this process and its children follow (again on a reload)."""
    global _adopted  # noqa: PLW0603
    _adopted = make_plan(settings, before=_adopted)
    return _adopted


def current_plan(settings: Settings) -> Plan:
    """Return the adopted plan, or make one where no master did."""
    return _adopted or make_plan(settings)


# Measuring


def find_footprint(settings: Settings, optimized: Optimized) -> Footprint:
    """Return what one worker needs: as measured before under the same conditions, or measured now.

    Raises:
        BundleError: the bundle cannot be served; the text says why.
    """
    key = footprint_key(settings, optimized)
    if known := optimized.read_footprints().get(key):
        return Footprint(**known)
    measured = run_probe(MEASURE, settings.environ)
    if measured == UNPREPARED:
        unconvertible = run_probe(PREPARE, settings.environ)["unconvertible"]
        if unconvertible and settings.engine == "openvino":
            raise BundleError(str(unconvertible))
        fallback = {"SERVING_ENGINE": "eager"} if unconvertible else {}
        measured = run_probe(MEASURE, {**settings.environ, **fallback})
        if unconvertible:
            measured["reason"] = f"{unconvertible}; {measured['reason']}"
    footprint = Footprint(**measured)  # type: ignore[arg-type]
    with suppress(BundleError):  # nowhere to keep it: then it is measured at every start
        optimized.add_footprint(key, measured)
    return footprint


def footprint_key(settings: Settings, optimized: Optimized) -> str:
    """Return what a footprint depends on, as one line."""
    report = read_report(optimized.report_path(), optimized.weights_hash)
    conditions = {
        "engine": settings.engine,
        "device": settings.device,
        "precision": settings.precision,
        "insist": settings.insist,
        "max_batch": settings.max_batch,
        "threads": planned_threads(settings),
        "report": str(report),
        "processor": processor(),
        "gpus": [(gpu.name, gpu.driver) for gpu in list_gpus()],
        "versions": [version("openvino"), version("torch")],
    }
    return json.dumps(conditions, sort_keys=True)


def run_probe(task: str, serving: Mapping[str, str]) -> dict[str, object]:
    """Run the throw-away process with these ``SERVING_`` variables and return what it reports.

    Raises:
        BundleError: what it reports as its failure, or that it died.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SERVING_")}
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "app.probe", task],
            cwd=Path(__file__).parent.parent,
            env=environment | dict(serving),
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"the probe ({task}) took longer than {PROBE_TIMEOUT_S} s") from error
    try:
        report: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        last_words = (done.stderr.strip() or "without a word").splitlines()[-1]
        raise BundleError(
            f"the probe ({task}) ended with {done.returncode}: {last_words}"
        ) from error
    if failure := report.get("failure"):
        raise BundleError(str(failure))
    return report


# Fitting


def usable_gpus(wanted: str) -> list[Gpu]:
    """Return the GPUs that the device setting allows. Raises BundleError where the one asked for is not there."""
    gpus = list_gpus()
    if wanted in ("auto", "cuda"):
        return gpus
    chosen = [gpu for gpu in gpus if f"cuda:{gpu.index}" == wanted]
    if not chosen:
        raise BundleError(f"SERVING_DEVICE={wanted}: there are {len(gpus)} usable GPUs here")
    return chosen


def fit_workers(
    settings: Settings,
    optimized: Optimized,
    footprint: Footprint,
    gpus: Sequence[Gpu],
    before: Plan | None = None,
) -> Plan:
    """Return the plan for a measured footprint and what is free now."""
    lines = [
        ("model", f"{optimized.bundle.name}, version {optimized.bundle.version}"),
        ("engine", f"{footprint.engine}, {footprint.precision}: {footprint.reason}"),
    ]
    host = read_host_memory()
    held = len(before.choices) * before.footprint.host_bytes if before and before.footprint else 0
    host_room, text = count_room(host.free + held, host.total, footprint.host_bytes, settings)
    lines.append(("host", text))
    rooms = []
    for gpu in gpus:
        held = held_on(f"cuda:{gpu.index}", before)
        room, text = count_room(gpu.free + held, gpu.total, footprint.device_bytes, settings)
        rooms.append(room)
        lines.append((f"GPU {gpu.index}", f"{gpu.name}: {text}"))
    by_cores = count_cores() // (CORES_PER_GPU_WORKER if gpus else CORES_PER_CPU_WORKER)
    lines.append(("cores", f"{count_cores()} cores → {count(max(1, by_cores))} would use them"))

    room = min(host_room, sum(rooms)) if gpus else host_room
    wanted = settings.workers or max(1, len(gpus), by_cores)
    workers = max(1, min(wanted, room))
    devices = (
        deal_out(workers, [f"cuda:{gpu.index}" for gpu in gpus], rooms)
        if gpus
        else ["cpu"] * workers
    )
    threads = settings.threads or max(1, count_cores() // workers)
    max_batch = settings.max_batch or default_batch(footprint.device)
    warning = ""
    if settings.workers and workers < settings.workers:
        warning = (
            f"SERVING_WORKERS={settings.workers} does not fit into memory: {count(workers)} started"
        )
    elif room < 1:
        warning = "memory is short for even one worker; it starts and may wait for its memory"
    on = ", ".join(
        f"{len(list(group))} on {name}" for name, group in itertools.groupby(sorted(devices))
    )
    lines.append(("plan", f"{count(workers)}: {on}; {threads} threads, batches up to {max_batch}"))
    choices = [
        Choice(footprint.engine, footprint.precision, device, threads, max_batch)
        for device in devices
    ]
    return Plan(tuple(choices), optimized, tuple(lines), warning, footprint=footprint)


@contextmanager
def room_on_device(plan: Plan, choice: Choice, settings: Settings) -> Iterator[None]:
    """Hold a GPU while a worker loads onto it, once its memory is free; on the CPU do nothing.

    On a reload the old workers still hold their memory when the new ones start. One worker loads at a
    time, or several would count the same free bytes. Waits as long as a load may take, then lets the
    load try.
    """
    if choice.device == "cpu" or plan.footprint is None:
        yield
        return
    settings.cache.mkdir(parents=True, exist_ok=True)
    with (settings.cache / f"{choice.device}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel lets go of it when the process ends
        until = time.monotonic() + settings.load_timeout_s
        needed = plan.footprint.device_bytes
        while free_on(choice.device) < needed and time.monotonic() < until:
            time.sleep(MEMORY_POLL_S)
        yield


def free_on(device: str) -> int:
    """Return the free bytes of a GPU by NVML; 0 for the CPU."""
    return sum(gpu.free for gpu in list_gpus() if device == f"cuda:{gpu.index}")


def count_room(free: int, total: int, each: int, settings: Settings) -> tuple[int, str]:
    """Return how many workers fit into a memory, and the sum in words. Sizes are bytes."""
    free = min(free, total)
    reserve = total * settings.memory_reserve_percent // 100
    room = max(0, free - reserve) // max(1, each)
    text = (
        f"{free / GIB:.1f} of {total / GIB:.1f} GiB free, {each / GIB:.2f} GiB a worker, "
        f"reserve {settings.memory_reserve_percent} % → {count(room)}"
    )
    return room, text


def held_on(device: str, before: Plan | None) -> int:
    """Return the bytes that the workers of an earlier plan hold on a GPU."""
    if before is None or before.footprint is None:
        return 0
    return before.footprint.device_bytes * sum(choice.device == device for choice in before.choices)


def deal_out(workers: int, devices: Sequence[str], rooms: Sequence[int]) -> list[str]:
    """Give the GPUs workers in turn, none more than it has room for (but one where none has any)."""
    left = dict(zip(devices, rooms, strict=True))
    dealt: list[str] = []
    while len(dealt) < workers:
        open_ones = [device for device in devices if left[device] > 0] or list(devices)
        for device in open_ones[: workers - len(dealt)]:
            left[device] -= 1
            dealt.append(device)
    return dealt


def default_batch(device: str) -> int:
    """Return the largest batch where none is set: the smallest at which the device's speed stops to grow.

    On the CPU measured with ``scripts/benchmark`` (docs/performance.md): a lane gains nothing above
    four, and larger batches only make clients wait for each other. For GPUs from NVIDIA's published
    ResNet-50 figures (DeepLearningExamples: nearly flat above 64).
    """
    return 4 if device == "cpu" else 64


def planned_threads(settings: Settings) -> int:
    """Return the threads that a CPU worker will have where memory is no limit: what the probe measures with."""
    cores = count_cores()
    return settings.threads or max(
        1, cores // (settings.workers or max(1, cores // CORES_PER_CPU_WORKER))
    )


def count(workers: int) -> str:
    """Return the number with its noun."""
    return f"{workers} worker{'' if workers == 1 else 's'}"


def main() -> None:
    """Print the plan for the environment's settings, with its reasons."""
    settings = Settings.from_env(os.environ)
    plan = make_plan(settings)
    for what, text in plan.lines:
        print(f"{what:8}{text}")
    if plan.warning:
        print(f"warning {plan.warning}")
    if plan.failure:
        sys.exit(f"no worker can serve: {plan.failure}")


if __name__ == "__main__":
    main()
