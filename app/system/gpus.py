"""The GPUs, by NVML: it makes no CUDA context, so Gunicorn's master may ask it.

NVML can refuse any single call: in a container that was given a slice of a GPU (MIG) the whole GPU's memory is
no business of ours, where host and GPU share one memory there is none to tell, and a GPU can be lost. What
cannot be told is left out, with one line in the log; nothing here raises NVMLError.
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
    """One GPU, or a slice of one (MIG); ``index`` as CUDA counts those that it may see. Sizes in bytes.

    Attributes:
        index: ``N`` of ``cuda:N``.
        name: what its maker calls it.
        driver: the driver's version.
        free: its free memory; the host's where both share one memory.
        total: likewise.
        busy: the share of the last moment (up to a second) in which it computed anything, in 0..1;
            None where the driver does not tell.
        uuid: what it is known by whatever a process may see; empty where the driver does not tell.
        is_unified: its memory is the host's.
    """

    index: int
    name: str
    driver: str
    free: int
    total: int
    busy: float | None = None
    uuid: str = ""
    is_unified: bool = False


# What CUDA could see before this process confined itself to one GPU; list_gpus goes on counting by it.
_visible_before: str | None = None
_is_confined = False
_told: set[str] = set()


def confine_to(uuid: str) -> None:
    """Let CUDA see one GPU alone in this process; it is ``cuda:0`` then. CUDA must not have been touched before.

    So nothing that computes on a thread which has not chosen its GPU makes a second context elsewhere.
    """
    global _visible_before, _is_confined
    if not _is_confined:
        _visible_before, _is_confined = os.environ.get(VISIBLE), True
    os.environ[VISIBLE] = uuid


def list_gpus(wanted: str = "auto") -> list[Gpu]:
    """Return the GPUs that this server may use. Empty where there is no driver.

    With ``SERVING_DEVICE=cpu`` nobody is asked.

    CUDA has to count as NVML does: ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` (conf/gunicorn.conf.py and
    app/commands/measure.py set it).
    """
    if wanted == "cpu":
        return []
    with nvml() as is_there:
        if not is_there:
            return []
        driver = ask(pynvml.nvmlSystemGetDriverVersion) or "unknown"
        gpus = (read_gpu(index, handle, driver) for index, handle in enumerate(visible_handles()))
        return [gpu for gpu in gpus if gpu is not None]


def free_on(uuid: str) -> int | None:
    """Return the free bytes of a GPU, whatever this process may see; None where nobody can tell."""
    with nvml() as is_there:
        for known, handle in all_handles() if is_there else []:
            if known == uuid:
                with suppress(pynvml.NVMLError):
                    return read_memory(handle)[0].free
    return None


def held_by(uuid: str, pid: int) -> int | None:
    """Return the bytes that a process holds on a GPU; None where the driver does not tell.

    In a container it may count processes by other numbers, or not at all.
    """
    with nvml() as is_there:
        for known, handle in all_handles() if is_there else []:
            running = ask(pynvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
            for process in running if known == uuid else []:
                if process.pid == pid and process.usedGpuMemory:
                    return int(process.usedGpuMemory)
    return None


@contextmanager
def nvml() -> Iterator[bool]:
    """Hold NVML open; yields whether there is one."""
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


def ask(function: Callable[..., T], *arguments: Any) -> T | None:
    """Return NVML's answer, or None where it refuses."""
    try:
        return function(*arguments)
    except pynvml.NVMLError:
        return None


def read_gpu(index: int, handle: Any, driver: str) -> Gpu | None:
    """Return a GPU; None, said once in the log, where its memory cannot be told."""
    name, uuid = ask(pynvml.nvmlDeviceGetName, handle), ask(pynvml.nvmlDeviceGetUUID, handle)
    try:
        memory, is_unified = read_memory(handle)
    except pynvml.NVMLError as problem:
        if (line := f"GPU {index} ({name or 'unknown'}) is not used: {problem}") not in _told:
            _told.add(line)
            logger.warning("%s", line)
        return None
    busy = read_busy(handle)
    return Gpu(
        index, name or "unknown", driver, memory.free, memory.total, busy, uuid or "", is_unified
    )


def read_memory(handle: Any) -> tuple[Memory, bool]:
    """Return a GPU's memory, and whether that is the host's. Raises NVMLError where it cannot be told."""
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError_NotSupported:  # host and GPU share one
        return read_host_memory(), True
    return Memory(int(memory.free), int(memory.total)), False


def read_busy(handle: Any) -> float | None:
    """Return how busy a GPU is, as ``Gpu.busy``; a part of one (MIG) does not know."""
    use = ask(pynvml.nvmlDeviceGetUtilizationRates, handle)
    return None if use is None else float(use.gpu) / 100


def all_handles() -> Iterator[tuple[str, Any]]:
    """Yield the UUID and NVML's handle of every GPU, and of a GPU that is cut into slices (MIG) of each slice."""
    for index in range(ask(pynvml.nvmlDeviceGetCount) or 0):
        if (handle := ask(pynvml.nvmlDeviceGetHandleByIndex, index)) is not None:
            for part in slices_of(handle) or [handle]:
                yield ask(pynvml.nvmlDeviceGetUUID, part) or "", part


def slices_of(handle: Any) -> list[Any]:
    """Return the handles of a GPU's slices (MIG); none where it is whole."""
    mode = ask(pynvml.nvmlDeviceGetMigMode, handle)
    if mode is None or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        return []
    most = ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
    found = (ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, at) for at in range(most))
    return [part for part in found if part is not None]


def visible_handles() -> list[Any]:
    """Return NVML's handles in CUDA's order: ``CUDA_VISIBLE_DEVICES`` chooses by number or by UUID."""
    visible = _visible_before if _is_confined else os.environ.get(VISIBLE)
    known = list(all_handles())
    if visible is None:
        return [handle for _, handle in known]
    handles: list[Any] = []
    for name in filter(None, (part.strip() for part in visible.split(","))):
        found = find_handle(name, known)
        if found is None:
            break  # CUDA too stops at the first that it does not know
        handles += found
    return handles


def find_handle(name: str, known: list[tuple[str, Any]]) -> list[Any] | None:
    """Return the handles that one name of ``CUDA_VISIBLE_DEVICES`` means; None where there is none such.

    A UUID may be cut short; a number, or the UUID of a whole GPU, means all of its slices.
    """
    if not name.isdecimal():
        matching = [handle for uuid, handle in known if name and uuid.startswith(name)]
        if matching:
            return matching[:1]
    by_name = pynvml.nvmlDeviceGetHandleByIndex if name.isdecimal() else None
    whole = ask(by_name or pynvml.nvmlDeviceGetHandleByUUID, int(name) if by_name else name)
    return None if whole is None else slices_of(whole) or [whole]
