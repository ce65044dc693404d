"""torch on an NVIDIA GPU: one CUDA graph for each batch size, so that a forward is one native call.

A graph holds everything from the pinned pictures to the pinned logits: both copies, the
normalisation, the network. Batches are padded up to the next size that has a graph. The features stay
on the GPU and are copied from there where they are wanted: 100 times as much as the logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.optimization import fuse

from app.bundle import Bundle
from app.errors import BundleError, DeviceLost, OutOfMemory, first_line
from app.gradcam import UNTRACEABLE
from app.network import PixelNetwork, build_network
from app.outputs import Outputs
from app.precision import FP32

TYPES = {FP32: torch.float32, "fp16": torch.float16}
WARM_UP_RUNS = (
    3  # before a capture, as torch.cuda.graphs advises: cuDNN chooses its kernels in them
)


class CudaEngine:
    """The network on one GPU; batch norms folded into convolutions, channels last."""

    lanes = 1

    def __init__(self, bundle: Bundle, device: str, precision: str, max_batch: int) -> None:
        """Build the network and capture its graphs, the largest first: they share its memory.

        Raises:
            BundleError: the weights do not fit, the GPU is not there, or a single picture does not
                fit into its memory.
        """
        self.device = device
        self.precision = precision
        network = prepare_network(build_network(bundle), TYPES[precision])
        try:
            torch.cuda.set_device(device)
            torch.backends.cudnn.benchmark = True
            self._network = network.to(device)
            gradients = network.gradients()
            self.gradients = told_apart()(gradients) if callable(gradients) else gradients
            self._capture(batch_sizes(max_batch), bundle.card.frame.side, network.outputs)
        except torch.OutOfMemoryError as error:
            raise BundleError(
                f"not enough GPU memory for {bundle.name}: {first_line(error)}"
            ) from error
        except RuntimeError as error:
            raise BundleError(f"{device} cannot be used: {first_line(error)}") from error

    def forward(self, images: Sequence[np.ndarray], with_features: bool = False) -> Outputs:
        """Answer one batch; see ``Engine.forward``."""
        count = len(images)
        size = next((size for size in sorted(self._graphs) if size >= count), None)
        if size is None:
            raise OutOfMemory(
                f"the GPU has no room for a batch of {count}; it has for {max(self._graphs)}"
            )
        with told_apart():
            np.stack(images, out=self._pixels_view[:count])
            with torch.cuda.stream(self._stream):
                self._graphs[size].replay()
                features = self._read_features(count) if with_features else None
                self._done.record()
            self._done.synchronize()
        return Outputs(self._logits_view[:count].copy(), features)

    def forward_in_lane(
        self, lane: int, images: Sequence[np.ndarray], with_features: bool = False
    ) -> Outputs:
        """Answer one batch; a GPU is one lane."""
        return self.forward(images, with_features)

    def _read_features(self, count: int) -> np.ndarray | None:
        """Copy the features of the last forward from the GPU, on the current stream."""
        if self._features is None:
            return None
        features: np.ndarray = self._features[:count].float().cpu().numpy()
        return features

    @torch.inference_mode()
    def _capture(self, sizes: list[int], side: int, classes: int) -> None:
        """Capture a graph for each size; leave out the sizes that memory does not allow, but the smallest."""
        most = max(sizes)
        self._pixels = torch.zeros((most, 3, side, side), dtype=torch.uint8, pin_memory=True)
        self._logits = torch.zeros((most, classes), dtype=torch.float32, pin_memory=True)
        self._pixels_view, self._logits_view = self._pixels.numpy(), self._logits.numpy()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        # Blocking: the thread sleeps while it waits. The default spins, a core for each worker.
        self._done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._features: torch.Tensor | None = None
        with torch.cuda.stream(self._stream):
            _, features = self._network.run(self._pixels[:1].to(self.device))
            if features is not None:  # the last forward's; it stays on the GPU
                self._features = features.new_zeros((most, *features.shape[1:]))
        pool = torch.cuda.graph_pool_handle()
        for size in sorted(sizes, reverse=True):
            try:
                self._graphs[size] = self._capture_one(size, pool)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                if size == min(sizes):
                    raise

    def _capture_one(self, size: int, pool: Any) -> torch.cuda.CUDAGraph:
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP_RUNS):
                self._run(size)
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=self._stream):
            self._run(size)
        return graph

    def _run(self, size: int) -> None:
        """Do what a graph records: pixels to the GPU, logits back, all on the current stream."""
        pixels = self._pixels[:size].to(self.device, non_blocking=True)
        logits, features = self._network.run(pixels.contiguous(memory_format=torch.channels_last))
        self._logits[:size].copy_(logits, non_blocking=True)
        if self._features is not None and features is not None:
            self._features[:size].copy_(features)


def prepare_network(network: PixelNetwork, dtype: torch.dtype) -> PixelNetwork:
    """Fold the batch norms into the convolutions in fp32, then take the type and the memory format.

    An architecture that torch.fx cannot trace keeps its batch norms: it is slower, and as right.
    """
    with suppress(*UNTRACEABLE):
        network.classifier = fuse(network.classifier)
    network.to(dtype)
    network.to(memory_format=torch.channels_last)
    return network


def batch_sizes(max_batch: int) -> list[int]:
    """Return the sizes that get a graph: powers of two, and three quarters between from 8 on, up to ``max_batch``.

    So a batch is padded by at most a half (a third from 8 on), and 64 takes ten graphs.
    """
    powers = [1 << exponent for exponent in range(max_batch.bit_length())]
    between = [3 * power // 4 for power in powers if power >= 16]
    return sorted({size for size in powers + between if size <= max_batch} | {max_batch})


@contextmanager
def told_apart() -> Iterator[None]:
    """Turn CUDA's errors into ours: a smaller batch mends the one, only a new process the other."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise OutOfMemory(f"the GPU is out of memory: {first_line(error)}") from error
    except torch.AcceleratorError as error:
        raise DeviceLost(first_line(error)) from error


def usable_precisions() -> dict[str, str]:
    """Return every precision → empty: any GPU that torch supports computes in both."""
    return dict.fromkeys(TYPES, "")
