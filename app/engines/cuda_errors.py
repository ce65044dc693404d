"""CUDA's errors, told apart: a smaller batch mends one, only a new process another, and some are nobody's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from app.errors import DeviceLost, OutOfMemory, first_line

MEMORY_ALLOCATION = 2  # cudaErrorMemoryAllocation, from a call that is not torch's allocator
ALLOC_FAILED = "ALLOC_FAILED"  # CUDNN_STATUS_… and CUBLAS_STATUS_…: plain RuntimeErrors


@contextmanager
def translate_cuda_errors() -> Iterator[None]:
    """Turn CUDA's errors into ours.

    Raises:
        OutOfMemory: the GPU has no room at this moment.
        DeviceLost: the GPU cannot be used by this process any more.
        RuntimeError: what the code within raised, where the GPU is well.
    """
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise OutOfMemory(f"the GPU is out of memory: {first_line(error)}") from error
        if isinstance(error, torch.AcceleratorError):
            raise DeviceLost(first_line(error)) from error
        if problem := find_problem():
            raise DeviceLost(f"{first_line(error)} ({problem})") from error
        raise


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether the GPU had no room, also where that is what an error came after.

    A capture that ends early for lack of memory fails once more where it is closed.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    if isinstance(error, torch.AcceleratorError):
        if getattr(error, "error_code", None) == MEMORY_ALLOCATION:
            return True
    elif isinstance(error, RuntimeError) and ALLOC_FAILED in str(error):
        return True
    return error is not None and is_out_of_memory(error.__context__)


def find_problem() -> str:
    """Return what is wrong with the GPU for this process; empty where nothing is.

    A failed kernel may have been reported as an error of cuDNN's; CUDA repeats its own for every call. The
    stream is asked, not the device: that would end a capture under way on another thread.
    """
    try:
        torch.cuda.current_stream().synchronize()
    except torch.AcceleratorError as error:
        return first_line(error)
    return ""
