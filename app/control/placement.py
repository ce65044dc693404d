"""Placement: where a worker runs, and the memory that a version needs there beside others.

Nothing here touches CUDA or imports torch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.control.budgets import request_budget_bytes
from app.control.footprint import Footprint, default_batch
from app.engines.engine import Choice
from app.errors import BundleError
from app.settings import Settings
from app.system.files import lock_host
from app.system.gpus import free_on, list_gpus
from app.system.machine import GIB, read_host_memory

MEMORY_POLL_S = 0.2
# How long a process that already has a version on the GPU waits for memory: the memory that it has freed itself
# is free at once, and no worker before it is about to leave.
OWN_MEMORY_WAIT_S = 5


@dataclass(frozen=True)
class Placement:
    """Where one worker runs.

    Attributes:
        device: ``cpu``, or ``cuda:N`` as the master counts the GPUs.
        threads: its CPU threads for one forward.
        gpu: UUID of its GPU, or empty. The worker's process sees that GPU alone, as ``cuda:0``.
    """

    device: str
    threads: int
    gpu: str = ""


def configure_engine(settings: Settings, placement: Placement, footprint: Footprint) -> Choice:
    """Return the engine and its options for a version on a placement.

    Raises:
        BundleError: it was measured on a GPU and the placement has none; Gunicorn has to be reloaded.
    """
    if footprint.device == "cuda" and placement.device == "cpu":
        raise BundleError("it needs a GPU and this worker was started without: reload Gunicorn")
    on_gpu = "cuda:0" if placement.gpu else placement.device
    device = on_gpu if footprint.device == "cuda" else "cpu"
    max_batch = settings.max_batch or default_batch(footprint.device)
    return Choice(footprint.engine, footprint.precision, device, placement.threads, max_batch)


def lacking_memory(settings: Settings, placement: Placement, footprint: Footprint) -> str:
    """Return the sum for the first memory that cannot hold one more version, or an empty string.

    The reserve and the memory for requests stay free.
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
    return next((f"{memory}: {text}" for memory, (room, text) in sums if not room), "")


# Whether this process has loaded onto its GPU: CUDA's context is there then, and stays until the process ends.
_has_context = False


def further_need(footprint: Footprint) -> int:
    """Return the GPU memory in bytes that one more version takes in this process."""
    return footprint.device_bytes - (footprint.context_bytes if _has_context else 0)


@contextmanager
def hold_device(settings: Settings, placement: Placement, footprint: Footprint) -> Iterator[None]:
    """Lock a GPU for loading, once it has memory for the version; on the CPU do nothing.

    During a reload the old workers still hold their memory when the new ones start. One process loads at a
    time, across servers on this host, or several would count the same free bytes. Waits as long as a
    load may take, then lets the load try.
    """
    global _has_context  # noqa: PLW0603
    if footprint.device == "cpu":
        yield
        return
    needed = further_need(footprint)
    wait_s = OWN_MEMORY_WAIT_S if _has_context else settings.load_timeout_s
    with lock_host(placement.gpu or placement.device, settings.load_timeout_s):
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
        f"reserve {settings.memory_reserve_percent} % → {count_workers(room)}"
    )
    return room, text


def count_workers(workers: int) -> str:
    """Return a number of workers with its noun."""
    return f"{workers} worker{'' if workers == 1 else 's'}"
