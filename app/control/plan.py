"""The plan: how many workers run, and where. ``scripts/plan-workers`` prints it.

The need of one worker was measured (``app/control/footprint.py``); free memory is read each time. The
number of workers is the least that GPU memory, host memory and cores allow.

Gunicorn's master makes the plan before it forks: nothing here touches CUDA or imports torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from app.control.budgets import decode_budget_bytes, request_budget_bytes
from app.control.footprint import CORES_PER_CPU_WORKER, default_batch, share_cores
from app.control.manifest import Manifest, last_default
from app.control.placement import Placement, count_room, count_workers
from app.control.scanner import RepositoryScanner
from app.errors import BundleError
from app.settings import Settings
from app.system.gpus import Gpu, list_gpus
from app.system.machine import GIB, count_cores, read_host_memory

CORES_PER_GPU_WORKER = 2  # one for the worker's Python, one for its decode threads


@dataclass(frozen=True)
class Plan:
    """The workers to start.

    Attributes:
        placements: one for each worker, in the order of their slots.
        manifest: the manifest at the start.
        lines: (name, text) rows of the table of reasons.
        warning: empty, or a warning for operators.
        is_followed: the workers follow the manifest's file (``app/commands/watch.py`` writes it).
        is_tight: memory does not hold even one worker with the whole manifest.
    """

    placements: tuple[Placement, ...]
    manifest: Manifest
    lines: tuple[tuple[str, str], ...] = ()
    warning: str = ""
    is_followed: bool = True
    is_tight: bool = False

    def engines(self, settings: Settings) -> set[str]:
        """Return the engines that the workers need; with an empty manifest, the engine of the device."""
        needed = {entry.footprint.engine for entry in self.manifest.entries}
        if needed:
            return needed
        on_gpu = self.placements[0].device != "cpu"
        return {"cuda" if on_gpu else settings.engine.replace("auto", "openvino")}

    def placement(self, slot: int) -> Placement:
        """Return the placement of a slot; a slot outlives its worker, so a replacement runs the same way."""
        return self.placements[slot % len(self.placements)]


def make_plan(settings: Settings, manifest: Manifest, before: Plan | None = None) -> Plan:
    """Plan the workers that serve a manifest.

    Args:
        settings: the settings.
        manifest: served by each worker.
        before: the plan of the running workers, which will leave: their memory counts as free.
    """
    # An empty manifest: the versions to come may need the GPUs.
    on_gpu = not manifest.entries or any(e.footprint.device == "cuda" for e in manifest.entries)
    try:
        gpus = usable_gpus(settings.device) if on_gpu and settings.device != "cpu" else []
    except BundleError:  # the manifest has the error: nothing could be measured
        gpus = []
    return fit_workers(settings, manifest, gpus, before)


def fits_beside(settings: Settings, plan: Plan) -> bool:
    """Return whether memory holds the workers of a plan beside those that run now."""
    beside = make_plan(settings, plan.manifest)
    # The plan may warn of more than memory: of a full disk, say.
    return len(beside.placements) == len(plan.placements) and beside.warning in plan.warning


def scan_and_plan(settings: Settings) -> Plan:
    """Scan the models folder and plan the workers; nothing is written but derived files."""
    manifest = RepositoryScanner(settings, default=last_default(settings.run)).scan()
    return make_plan(settings, manifest)


def usable_gpus(wanted: str) -> list[Gpu]:
    """Return the GPUs that the device setting allows. Raises BundleError if the requested one is missing."""
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
    """Return the plan for the measured footprints and the memory that is free now."""
    lines = describe_manifest(manifest)
    each, text = worker_need(settings, manifest)
    lines.append(("worker", text))
    if any(gpu.is_unified for gpu in gpus):
        each += device_need(manifest)  # one memory for both
    host = read_host_memory()
    held = len(before.placements) * host_need(before.manifest) if before else 0
    host_room, text = count_room(host.free + held, host.total, each, settings)
    lines.append(("host", text))
    fits_bare = host.free + held >= each  # if it may use the reserve
    rooms, fitting = [], []
    for gpu in gpus:
        free = gpu.free + held_on(f"cuda:{gpu.index}", before)
        fitting.append(free >= device_need(manifest))
        room, text = count_room(free, gpu.total, device_need(manifest), settings)
        rooms.append(room)
        lines.append((f"GPU {gpu.index}", f"{gpu.name}: {text}"))
    by_cores = count_cores() // (CORES_PER_GPU_WORKER if gpus else CORES_PER_CPU_WORKER)
    lines.append(
        ("cores", f"{count_cores()} cores → {count_workers(max(1, by_cores))} would use them")
    )

    room = min(host_room, sum(rooms)) if gpus else host_room
    wanted = settings.workers or max(1, len(gpus), by_cores)
    workers = max(1, min(wanted, room))
    devices = ["cpu"] * workers
    if gpus:
        devices = deal_out(workers, [f"cuda:{gpu.index}" for gpu in gpus], rooms)
    is_tight = room < 1 and not (fits_bare and (any(fitting) or not gpus))
    threads = share_cores(settings, workers)
    on = ", ".join(
        f"{len(list(group))} on {name}" for name, group in itertools.groupby(sorted(devices))
    )
    max_batch = settings.max_batch or default_batch("cuda" if gpus else "cpu")
    lines.append(
        ("plan", f"{count_workers(workers)}: {on}; {threads} threads, batches up to {max_batch}")
    )
    if not manifest.entries:  # nothing was measured: the sums above say nothing
        lines = [("plan", f"{count_workers(workers)}: {on}; nothing can be served yet")]
    uuids = {f"cuda:{gpu.index}": gpu.uuid for gpu in gpus}
    placements = tuple(Placement(device, threads, uuids.get(device, "")) for device in devices)
    warning = warn_of_memory(settings, workers, room, is_tight=is_tight)
    return Plan(placements, manifest, tuple(lines), warning, is_tight=is_tight)


def describe_manifest(manifest: Manifest) -> list[tuple[str, str]]:
    """Return the rows of the plan's table about the models."""
    lines = []
    for entry in manifest.entries:
        measured = entry.footprint
        lines.append(("model", f"{entry.name}, version {entry.version}"))
        lines.append(("engine", f"{measured.engine}, {measured.precision}: {measured.reason}"))
    if manifest.default_note:
        lines.append(("default", manifest.default_note))
    return lines + [("skipped", sentence) for sentence in manifest.skipped]


