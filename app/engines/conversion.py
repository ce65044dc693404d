"""Conversion of a bundle to an OpenVINO network. Needs torch, so it runs in short-lived processes only."""

from __future__ import annotations

import logging
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import openvino
import torch
from torch import nn

from app.engines.engine import Gradients
from app.engines.gradcam import HeadGradients
from app.engines.network import PixelNetwork, build_network
from app.engines.openvino import save_model, save_network  # before OpenVINO's own import: see there
from app.engines.self_check import make_noise
from app.errors import BundleError, first_line
from app.models.artifacts import Artifacts
from app.models.precision import FP32

# Relative to the largest logit and to the largest feature. Rounding stays far below, by a factor of a
# thousand in trained networks and of three in random ones; an operation that was converted wrongly (a trace
# that took a branch, padding on the other side) is far above.
MAX_DEVIATION = 0.02


logger = logging.getLogger(__name__)


class ConversionError(BundleError):
    """A network that torch runs and OpenVINO cannot."""


class WithFeatures(nn.Module):
    """A network whose forward returns its features too."""

    def __init__(self, network: PixelNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits and features of a batch."""
        return self.network.run(pixels)


def answer_noise(network: nn.Module, side: int) -> list[np.ndarray]:
    """Return torch's answers to the self-check's images. Raises BundleError if one is NaN or infinite."""
    with torch.inference_mode():
        answer = network(torch.from_numpy(make_noise(side)))
    answers = [part.numpy() for part in (answer if isinstance(answer, tuple) else [answer])]
    if not all(np.isfinite(part).all() for part in answers):
        raise BundleError("the network answers NaN or infinity to an image of noise")
    return answers


def check_answers(answers: list[np.ndarray], converted: list[np.ndarray]) -> None:
    """Compare the converted network's answers with torch's. Raises ConversionError."""
    for expected, actual in zip(answers, converted, strict=True):
        deviation = float(np.abs(actual - expected).max())
        limit = MAX_DEVIATION * max(1.0, float(np.abs(expected).max()))
        if not deviation <= limit:
            raise ConversionError(
                f"converted for OpenVINO it answers otherwise: by {deviation:.2g}, the limit is {limit:.2g}"
            )


def convert_bundle(artifacts: Artifacts) -> Path:
    """Convert a bundle unless it has a network already; return the network's path.

    The written network is read back and compared with torch before it is moved into place.

    It takes (n, 3, side, side) uint8 and includes the normalization; its weights are fp32, so bf16 uses the same
    file. It returns logits, and features if their gradients are constant or can be converted; those are stored
    beside it.

    Raises:
        BundleError: the weights are unreadable or do not fit, or no folder is writable.
        ConversionError: OpenVINO cannot convert the network, or the converted one answers differently.
    """
    if existing := artifacts.find_network(FP32):
        return existing
    network = build_network(artifacts.bundle)
    side = artifacts.bundle.config.transform.side
    gradients = network.gradients()
    constant = gradients if isinstance(gradients, np.ndarray) else None
    head = convert_gradients(network, gradients, side)
    # OpenVINO's engine has no use for features whose gradients take torch.
    traced = network if constant is None and head is None else WithFeatures(network)
    # torch takes attention's fast path in some calls only, and OpenVINO refuses a trace that differs
    # from the next.
    torch.backends.mha.set_fastpath_enabled(False)
    example = torch.zeros((2, 3, side, side), dtype=torch.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # OpenVINO's converter traces, which torch deprecates
            converted = openvino.convert_model(
                traced, example_input=example, input=[("pixels", [-1, 3, side, side])]
            )
    except RuntimeError as error:
        raise ConversionError(
            f"OpenVINO cannot convert {artifacts.bundle.weights}: {first_line(error)}"
        ) from error
    answers = answer_noise(traced, side)

    def save(path: Path) -> np.ndarray:
        check_answers(answers, save_network(converted, path, side))
        return answers[0]

    save_head = partial(save_model, head) if head else None
    return artifacts.add_network(FP32, save, constant, save_head)


def convert_gradients(
    network: PixelNetwork, gradients: Gradients, side: int
) -> openvino.Model | None:
    """Return computed gradients as an OpenVINO network; None if there are none, or they cannot be converted."""
    if not isinstance(gradients, HeadGradients):
        return None
    # Not at the top: it imports much of torch that other networks do not need.
    from app.engines.head_conversion import convert_head  # noqa: PLC0415

    with torch.no_grad():
        _, features = network.run(torch.from_numpy(make_noise(side)))
    try:
        return None if features is None else convert_head(gradients, features, network.outputs)
    except BundleError as error:
        logger.warning("there are no heat maps on the engine openvino: %s", error)
        return None
