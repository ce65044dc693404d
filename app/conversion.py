"""From a bundle to the network that OpenVINO reads. Needs torch: only processes that end soon come here."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import openvino
import torch

import app.engines.openvino  # noqa: F401  (before OpenVINO's own import: see there)
from app.errors import BundleError, first_line
from app.network import PixelNetwork, build_network
from app.optimized import Optimized
from app.precision import FP32

# Of the largest logit. Rounding stays far below, in trained networks by a thousand times, in random ones
# by three; an operation that was converted wrongly (a trace that took a branch, padding of the other
# side) is far above.
MAX_DEVIATION = 0.02


class ConversionError(BundleError):
    """A network that torch runs and OpenVINO cannot."""


def check_answers(network: PixelNetwork, converted: openvino.Model, side: int) -> None:
    """Hold the converted network against torch, on pictures of noise. Raises BundleError or ConversionError."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 3, side, side), np.uint8)
    with torch.inference_mode():
        expected = network(torch.from_numpy(noise)).numpy()
    if not np.isfinite(expected).all():
        raise BundleError("the network answers NaN or infinity to a picture of noise")
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    found = openvino.Core().compile_model(converted, "CPU", exact)(noise)[0]
    deviation = float(np.abs(found - expected).max())
    limit = MAX_DEVIATION * max(1.0, float(np.abs(expected).max()))
    if not deviation <= limit:
        raise ConversionError(
            f"converted for OpenVINO it answers otherwise: by {deviation:.2g}, the limit is {limit:.2g}"
        )


def convert_bundle(optimized: Optimized) -> Path:
    """Convert a bundle unless it was converted before; return the network's path.

    The network takes (n, 3, side, side) uint8 and carries the normalisation; the weights are kept in
    fp32, so bf16 reads the same file.

    Raises:
        BundleError: the weights cannot be read or do not fit.
        ConversionError: OpenVINO cannot convert them, or what comes out answers otherwise.
    """
    if found := optimized.find_network(FP32):
        return found
    network = build_network(optimized.bundle)
    side = optimized.bundle.card.frame.side
    # torch takes a short cut through attention in some calls and not in others, and a trace that
    # differs from the next is refused.
    torch.backends.mha.set_fastpath_enabled(False)
    example = torch.zeros((2, 3, side, side), dtype=torch.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # OpenVINO's converter traces, which torch deprecates
            converted = openvino.convert_model(
                network, example_input=example, input=[("pixels", [-1, 3, side, side])]
            )
    except RuntimeError as error:
        raise ConversionError(
            f"OpenVINO cannot convert {optimized.bundle.weights}: {first_line(error)}"
        ) from error
    check_answers(network, converted, side)
    return optimized.add_network(
        FP32, lambda path: openvino.save_model(converted, path, compress_to_fp16=False)
    )
