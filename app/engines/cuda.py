"""torch on an NVIDIA GPU: one CUDA graph for each batch size, so that a forward is one native call.

A graph covers everything from pinned input to pinned logits: both copies, the normalization, the network.
Batches are padded to the next captured size. The features stay on the GPU and are copied only on request:
they are 100 times as large as the logits.

A new version is captured while the current one computes, in the same process on another thread. Process-wide
state (captures, the allocator's cache, torch's switches) is therefore guarded by one lock.
"""

from __future__ import annotations

import gc
from _thread import allocate_lock  # native: engines are imported before gevent patches
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch.fx.experimental.optimization import fuse

from app.engines.cuda_errors import is_out_of_memory, translate_cuda_errors
from app.engines.engine import Gradients, Outputs
from app.engines.gradcam import UNTRACEABLE
from app.engines.network import PixelNetwork, build_network
from app.errors import BundleError, DeviceLost, NoDeviceMemory, OutOfMemory, first_line
from app.models.bundle import Bundle
from app.models.precision import FP32, TF32

TYPES = {FP32: torch.float32, TF32: torch.float32, "fp16": torch.float16}
# The largest deviation of a logit from fp32 on the CPU, for images of noise, relative to the largest logit: the
# contract in fp32; otherwise between rounding and a fault (a missing synchronization, an overflow).
MAX_DEVIATION = {FP32: 1e-3, TF32: 0.05, "fp16": 0.1}
NOISE_IMAGES = 4
TF32_CAPABILITY = (8, 0)  # GPUs before Ampere have none
WARM_UP_RUNS = (
    3  # before a capture, as torch.cuda.graphs advises: cuDNN chooses its kernels in them
)

_captures = allocate_lock()  # held while graphs are captured or cached memory is given back
_open: WeakSet[CudaEngine] = WeakSet()  # the engines of this process that can answer
_timed: set[tuple[str, int, str, int]] = set()  # networks with kernels timed by cuDNN


