"""The interface of engines: an engine runs a network on a device.

    openvino   CPU, fp32, bf16 or int8; reads the network that ``app/engines/conversion.py`` converted
    eager      CPU, fp32, plain torch: the fallback if OpenVINO cannot run a network
    cuda       NVIDIA GPUs, fp32, tf32 or fp16: one CUDA graph for each batch size

``app/engines/loader.py`` imports the chosen one only, so a CPU worker never imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

ENGINES = ("openvino", "eager", "cuda")


class Outputs(NamedTuple):
    """The outputs of a forward on n images, owned by the caller.

    Attributes:
        logits: (n, classes) float32.
        features: (n, channels, height, width) float32, the last feature map; None if it was not requested
            or the network has none.
    """

    logits: np.ndarray
    features: np.ndarray | None = None


# Takes n images, each (3, side, side) uint8, and whether to return the features.
Forward = Callable[[Sequence[np.ndarray], bool], Outputs]

# The gradient of a logit with respect to the last feature map, summed over its area: Grad-CAM's channel weights.
# A network that ends in average pooling and a linear layer has the same gradient for every image: (classes,
# channels) float32. Any other is computed by a call on the model thread with one image's features and a class,
# which returns (channels,) float32. None: the network has no feature map.
Gradients = np.ndarray | Callable[[np.ndarray, int], np.ndarray] | None


class Engine(Protocol):
    """A loaded network.

    A single request is answered fastest by all cores together (``forward``). Many requests are answered
    fastest by one core each (``forward_in_lane``, one call per lane at a time): cores that synchronize after
    every layer lose the time that a decode thread takes from one of them.

    Attributes:
        device: ``cpu`` or ``cuda:N``.
        precision: ``fp32``, ``tf32``, ``bf16``, ``fp16`` or ``int8``.
        max_batch: the largest batch; smaller than requested if memory is short.
        lanes: the number of concurrent forwards, each on its own thread; 1 on a GPU.
        gradients: the gradients of the logits; None without a feature map.
    """

    device: str
    precision: str
    max_batch: int
    lanes: int
    gradients: Gradients

    def forward_in_lane(
        self, lane: int, images: Sequence[np.ndarray], with_features: bool = False
    ) -> Outputs:
        """Run one batch concurrently with other lanes; otherwise as ``forward``. One thread per lane."""
        ...

    def forward(self, images: Sequence[np.ndarray], with_features: bool = False) -> Outputs:
        """Run one batch on the whole device, in one native call that releases the GIL.

        Safe on any thread; concurrent calls are serialized.

        Args:
            images: n images, each (3, side, side) uint8, RGB, of the model's input size;
                1 ≤ n ≤ ``max_batch``.
            with_features: return the features too.

        Raises:
            OutOfMemory: the device has no room for a batch of this size.
            DeviceLost: this process cannot use the device any more.
        """
        ...

    def close(self) -> None:
        """Release the device's memory; the engine must not be used afterwards."""
        ...


@dataclass(frozen=True)
class Choice:
    """The configuration of an engine.

    Attributes:
        engine: one of ``ENGINES``.
        precision: ``fp32``, ``tf32``, ``bf16``, ``fp16`` or ``int8``.
        device: ``cpu``, or ``cuda:N`` by this process's numbering.
        threads: CPU threads of one forward.
        max_batch: the largest batch to expect.
    """

    engine: str
    precision: str
    device: str
    threads: int
    max_batch: int
