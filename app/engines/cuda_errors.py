"""CUDA's errors, told apart: a smaller batch mends one, only a new process another, and some are nobody's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from app.errors import DeviceLost, OutOfMemory, first_line

MEMORY_ALLOCATION = 2  # cudaErrorMemoryAllocation, from a call that is not torch's allocator
ALLOC_FAILED = "ALLOC_FAILED"  # CUDNN_STATUS_… and CUBLAS_STATUS_…: plain RuntimeErrors


@contextmanager
def told_apart() -> Iterator[None]:
    """Turn CUDA's errors into ours.

    Raises:
        OutOfMemory: the GPU has no room at this moment.
        DeviceLost: the GPU cannot be used by this process any more.
        RuntimeError: what the code within raised, where the GPU is well.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"the GPU is out of memory: {first_line(error)}") from error
    except torch.AcceleratorError as error:
        if getattr(error, "error_code", None) == MEMORY_ALLOCATION:
            raise OutOfMemory(f"the GPU is out of memory: {first_line(error)}") from error
        raise DeviceLost(first_line(error)) from error
    except RuntimeError as error:
        if ALLOC_FAILED in str(error):
            raise OutOfMemory(f"the GPU is out of memory: {first_line(error)}") from error
        if problem := find_problem():
            raise DeviceLost(f"{first_line(error)} ({problem})") from error
        raise


def find_problem() -> str:
    """Return what is wrong with the GPU for this process; empty where nothing is.

    A failed kernel may have been reported as an error of cuDNN's; CUDA repeats its own for every call.
    """
    try:
        torch.cuda.synchronize()
    except torch.AcceleratorError as error:
        return first_line(error)
    return ""