def warn_of_memory(settings: Settings, workers: int, room: int, *, is_tight: bool) -> str:
    """Return a warning if memory is short for the planned workers, or an empty string.

    Args:
        settings: the settings.
        workers: the planned number.
        room: how many workers fit beside the reserve.
        is_tight: as in ``Plan``.
    """
    if settings.workers and workers < settings.workers:
        return f"SERVING_WORKERS={settings.workers} does not fit into memory: {count_workers(workers)} started"
    if is_tight:
        return (
            "memory is short for even one worker; it starts and may wait for its memory, or be ended for lack of "
            "it: give it more, or lower SERVING_DECODE_MEMORY_MB and SERVING_MAX_BODIES_MB"
        )
    if room < 1:
        return "memory holds one worker only with the reserve of SERVING_MEMORY_RESERVE_PERCENT"
    return ""


def host_need(manifest: Manifest) -> int:
    """Return the host memory in bytes that the models of one worker need; shared memory counts for each."""
    return sum(entry.footprint.host_bytes for entry in manifest.entries)


def worker_need(settings: Settings, manifest: Manifest) -> tuple[int, str]:
    """Return the host memory in bytes that one worker needs, with its requests, and the sum as text."""
    models, decoding = host_need(manifest), decode_budget_bytes(settings)
    need = models + request_budget_bytes(settings)
    answers = settings.answer_cache_bytes
    return need, (
        f"{need / GIB:.2f} GiB: {models / GIB:.2f} models, {decoding / GIB:.2f} pictures being decoded, "
        f"{settings.max_bodies_bytes / GIB:.2f} bodies of requests"
        + (f", {answers / GIB:.2f} answer cache" if answers else "")
    )


def device_need(manifest: Manifest) -> int:
    """Return the GPU memory in bytes that one worker needs for a manifest."""
    return sum(entry.footprint.device_bytes for entry in manifest.entries)


def held_on(device: str, before: Plan | None) -> int:
    """Return the bytes that the workers of an earlier plan hold on a GPU."""
    if before is None:
        return 0
    return device_need(before.manifest) * sum(
        placement.device == device for placement in before.placements
    )


def deal_out(workers: int, devices: Sequence[str], rooms: Sequence[int]) -> list[str]:
    """Assign the workers to the GPUs in turn, within their room; if none has room, to all of them."""
    left = dict(zip(devices, rooms, strict=True))
    dealt: list[str] = []
    while len(dealt) < workers:
        open_ones = [device for device in devices if left[device] > 0] or list(devices)
        for device in open_ones[: workers - len(dealt)]:
            left[device] -= 1
            dealt.append(device)
    return dealt