class CudaEngine:
    """The network on one GPU; batch norms folded into convolutions, channels last.

    Attributes:
        max_batch: the largest batch with a graph; smaller than requested if memory is short.
    """

    lanes = 1

    def __init__(self, bundle: Bundle, device: str, precision: str, max_batch: int) -> None:
        """Build the network and capture its graphs, the largest first: they share its memory.

        Raises:
            BundleError: the weights do not fit, there is no such GPU, or the network answers
                differently than on the CPU.
            NoDeviceMemory: a single image does not fit into the GPU's memory.
        """
        self.device = device
        self.precision = precision
        self._lock = allocate_lock()
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        network = build_network(bundle)
        noise = make_noise(bundle.config.transform.side)
        with torch.inference_mode():
            expected = network(torch.from_numpy(noise)).numpy()
        self._network = prepare_network(network, TYPES[precision])
        shape = bundle.config.architecture, bundle.config.transform.side, precision, max_batch
        failure = self._set_up(shape) or self._compare(noise, expected)
        if failure is not None:  # raised outside of except: a traceback would hold the memory
            self.close()
            raise failure
        self.max_batch = max(self._graphs)
        _open.add(self)

    def forward(self, images: Sequence[np.ndarray], with_features: bool = False) -> Outputs:
        """Run one batch; see ``Engine.forward``."""
        count = len(images)
        with self._lock, translate_cuda_errors(), torch.inference_mode():
            size = next((size for size in sorted(self._graphs) if size >= count), None)
            if size is None:
                raise OutOfMemory(
                    f"the GPU has no room for a batch of {count}; it has for {self.max_batch}"
                )
            torch.cuda.set_device(self.device)  # per thread, and this one may be new
            np.stack(images, out=self._pixels_view[:count])
            on_gpu = self._features if with_features else None
            with torch.cuda.stream(self._stream):
                self._graphs[size].replay()
                if on_gpu is not None:
                    self._seen[:count].copy_(on_gpu[:count].float(), non_blocking=True)
                self._done.record()
            self._done.synchronize()
            features = None if on_gpu is None else self._seen[:count].numpy().copy()
            return Outputs(self._logits_view[:count].copy(), features)

    def forward_in_lane(
        self, lane: int, images: Sequence[np.ndarray], with_features: bool = False
    ) -> Outputs:
        """Run one batch; a GPU has one lane."""
        return self.forward(images, with_features)

    def close(self) -> None:
        """Release the GPU's memory; see ``Engine.close``."""
        with self._lock, _captures:
            _open.discard(self)
            with suppress(RuntimeError):  # a lost GPU has nothing to wait for
                torch.cuda.synchronize()
                for graph in self._graphs.values():
                    graph.reset()
            self._graphs.clear()
            for name in ("_network", "_head", "gradients", "_features", "_seen", "_pixels"):
                self.__dict__.pop(name, None)
            for name in ("_logits", "_pixels_view", "_logits_view"):
                self.__dict__.pop(name, None)
            gc.collect()  # torch.fx's networks are reference cycles
            with suppress(RuntimeError):
                torch.cuda.empty_cache()

    def _set_up(self, shape: tuple[str, int, str, int]) -> BundleError | None:
        """Move the network to the GPU and capture its graphs; return the failure, if any."""
        try:
            # cuDNN times kernels for the first network only. Later the current version computes meanwhile and
            # would distort the timing: then only kernels that were timed before are used.
            timing = not _open or shape in _timed
            with _captures, switches(self.precision, timing):
                torch.cuda.set_device(self.device)
                self._network.to(self.device)
                self.gradients: Gradients = self._network.gradients()
                if callable(self.gradients):
                    self._head, self.gradients = self.gradients, self._gradient
                self._capture(shape[3], shape[1])
                if timing:
                    _timed.add(shape)
        except RuntimeError as error:
            if is_out_of_memory(error):
                return NoDeviceMemory(f"not enough GPU memory: {first_line(error)}")
            return BundleError(f"{self.device} cannot be used: {first_line(error)}")
        return None

    def _compare(self, noise: np.ndarray, expected: np.ndarray) -> BundleError | None:
        """Compare every captured size with the CPU; return the failure, if any."""
        scale = max(1.0, float(np.abs(expected).max()))
        limit = MAX_DEVIATION[self.precision] * scale
        for size in self._graphs:
            chosen = np.arange(size) % len(noise)
            try:
                logits = self.forward(list(noise[chosen])).logits
            except (OutOfMemory, DeviceLost) as error:
                return BundleError(f"{self.device} cannot be used: {error}")
            deviation = float(np.abs(logits - expected[chosen]).max())
            if np.isfinite(expected).all() and not deviation <= limit:  # NaN is too much
                return BundleError(
                    f"on {self.device} in {self.precision} a batch of {size} answers otherwise than the CPU: "
                    f"by {deviation:.2g}, the limit is {limit:.2g}"
                )
        return None

    def _gradient(self, features: np.ndarray, label: int) -> np.ndarray:
        """Return one class's gradient; see ``HeadGradients``."""
        with translate_cuda_errors():
            torch.cuda.set_device(self.device)
            gradient: np.ndarray = self._head(features, label)
            return gradient

    @torch.inference_mode()
    def _capture(self, max_batch: int, side: int) -> None:
        """Capture a graph for each size that memory allows; raise without room for the smallest."""
        self._warming, self._capturing, self._stream = make_streams(self.device)
        # Blocking: the thread sleeps while it waits. The default spins, a core for each worker.
        self._done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._pixels = pinned((max_batch, 3, side, side), torch.uint8)
        self._logits = pinned((max_batch, self._network.outputs), torch.float32)
        self._pixels_view, self._logits_view = self._pixels.numpy(), self._logits.numpy()
        self._features: torch.Tensor | None = None
        with torch.cuda.stream(self._warming):
            _, features = self._network.run(self._pixels[:1].to(self.device))
            if features is not None:  # of the last forward; it stays on the GPU
                shape = max_batch, *features.shape[1:]
                self._features = features.new_zeros(shape)
                self._seen = pinned(shape, torch.float32)
        pool = torch.cuda.graph_pool_handle()
        for size in sorted(batch_sizes(max_batch), reverse=True):
            if not self._capture_one(size, pool) and size == 1:
                raise torch.OutOfMemoryError("there is no room for a single picture")
        torch.cuda.synchronize()  # other streams replay these graphs

    def _capture_one(self, size: int, pool: Any) -> bool:
        """Capture the graph of one size; return False if memory does not allow it."""
        try:
            with torch.cuda.stream(self._warming):
                for _ in range(WARM_UP_RUNS):
                    self._run(size)
            self._warming.synchronize()
            self._graphs[size] = record(partial(self._run, size), pool, self._capturing)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            return True
        torch.cuda.empty_cache()  # outside of except: a traceback would hold the memory
        return False

    def _run(self, size: int) -> None:
        """Run the captured operations on the current stream: pixels to the GPU, forward, logits back."""
        pixels = self._pixels[:size].to(self.device, non_blocking=True)
        logits, features = self._network.run(pixels.contiguous(memory_format=torch.channels_last))
        self._logits[:size].copy_(logits, non_blocking=True)
        if self._features is not None and features is not None:
            self._features[:size].copy_(features)


