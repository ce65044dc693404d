"""Loading an engine: it is opened, warmed up and checked before it answers a request."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import numpy as np

from app.engines.engine import Choice, Engine
from app.engines.self_check import check_answers
from app.errors import BundleError, NoDeviceMemory, OutOfMemory
from app.models.artifacts import NETWORKS, Artifacts
from app.models.bundle import Bundle
from app.models.precision import FP32


def load_engine(choice: Choice, artifacts: Artifacts) -> Engine:
    """Load and warm up an engine on the calling thread.

    Raises:
        BundleError: the bundle cannot be served this way; the message says why.
        NoDeviceMemory: there is not enough free memory.
    """
    engine = open_engine(choice, artifacts)
    with ExitStack() as on_failure:
        on_failure.callback(engine.close)
        if choice.engine != "openvino":  # the others have read the weights themselves
            artifacts.check_weights()
        try:
            warm_up(engine, artifacts.bundle)
        except OutOfMemory as error:
            raise NoDeviceMemory(f"not enough memory: {error.message}") from error
        compare_answers(engine, choice.precision, artifacts)
        on_failure.pop_all()
    return engine


def open_engine(choice: Choice, artifacts: Artifacts) -> Engine:
    """Open an engine without running it."""
    if choice.engine == "openvino":
        from app.engines.openvino import OpenVinoEngine  # noqa: PLC0415

        return OpenVinoEngine(artifacts, choice.precision, choice.threads, choice.max_batch)
    if choice.engine == "eager":
        from app.engines.eager import EagerEngine  # noqa: PLC0415

        return EagerEngine(artifacts.bundle, choice.threads, choice.max_batch)
    from app.engines.cuda import CudaEngine  # noqa: PLC0415

    return CudaEngine(artifacts.bundle, choice.device, choice.precision, choice.max_batch)


def warm_up(engine: Engine, bundle: Bundle) -> None:
    """Run the smallest and the largest batch, so that no request pays for the first allocation.

    Raises:
        BundleError: the network does not fit the class names, or returns NaN or infinity.
        OutOfMemory: the largest batch does not fit.
    """
    side = bundle.config.transform.side
    for size in sorted({1, engine.max_batch}):
        black = [np.zeros((3, side, side), np.uint8)] * size
        lanes = [engine.forward_in_lane(lane, black, True) for lane in range(engine.lanes)]
        for logits, features in (engine.forward(black, True), *lanes):
            check_class_count(bundle, logits.shape[1])
            if not np.isfinite(logits).all():
                raise BundleError("the network answers NaN or infinity to a black image")
            if callable(engine.gradients) and features is not None:
                engine.gradients(features[0], 0)


def check_class_count(bundle: Bundle, outputs: int) -> None:
    """Raise BundleError if a network has another number of outputs than the bundle has class names."""
    if outputs != len(bundle.class_names):
        raise BundleError(
            f"{bundle.weights} has {outputs} outputs, "
            f"but class_name.json names {len(bundle.class_names)} classes"
        )


def compare_answers(engine: Engine, precision: str, artifacts: Artifacts) -> None:
    """Compare an engine's self-check answers with those recorded at the conversion. Raises BundleError."""
    expected = artifacts.read_answers(NETWORKS.get(precision, FP32))
    if expected is None:
        return
    side = artifacts.bundle.config.transform.side
    for forward in (engine.forward, partial(engine.forward_in_lane, 0)):
        check_answers(forward, expected, side, artifacts.bundle.weights)


def supported_precisions(engine: str, artifacts: Artifacts) -> dict[str, str]:
    """Return each precision of an engine → "", or the reason why this machine cannot serve it."""
    if engine == "openvino":
        from app.engines.openvino import cpu_precisions  # noqa: PLC0415

        return cpu_precisions(artifacts)
    if engine == "cuda":
        from app.engines.cuda import gpu_precisions  # noqa: PLC0415

        return gpu_precisions()
    return {FP32: ""}
