"""From a bundle to the network that OpenVINO reads. Needs torch: only processes that end soon come here."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import openvino
import torch
from torch import nn

from app.engines.network import PixelNetwork, build_network
from app.engines.openvino import save_network  # it comes before OpenVINO's own import: see there
from app.engines.self_test import make_noise
from app.errors import BundleError, first_line
from app.models.artifacts import Artifacts
from app.models.precision import FP32

# Of the largest logit, and of the largest feature. Rounding stays far below, in trained networks by a
# thousand times, in random ones by three; an operation that was converted wrongly (a trace that took a
# branch, padding of the other side) is far above.
MAX_DEVIATION = 0.02


class ConversionError(BundleError):
    """A network that torch runs and OpenVINO cannot."""


class WithFeatures(nn.Module):
    """A network whose forward gives its features too."""

    def __init__(self, network: PixelNetwork) -> None:
        """Take the network as it is."""
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Answer a batch with logits and features."""
        return self.network.run(pixels)


def answer_noise(network: nn.Module, side: int) -> list[np.ndarray]:
    """Return torch's answers to noise images. Raises BundleError if one is NaN or infinite."""
    with torch.inference_mode():
        answer = network(torch.from_numpy(make_noise(side)))
    answers = [each.numpy() for each in (answer if isinstance(answer, tuple) else [answer])]
    if not all(np.isfinite(expected).all() for expected in answers):
        raise BundleError("the network answers NaN or infinity to a picture of noise")
    return answers


def check_answers(answers: list[np.ndarray], converted: list[np.ndarray]) -> None:
    """Compare the converted network's answers with torch's. Raises ConversionError."""
    for expected, found in zip(answers, converted, strict=True):
        deviation = float(np.abs(found - expected).max())
        limit = MAX_DEVIATION * max(1.0, float(np.abs(expected).max()))
        if not deviation <= limit:
            raise ConversionError(
                f"converted for OpenVINO it answers otherwise: by {deviation:.2g}, the limit is {limit:.2g}"
            )


def convert_bundle(artifacts: Artifacts) -> Path:
    """Convert a bundle unless it was converted before; return the network's path.

    What was written is read back and compared with torch before it takes its place.

    The network takes (n, 3, side, side) uint8 and carries the normalisation; the weights are kept in
    fp32, so bf16 reads the same file. It gives logits, and features where their gradients are constant;
    those lie beside it.

    Raises:
        BundleError: the weights cannot be read or do not fit.
            Or there is nowhere to write the network.
        ConversionError: OpenVINO cannot convert them, or what comes out answers otherwise.
    """
    if found := artifacts.find_network(FP32):
        return found
    network = build_network(artifacts.bundle)
    gradients = network.gradients()
    # OpenVINO's engine has no use for features whose gradients take torch.
    wanted = WithFeatures(network) if isinstance(gradients, np.ndarray) else network
    side = artifacts.bundle.config.transform.side
    # torch takes a short cut through attention in some calls and not in others, and a trace that
    # differs from the next is refused.
    torch.backends.mha.set_fastpath_enabled(False)
    example = torch.zeros((2, 3, side, side), dtype=torch.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # OpenVINO's converter traces, which torch deprecates
            converted = openvino.convert_model(
                wanted, example_input=example, input=[("pixels", [-1, 3, side, side])]
            )
    except RuntimeError as error:
        raise ConversionError(
            f"OpenVINO cannot convert {artifacts.bundle.weights}: {first_line(error)}"
        ) from error
    answers = answer_noise(wanted, side)

    def save(path: Path) -> np.ndarray:
        check_answers(answers, save_network(converted, path, side))
        return answers[0]

    constant = gradients if isinstance(gradients, np.ndarray) else None
    return artifacts.add_network(FP32, save, constant)
