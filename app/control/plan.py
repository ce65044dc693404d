"""How many workers fit: measured, not guessed. ``scripts/plan-workers`` prints what comes out.

What one worker needs was measured (``app/control/footprint.py``); how much is free is looked up each time. The
count is the least of what GPU memory, host memory and cores allow.

Gunicorn's master makes the plan before it forks: nothing here touches CUDA or imports torch.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from app.control.budgets import decode_budget_bytes, request_budget_bytes
from app.control.footprint import (
    CORES_PER_CPU_WORKER,
    Footprint,
    default_batch,
    share_cores,
)
from app.control.manifest import ManifestFile, instance_id, last_default
from app.control.scanner import Manifest, RepositoryScanner
from app.engines.engine import Choice
from app.errors import BundleError
from app.settings import Settings
from app.system.gpus import Gpu, free_on, list_gpus
from app.system.machine import GIB, count_cores, hold_host_lock, read_host_memory

CORES_PER_GPU_WORKER = 2  # one for a worker's Python, one for its decode threads
MEMORY_POLL_S = 0.2
# How long a process that has a version on the GPU already waits for memory: what it gave back itself is free at
# once, and no worker before it is about to leave.
OWN_MEMORY_WAIT_S = 5


@dataclass(frozen=True)
class Placement:
    """Where one worker runs.

    Attributes:
        device: ``cpu``, or ``cuda:N`` as the master counts the GPUs.
        threads: its CPU threads for one forward.
        gpu: the GPU's UUID, where it has one: the worker's process sees that GPU alone, as ``cuda:0``.
    """

    device: str
    threads: int
    gpu: str = ""


@dataclass(frozen=True)
class Plan:
    """The workers to start.

    Attributes:
        placements: one for each worker, in the order of their slots.
        manifest: what they serve at first.
        lines: (what, text) rows of the table that gives the reasons.
        warning: empty, or what an operator should know at once.
        is_followed: the manifest's file goes on to other manifests (``app/commands/watch.py``).
        is_tight: memory does not hold even one worker with all that it is to serve.
    """

    placements: tuple[Placement, ...]
    manifest: Manifest
    lines: tuple[tuple[str, str], ...] = ()
    warning: str = ""
    is_followed: bool = True
    is_tight: bool = False

    def engines(self, settings: Settings) -> set[str]:
        """Return the engines that the workers need; where nothing can be served yet, the one that will be needed."""
        needed = {entry.footprint.engine for entry in self.manifest.entries}
        if needed:
            return needed
        on_gpu = self.placements[0].device != "cpu"
        return {"cuda" if on_gpu else settings.engine.replace("auto", "openvino")}

    def placement(self, slot: int) -> Placement:
        """Return the seat of a slot; a slot outlives its worker, so its replacement runs the same way."""
        return self.placements[slot % len(self.placements)]


def make_plan(settings: Settings, manifest: Manifest, before: Plan | None = None) -> Plan:
    """Plan the workers that serve a manifest.

    Args:
        settings: the settings.
        manifest: what each worker serves.
        before: the plan whose workers run now and will leave: what they hold counts as free.
    """
    # Where nothing can be served yet, what comes may need the GPUs.
    on_gpu = not manifest.entries or any(e.footprint.device == "cuda" for e in manifest.entries)
    try:
        gpus = usable_gpus(settings.device) if on_gpu and settings.device != "cpu" else []
    except BundleError:  # the manifest says so too: nothing could be measured
        gpus = []
    return fit_workers(settings, manifest, gpus, before)


# The master adopts a plan before it forks; its workers find it here.
_adopted: Plan | None = None


def adopt_plan(settings: Settings) -> Plan:
    """Look at the models folder, write the manifest, and make the plan that this process and its children follow."""
    global _adopted  # noqa: PLW0603
    file, before = ManifestFile(instance_id()), _adopted
    if before:  # the workers have followed the file since
        before = replace(before, manifest=file.read() or before.manifest)
    manifest = RepositoryScanner(
        settings, before.manifest if before else None, last_default()
    ).look()
    trouble = file.try_write(manifest)
    plan = make_plan(settings, manifest, before)
    if trouble:
        plan = replace(plan, warning="; ".join(filter(None, (plan.warning, trouble))))
    _adopted = replace(plan, is_followed=settings.poll_s > 0)
    return _adopted


def adopted_plan() -> Plan | None:
    """Return the adopted plan; None where no master made one."""
    return _adopted


def restore_plan(plan: Plan | None) -> None:
    """Adopt an earlier plan again: its workers go on, and those that replace them serve the same."""
    global _adopted  # noqa: PLW0603
    _adopted = plan
    if plan and not plan.is_followed:
        ManifestFile(instance_id()).try_write(plan.manifest)


def fits_beside(settings: Settings, plan: Plan) -> bool:
    """Return whether memory holds the workers of a plan beside those that run now."""
    beside = make_plan(settings, plan.manifest)
    # The plan may warn of more than memory: of a full disk, say.
    return len(beside.placements) == len(plan.placements) and beside.warning in plan.warning


def current_plan(settings: Settings) -> Plan:
    """Return the adopted plan, or make one where no master did."""
    return _adopted or make_plan(
        settings, RepositoryScanner(settings, default=last_default()).look()
    )


def planned_workers() -> int:
    """Return how many workers there are to be; where no master planned them, there is one."""
    return len(_adopted.placements) if _adopted else 1


def follow_manifest(settings: Settings) -> Callable[[], Manifest]:
    """Return what reads the manifest as it is now: from its file, or as it was last where that cannot be read."""
    file, last = ManifestFile(instance_id()), None

    def read() -> Manifest:
        nonlocal last
        last = file.read() or last or current_plan(settings).manifest
        return last

    return read


def choose_how(settings: Settings, placement: Placement, footprint: Footprint) -> Choice:
    """Return how a version runs in a seat.

    Raises:
        BundleError: it was measured on a GPU and the seat is none: Gunicorn has to be reloaded.
    """
    if footprint.device == "cuda" and placement.device == "cpu":
        raise BundleError("it needs a GPU and this worker was started without: reload Gunicorn")
    on_gpu = "cuda:0" if placement.gpu else placement.device
    device = on_gpu if footprint.device == "cuda" else "cpu"
    max_batch = settings.max_batch or default_batch(footprint.device)
    return Choice(footprint.engine, footprint.precision, device, placement.threads, max_batch)


def usable_gpus(wanted: str) -> list[Gpu]:
    """Return the GPUs that the device setting allows. Raises BundleError where the one asked for is not there."""
    gpus = list_gpus(wanted)
    if wanted in ("auto", "cuda"):
        return gpus
    chosen = [gpu for gpu in gpus if f"cuda:{gpu.index}" == wanted]
    if not chosen:
        raise BundleError(f"SERVING_DEVICE={wanted}: there are {len(gpus)} usable GPUs here")
    return chosen


def fit_workers(
    settings: Settings, manifest: Manifest, gpus: Sequence[Gpu], before: Plan | None = None
) -> Plan:
    """Return the plan for what was measured and what is free now."""
    lines = []
    for entry in manifest.entries:
        measured = entry.footprint
        lines.append(("model", f"{entry.name}, version {entry.version}"))
        lines.append(("engine", f"{measured.engine}, {measured.precision}: {measured.reason}"))
    if manifest.default_told:
        lines.append(("default", manifest.default_told))
    lines += [("skipped", sentence) for sentence in manifest.skipped]
    each, text = worker_need(settings, manifest)
    lines.append(("worker", text))
    if any(gpu.is_unified for gpu in gpus):
        each += device_need(manifest)  # one memory for both
    host = read_host_memory()
    held = len(before.placements) * host_need(before.manifest) if before else 0
    host_room, text = count_room(host.free + held, host.total, each, settings)
    lines.append(("host", text))
    fits_bare = host.free + held >= each  # with the reserve
    rooms, fitting = [], []
    for gpu in gpus:
        free = gpu.free + held_on(f"cuda:{gpu.index}", before)
        fitting.append(free >= device_need(manifest))
        room, text = count_room(free, gpu.total, device_need(manifest), settings)
        rooms.append(room)
        lines.append((f"GPU {gpu.index}", f"{gpu.name}: {text}"))
    by_cores = count_cores() // (CORES_PER_GPU_WORKER if gpus else CORES_PER_CPU_WORKER)
    lines.append(("cores", f"{count_cores()} cores → {count(max(1, by_cores))} would use them"))

    room = min(host_room, sum(rooms)) if gpus else host_room
    wanted = settings.workers or max(1, len(gpus), by_cores)
    workers = max(1, min(wanted, room))
    devices = ["cpu"] * workers
    if gpus:
        devices = deal_out(workers, [f"cuda:{gpu.index}" for gpu in gpus], rooms)
    is_tight = room < 1 and not (fits_bare and (any(fitting) or not gpus))
    warning = ""
    if settings.workers and workers < settings.workers:
        warning = (
            f"SERVING_WORKERS={settings.workers} does not fit into memory: {count(workers)} started"
        )
    elif room < 1 and not is_tight:
        warning = "memory holds one worker only with the reserve of SERVING_MEMORY_RESERVE_PERCENT"
    elif is_tight:
        warning = (
            "memory is short for even one worker; it starts and may wait for its memory, or be ended for lack of "
            "it: give it more, or lower SERVING_DECODE_MEMORY_MB and SERVING_MAX_BODIES_MB"
        )
    threads = share_cores(settings, workers)
    on = ", ".join(
        f"{len(list(group))} on {name}" for name, group in itertools.groupby(sorted(devices))
    )
    max_batch = settings.max_batch or default_batch("cuda" if gpus else "cpu")
    lines.append(("plan", f"{count(workers)}: {on}; {threads} threads, batches up to {max_batch}"))
    if not manifest.entries:  # nothing was measured: the sums above say nothing
        lines = [("plan", f"{count(workers)}: {on}; nothing can be served yet")]
    uuids = {f"cuda:{gpu.index}": gpu.uuid for gpu in gpus}
    placements = tuple(Placement(device, threads, uuids.get(device, "")) for device in devices)
    return Plan(placements, manifest, tuple(lines), warning, is_tight=is_tight)


def host_need(manifest: Manifest) -> int:
    """Return the host memory in bytes that the models of one worker need; counts what they share for each."""
    return sum(entry.footprint.host_bytes for entry in manifest.entries)


def worker_need(settings: Settings, manifest: Manifest) -> tuple[int, str]:
    """Return the host memory in bytes that one worker needs, with its requests, and the sum in words."""
    models, decoding = host_need(manifest), decode_budget_bytes(settings)
    need = models + request_budget_bytes(settings)
    return need, (
        f"{need / GIB:.2f} GiB: {models / GIB:.2f} models, {decoding / GIB:.2f} pictures being decoded, "
        f"{settings.max_bodies_bytes / GIB:.2f} bodies of requests"
    )


def device_need(manifest: Manifest) -> int:
    """Return the GPU memory in bytes that one worker needs for a manifest."""
    return sum(entry.footprint.device_bytes for entry in manifest.entries)


def lacking_room(settings: Settings, placement: Placement, footprint: Footprint) -> str:
    """Return the sum of the first memory that one more version does not fit into, or empty.

    The reserve and the requests' memory stay free.
    """
    host = read_host_memory()
    need = footprint.host_bytes + request_budget_bytes(settings)
    sums = [("host", count_room(host.free, host.total, need, settings))]
    if footprint.device != "cpu":
        on_device = further_need(footprint)
        sums += [
            (f"GPU {gpu.index}", count_room(gpu.free, gpu.total, on_device, settings))
            for gpu in list_gpus()
            if placement.device == f"cuda:{gpu.index}"
        ]
    return next((f"{where}: {text}" for where, (room, text) in sums if not room), "")


# Whether this process has loaded onto its GPU: CUDA's context is there then, and stays until the process ends.
_has_context = False


def further_need(footprint: Footprint) -> int:
    """Return the GPU memory in bytes that one more version takes in this process."""
    return footprint.device_bytes - (footprint.context_bytes if _has_context else 0)


@contextmanager
def room_on_device(
    settings: Settings, placement: Placement, footprint: Footprint
) -> Iterator[None]:
    """Hold a GPU while a worker loads onto it, once there is room for the version; on the CPU do nothing.

    On a reload the old workers still hold their memory when the new ones start. One process loads at a
    time, also of another server on this host, or several would count the same free bytes. Waits as long as a
    load may take, then lets the load try.
    """
    global _has_context  # noqa: PLW0603
    if footprint.device == "cpu":
        yield
        return
    needed = further_need(footprint)
    wait_s = OWN_MEMORY_WAIT_S if _has_context else settings.load_timeout_s
    with hold_host_lock(placement.gpu or placement.device, settings.load_timeout_s):
        until = time.monotonic() + wait_s
        while placement.gpu and time.monotonic() < until:
            free = free_on(placement.gpu)
            if free is None or free >= needed:
                break
            time.sleep(MEMORY_POLL_S)
        _has_context = True
        yield


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
    if before is None:
        return 0
    return device_need(before.manifest) * sum(
        placement.device == device for placement in before.placements
    )


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
    plan = make_plan(settings, RepositoryScanner(settings, default=last_default()).look())
    for what, text in plan.lines:
        print(f"{what:8}{text}")
    if plan.warning:
        print(f"warning {plan.warning}")
    for rejected in plan.manifest.rejected:
        print(f"refused {rejected.name}, version {rejected.version}: {rejected.reason}")
    if plan.manifest.failure:
        sys.exit(f"no worker can serve: {plan.manifest.failure}")


if __name__ == "__main__":
    main()