def record(run: Callable[[], None], pool: Any, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
    """Return a graph of the operations of ``run``.

    The live version keeps computing on another thread: an error in its CUDA calls must not end the capture, nor
    the capture end those calls.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        run()
    return graph


def pinned(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return zeros in page-locked host memory."""
    return torch.zeros(shape, dtype=dtype, pin_memory=True)


@cache
def make_streams(device: str) -> tuple[torch.cuda.Stream, torch.cuda.Stream, torch.cuda.Stream]:
    """Return a device's three streams: for warm-up, for capture, and for answering.

    All engines of the process share them: cuBLAS keeps a workspace of up to 32 MiB for each stream, which would be
    missing in the footprint. A graph keeps using the workspace of its capture stream, so nothing else may compute
    there while the current version answers.
    """
    warming, capturing, answering = (torch.cuda.Stream(device) for _ in range(3))  # type: ignore[no-untyped-call]
    return warming, capturing, answering


@contextmanager
def switches(precision: str, timing: bool) -> Iterator[None]:
    """Set torch's process-wide switches while kernels are chosen; captured graphs keep them.

    By default torch computes fp32 convolutions in TF32, which has ten bits of fp32's mantissa.

    Args:
        precision: of the captured network.
        timing: whether cuDNN may choose by timing.
    """
    kind = "tf32" if precision == TF32 else "ieee"
    set_fp32(kind)
    torch.backends.cudnn.benchmark = timing
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = False
        set_fp32("ieee")


def set_fp32(kind: str) -> None:
    """Set the computation of fp32 to ``ieee`` or ``tf32``."""
    torch.backends.cudnn.conv.fp32_precision = kind  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = kind


def make_noise(side: int) -> np.ndarray:
    """Return images of noise, (n, 3, side, side) uint8."""
    return np.random.default_rng(0).integers(0, 256, (NOISE_IMAGES, 3, side, side), np.uint8)


def prepare_network(network: PixelNetwork, dtype: torch.dtype) -> PixelNetwork:
    """Fold the batch norms into the convolutions in fp32, then set the type and the memory format.

    An architecture that torch.fx cannot trace keeps its batch norms: it is slower, and as accurate.
    """
    with suppress(*UNTRACEABLE):
        network.classifier = fuse(network.classifier)
    network.to(dtype)
    network.to(memory_format=torch.channels_last)
    return network


def batch_sizes(max_batch: int) -> list[int]:
    """Return the sizes to capture: powers of two, three quarters between from 8 on, and ``max_batch``.

    So a batch is padded by at most a half (a third from 8 on), and 64 takes ten graphs.
    """
    powers = [1 << exponent for exponent in range(max_batch.bit_length())]
    between = [3 * power // 4 for power in powers if power >= 16]
    return sorted({size for size in powers + between if size <= max_batch} | {max_batch})


def gpu_precisions() -> dict[str, str]:
    """Return every precision → "", or the reason why this GPU cannot compute in it."""
    usable = dict.fromkeys(TYPES, "")
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < TF32_CAPABILITY:
        usable[TF32] = "the GPU has no TF32"
    return usable
