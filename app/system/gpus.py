"""GPU discovery and memory by NVML, which creates no CUDA context: safe in Gunicorn's master.

Any NVML call can fail: the memory of a whole GPU is not readable from a container that has a slice of it (MIG),
a GPU that shares the host's memory reports none, and a GPU can be lost. A GPU whose memory is unknown is left
out with one log line; nothing in this module raises NVMLError.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import pynvml

from app.system.machine import Memory, read_host_memory

T = TypeVar("T")

VISIBLE = "CUDA_VISIBLE_DEVICES"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gpu:
    """One GPU, or a slice of one (MIG).

    Attributes:
        index: ``N`` of ``cuda:N``, in CUDA's order of visible devices.
        name: product name.
        driver: the driver's version.
        free: free memory in bytes; the host's if both share one memory.
        total: total memory in bytes; the host's if both share one memory.
        busy: utilization over the driver's last sample period (up to a second), 0..1; None if unknown.
        uuid: identifies the device independently of ``CUDA_VISIBLE_DEVICES``; empty if unknown.
        is_unified: the GPU uses the host's memory.
    """

    index: int
    name: str
    driver: str
    free: int
    total: int
    busy: float | None = None
    uuid: str = ""
    is_unified: bool = False


# CUDA_VISIBLE_DEVICES before confine_to: list_gpus keeps counting by it.
_visible_before: str | None = None
_is_confined = False
_warned: set[str] = set()


def confine_to(uuid: str) -> None:
    """Make one GPU the only one that CUDA sees in this process, as ``cuda:0``; call it before CUDA is initialized.

    Otherwise a thread that has not selected its device would create a second context on another GPU.
    """
    global _visible_before, _is_confined
    if not _is_confined:
        _visible_before, _is_confined = os.environ.get(VISIBLE), True
    os.environ[VISIBLE] = uuid


def list_gpus(wanted: str = "auto") -> list[Gpu]:
    """Return the GPUs that this server may use; none if there is no driver.

    CUDA must count as NVML does: ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` (conf/gunicorn.conf.py and
    app/commands/measure.py set it).

    Args:
        wanted: ``SERVING_DEVICE``; ``cpu`` does not query the driver.
    """
    if wanted == "cpu":
        return []
    with nvml() as is_available:
        if not is_available:
            return []
        driver = query(pynvml.nvmlSystemGetDriverVersion) or "unknown"
        gpus = (read_gpu(index, handle, driver) for index, handle in enumerate(visible_handles()))
        return [gpu for gpu in gpus if gpu is not None]


def free_on(uuid: str) -> int | None:
    """Return a GPU's free memory in bytes, also of one hidden by ``confine_to``; None if unknown."""
    with nvml() as is_available:
        for known, handle in all_handles() if is_available else []:
            if known == uuid:
                with suppress(pynvml.NVMLError):
                    return read_memory(handle)[0].free
    return None


def held_by(uuid: str, pid: int) -> int | None:
    """Return the bytes that a process has allocated on a GPU; None if the driver does not report it.

    In a container the driver may know processes by other PIDs, or not at all.
    """
    with nvml() as is_available:
        for known, handle in all_handles() if is_available else []:
            running = query(pynvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
            for process in running if known == uuid else []:
                if process.pid == pid and process.usedGpuMemory:
                    return int(process.usedGpuMemory)
    return None


@contextmanager
def nvml() -> Iterator[bool]:
    """Initialize NVML for the body; yields False if there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver
        yield False
        return
    try:
        yield True
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def query(function: Callable[..., T], *arguments: Any) -> T | None:
    """Call an NVML function; None if it fails."""
    try:
        return function(*arguments)
    except pynvml.NVMLError:
        return None


def read_gpu(index: int, handle: Any, driver: str) -> Gpu | None:
    """Return a GPU; None, with one log line per reason, if its memory is unknown."""
    name, uuid = query(pynvml.nvmlDeviceGetName, handle), query(pynvml.nvmlDeviceGetUUID, handle)
    try:
        memory, is_unified = read_memory(handle)
    except pynvml.NVMLError as problem:
        if (line := f"GPU {index} ({name or 'unknown'}) is not used: {problem}") not in _warned:
            _warned.add(line)
            logger.warning("%s", line)
        return None
    busy = read_busy(handle)
    return Gpu(
        index, name or "unknown", driver, memory.free, memory.total, busy, uuid or "", is_unified
    )


def read_memory(handle: Any) -> tuple[Memory, bool]:
    """Return a GPU's memory, and whether it is the host's. Raises NVMLError."""
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError_NotSupported:  # host and GPU share one memory
        return read_host_memory(), True
    return Memory(int(memory.free), int(memory.total)), False


def read_busy(handle: Any) -> float | None:
    """Return a GPU's utilization in 0..1; None if unknown, as for a slice (MIG)."""
    use = query(pynvml.nvmlDeviceGetUtilizationRates, handle)
    return None if use is None else float(use.gpu) / 100


def all_handles() -> Iterator[tuple[str, Any]]:
    """Yield (UUID, NVML handle) of every GPU, or of each slice of a partitioned one (MIG)."""
    for index in range(query(pynvml.nvmlDeviceGetCount) or 0):
        if (handle := query(pynvml.nvmlDeviceGetHandleByIndex, index)) is not None:
            for part in slices_of(handle) or [handle]:
                yield query(pynvml.nvmlDeviceGetUUID, part) or "", part


def slices_of(handle: Any) -> list[Any]:
    """Return the handles of a GPU's slices (MIG); none if it is not partitioned."""
    mode = query(pynvml.nvmlDeviceGetMigMode, handle)
    if mode is None or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        return []
    most = query(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
    found = (query(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, at) for at in range(most))
    return [part for part in found if part is not None]


def visible_handles() -> list[Any]:
    """Return NVML handles in CUDA's order: ``CUDA_VISIBLE_DEVICES`` selects by number or by UUID."""
    visible = _visible_before if _is_confined else os.environ.get(VISIBLE)
    known = list(all_handles())
    if visible is None:
        return [handle for _, handle in known]
    handles: list[Any] = []
    for name in filter(None, (part.strip() for part in visible.split(","))):
        found = find_handle(name, known)
        if found is None:
            break  # as CUDA does at the first unknown name
        handles += found
    return handles


def find_handle(name: str, known: list[tuple[str, Any]]) -> list[Any] | None:
    """Return the handles that one entry of ``CUDA_VISIBLE_DEVICES`` selects; None if it matches no GPU.

    A UUID may be abbreviated; a number, or the UUID of a whole GPU, selects all of its slices.
    """
    if not name.isdecimal():
        matching = [handle for uuid, handle in known if name and uuid.startswith(name)]
        if matching:
            return matching[:1]
    by_name = pynvml.nvmlDeviceGetHandleByIndex if name.isdecimal() else None
    whole = query(by_name or pynvml.nvmlDeviceGetHandleByUUID, int(name) if by_name else name)
    return None if whole is None else slices_of(whole) or [whole]
