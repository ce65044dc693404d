"""Engines: what runs a network on a device, behind one small interface.

    openvino   CPU, fp32, bf16 or int8; reads the network that ``app/engines/conversion.py`` made of the bundle
    eager      CPU, fp32, torch as it is: where OpenVINO cannot run a network
    cuda       NVIDIA GPUs, fp32, tf32 or fp16: one CUDA graph for each batch size

Each is imported where it is chosen and nowhere else, so a worker on the CPU never imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from app.engines.outputs import Gradients, Outputs
from app.engines.self_test import check_noise
from app.errors import BundleError, NoDeviceMemory, OutOfMemory
from app.models.artifacts import NETWORKS, Artifacts
from app.models.bundle import Bundle
from app.models.precision import FP32

ENGINES = ("openvino", "eager", "cuda")


class Engine(Protocol):
    """A loaded network.

    A crowd and a lone client want different things of the same cores. A lone picture is answered
    soonest by all of them together (``forward``); many pictures are answered fastest where each core
    works alone, since cores that wait for each other after every layer waste what a decode thread
    takes from one of them (``forward_in_lane``, as many at once as there are lanes).

    Attributes:
        device: ``cpu`` or ``cuda:N``.
        precision: ``fp32``, ``tf32``, ``bf16``, ``fp16`` or ``int8``.
        max_batch: the largest batch that it answers; less than asked for where memory is short.
        lanes: forwards that may run at once, each on a thread of its own; 1 where the device is one.
        gradients: how the logits change with the features; None where it gives none.
    """

    device: str
    precision: str
    max_batch: int
    lanes: int
    gradients: Gradients

    def forward_in_lane(
        self, lane: int, images: Sequence[np.ndarray], with_features: bool = False
    ) -> Outputs:
        """Answer one batch beside the other lanes, as ``forward`` does; a lane is used by one thread at a time."""
        ...

    def forward(self, images: Sequence[np.ndarray], with_features: bool = False) -> Outputs:
        """Answer one batch with the whole device, in one native call that lets go of the GIL.

        Safe on any thread; where two call at once the second waits.

        Args:
            images: n pictures, each (3, side, side) uint8, RGB, of the size that the bundle's card
                asks for; 1 ≤ n ≤ ``max_batch``.
            with_features: give the features too.

        Raises:
            OutOfMemory: the device has no room for a batch of this size.
            DeviceLost: the device cannot be used by this process any more.
        """
        ...

    def close(self) -> None:
        """Give its memory back; nothing is asked of it any more."""
        ...


@dataclass(frozen=True)
class Choice:
    """Which engine runs where, and how.

    Attributes:
        engine: one of ``ENGINES``.
        precision: ``fp32``, ``tf32``, ``bf16``, ``fp16`` or ``int8``.
        device: ``cpu``, or ``cuda:N`` as this process counts.
        threads: CPU threads of one forward.
        max_batch: the largest batch that will come.
    """

    engine: str
    precision: str
    device: str
    threads: int
    max_batch: int


def load_engine(choice: Choice, artifacts: Artifacts) -> Engine:
    """Load and warm up an engine on the calling thread; it is ready to answer when this returns.

    Raises:
        BundleError: the bundle cannot be served this way; the text says why.
        NoDeviceMemory: memory does not hold it now.
    """
    engine = open_engine(choice, artifacts)
    with ExitStack() as failing:
        failing.callback(engine.close)
        if choice.engine != "openvino":  # they read the weights themselves
            artifacts.check_weights()
        try:
            warm_up(engine, artifacts)
        except OutOfMemory as error:
            raise NoDeviceMemory(f"not enough memory: {error.message}") from error
        check_answers(engine, choice.precision, artifacts)
        failing.pop_all()
    return engine


def check_answers(engine: Engine, precision: str, artifacts: Artifacts) -> None:
    """Compare what an engine answers to noise with what the network answered when it was made. Raises BundleError."""
    expected = artifacts.read_answers(NETWORKS.get(precision, FP32))
    if expected is None:
        return
    side = artifacts.bundle.config.transform.side
    for forward in (engine.forward, partial(engine.forward_in_lane, 0)):
        check_noise(forward, expected, side, artifacts.bundle.weights)


def warm_up(engine: Engine, artifacts: Artifacts) -> None:
    """Run an engine's smallest and largest batch; see ``load_engine``.

    Raises:
        BundleError: as ``load_engine`` does.
        OutOfMemory: the largest batch does not fit.
    """
    side = artifacts.bundle.config.transform.side
    # The smallest and the largest batch once, so that no client pays for the first allocation.
    for size in sorted({1, engine.max_batch}):
        black = [np.zeros((3, side, side), np.uint8)] * size
        lanes = [engine.forward_in_lane(lane, black, True) for lane in range(engine.lanes)]
        for logits, features in (engine.forward(black, True), *lanes):
            check_class_count(artifacts.bundle, logits.shape[1])
            if not np.isfinite(logits).all():
                raise BundleError("the network answers NaN or infinity to a black picture")
            if callable(engine.gradients) and features is not None:
                engine.gradients(features[0], 0)


def check_class_count(bundle: Bundle, outputs: int) -> None:
    """Compare a network's outputs with the class names. Raises BundleError."""
    if outputs != len(bundle.class_names):
        raise BundleError(
            f"{bundle.weights} has {outputs} outputs, "
            f"but class_name.json names {len(bundle.class_names)} classes"
        )


def open_engine(choice: Choice, artifacts: Artifacts) -> Engine:
    """Load an engine without running it."""
    if choice.engine == "openvino":
        from app.engines.openvino import OpenVinoEngine  # noqa: PLC0415

        return OpenVinoEngine(artifacts, choice.precision, choice.threads, choice.max_batch)
    if choice.engine == "eager":
        from app.engines.eager import EagerEngine  # noqa: PLC0415

        return EagerEngine(artifacts.bundle, choice.threads, choice.max_batch)
    from app.engines.cuda import CudaEngine  # noqa: PLC0415

    return CudaEngine(artifacts.bundle, choice.device, choice.precision, choice.max_batch)
