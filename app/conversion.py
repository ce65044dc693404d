"""From a bundle to the network that OpenVINO reads. Needs torch: only processes that end soon come here."""

from __future__ import annotations

import warnings
from pathlib import Path

import openvino
import torch

import app.engines.openvino  # noqa: F401  (before OpenVINO's own import: see there)
from app.errors import BundleError, first_line
from app.network import build_network
from app.optimized import Optimized
from app.precision import FP32


class ConversionError(BundleError):
    """A network that torch runs and OpenVINO cannot."""


def convert_bundle(optimized: Optimized) -> Path:
    """Convert a bundle unless it was converted before; return the network's path.

    The network takes (n, 3, side, side) uint8 and carries the normalisation; the weights are kept in
    fp32, so bf16 reads the same file.

    Raises:
        BundleError: the weights cannot be read or do not fit.
        ConversionError: OpenVINO cannot convert them.
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
    return optimized.add_network(
        FP32, lambda path: openvino.save_model(converted, path, compress_to_fp16=False)
    )
