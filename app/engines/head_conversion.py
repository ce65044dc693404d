"""Conversion of the gradients of a classifier's last layers to an OpenVINO network, for heat maps without torch.

torch computes the gradient once; the operations that it runs, forward and backward, are recorded (torch.fx) and
converted like any network. Needs torch, so it runs in short-lived processes only.
"""

from __future__ import annotations

import warnings

from app.engines.openvino import ConvertedGradients  # isort: skip  (before OpenVINO's own import: see there)
import numpy as np
import openvino
import torch
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from app.engines.gradcam import HeadGradients
from app.errors import BundleError, first_line

# Numbers of the layers; the converted gradient has them twice. VGG's and AlexNet's have 120 and 55 million, other
# networks' at most three million.
MAX_NUMBERS = 8_000_000
MAX_DEVIATION = 1e-3  # of the gradient, relative to its largest number; rounding stays below 1e-5
# OpenVINO has no rule for this operation.
SIMPLER = get_decompositions([torch.ops.aten.native_layer_norm])


def convert_head(gradients: HeadGradients, features: torch.Tensor, classes: int) -> openvino.Model:
    """Return a network from features and the weights of the logits to the gradient of their sum.

    Args:
        gradients: those to convert.
        features: (n, channels, height, width) float32, the features of some images.
        classes: the number of logits.

    Returns:
        (1, channels, height, width) and (1, classes) → (1, channels), float32.

    Raises:
        BundleError: the layers are too large, or OpenVINO cannot convert them or computes something else.
    """
    numbers = sum(parameter.numel() for parameter in gradients.head.parameters())
    if numbers > MAX_NUMBERS:
        raise BundleError(f"the last layers have {numbers:,} numbers; the limit is {MAX_NUMBERS:,}")
    try:
        network = convert_gradient(gradients.head, features[:1].contiguous(), classes)
        check_gradients(network, gradients, features.numpy(), classes)
    except RuntimeError as error:
        raise BundleError(first_line(error)) from error
    return network


def convert_gradient(head: GraphModule, features: torch.Tensor, classes: int) -> openvino.Model:
    """Record the gradient of a head for one image's features, and convert it. Raises RuntimeError."""

    def compute(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        leaf = features.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(head(leaf), leaf, weights)
        return gradient.sum(dim=(2, 3))

    example = features, torch.ones(1, classes)
    table = {**core_aten_decompositions(), **SIMPLER}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO's converter traces, which torch deprecates
        traced = make_fx(compute, decomposition_table=table)(*example)
        shapes = [list(part.shape) for part in example]
        return openvino.convert_model(traced, example_input=example, input=shapes)


def check_gradients(
    network: openvino.Model, gradients: HeadGradients, features: np.ndarray, classes: int
) -> None:
    """Compare the converted gradients with torch's. Raises BundleError."""
    converted = ConvertedGradients(network)
    for own in features:
        for label in {0, classes - 1}:
            expected = gradients(own, label)
            deviation = float(np.abs(converted(own, label) - expected).max())
            limit = MAX_DEVIATION * float(np.abs(expected).max())
            if not deviation <= limit:
                raise BundleError(
                    f"the converted gradient differs by {deviation:.2g}; the limit is {limit:.2g}"
                )
