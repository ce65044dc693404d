"""How many workers fit: measured, not guessed. ``scripts/plan-workers`` prints what comes out.

What one worker needs was measured (``app/footprint.py``); how much is free is looked up each time. The
count is the least of what GPU memory, host memory and cores allow.

Gunicorn's master makes the plan before it forks: nothing here touches CUDA or imports torch.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from app.bundle import find_bundle
from app.engines import Choice
from app.errors import BundleError
from app.footprint import (
    CORES_PER_CPU_WORKER,
    Footprint,
    default_batch,
    find_footprint,
    share_cores,
)
from app.machine import GIB, Gpu, list_gpus, read_host_memory
from app.optimized import Optimized
from app.precision import FP32
from app.settings import Settings, count_cores

CORES_PER_GPU_WORKER = 2  # one for a worker's Python, one for its decode threads
MEMORY_POLL_S = 0.2


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
    threads = share_cores(settings, workers)
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
