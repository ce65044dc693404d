"""Translation of CUDA's errors: a retry with a smaller batch, a new process, or neither can help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from app.errors import DeviceLost, OutOfMemory, first_line

MEMORY_ALLOCATION = 2  # cudaErrorMemoryAllocation, from a call that is not torch's allocator
ALLOC_FAILED = "ALLOC_FAILED"  # CUDNN_STATUS_… and CUBLAS_STATUS_…: plain RuntimeErrors


@contextmanager
def translate_cuda_errors() -> Iterator[None]:
    """Translate CUDA's errors into the application's.

    Raises:
        OutOfMemory: the GPU has no room at this moment; a smaller batch may fit.
        DeviceLost: the GPU cannot be used by this process any more.
        RuntimeError: any other error of the block, if the GPU is well.
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
    """Return whether an error, or one in its context, is a lack of GPU memory.

    A capture that runs out of memory raises a second error when it is closed.
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
    """Return the GPU's problem for this process, or "".

    A failed kernel may be reported as an error of cuDNN's; CUDA repeats its own at every call. The
    stream is synchronized, not the device: that would end a capture under way on another thread.
    """
    try:
        torch.cuda.current_stream().synchronize()
    except torch.AcceleratorError as error:
        return first_line(error)
    return ""
