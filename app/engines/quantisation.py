"""int8 quantization for OpenVINO by NNCF, from calibration images. Needs requirements-optimize.txt; offline only.

Weights and activations become 8-bit integers; the calibration images give the ranges of the activations.
"""

from __future__ import annotations

import logging
from pathlib import Path

from app.engines.openvino import save_network  # isort: skip  (before OpenVINO's own import: see there)
import nncf
import numpy as np
import openvino
from nncf.quantization.advanced_parameters import OverflowFix
from nncf.quantization.range_estimator import RangeEstimatorParametersSet

from app.models.artifacts import Artifacts
from app.models.precision import FP32, INT8

# Measured with the demo model on scenes without calibration images. Share of 1,000 label sets that
# agree with fp32's (mean deviation of a logit): NNCF's defaults 98.3 % (0.061), without the overflow fix
# 99.0 % (0.067), with ranges from smallest to largest as well 99.3 % (0.043).
# The overflow fix halves the first layer's range, for processors without VNNI, whose sums saturate;
# int8 is served on processors with it only.
PARAMETERS = nncf.AdvancedQuantizationParameters(
    overflow_fix=OverflowFix.DISABLE,
    activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
)
# Layers left in fp32, with the mean deviation of the logits within 1 of the threshold, on 600 such scenes, and
# the images/s on two busy cores (bf16: 12.5). None: 0.094, 23.8. Shortcut sums: 0.061, 19.6. Those and the first
# eleven layers: 0.046, 18.8. The last block instead: 0.094.
LAYERS = ("Convolution", "GroupConvolution", "MatMul")
FIRST_SHARE = 0.2  # of the layers, left in fp32


def quantise(artifacts: Artifacts, images: np.ndarray) -> Path:
    """Make the int8 network of a converted bundle; return its path. Takes some 20 s on two cores.

    Args:
        artifacts: with the fp32 network.
        images: (n, 3, side, side) uint8, representative images.
    """
    nncf.set_log_level(logging.ERROR)
    network = openvino.Core().read_model(artifacts.find_network(FP32))
    features = remove_features(network)
    quantised = nncf.quantize(
        network,
        nncf.Dataset([image[None] for image in images]),
        subset_size=len(images),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        ignored_scope=find_sensitive(network),
        advanced_parameters=PARAMETERS,
    )
    if features:
        restore_features(quantised, features)
    side = artifacts.bundle.config.transform.side
    return artifacts.add_network(INT8, lambda path: save_network(quantised, path, side)[0])


def find_sensitive(network: openvino.Model) -> nncf.IgnoredScope:
    """Return the layers to leave in fp32: shortcut sums, and the first layers, whose errors reach all others."""
    layers = [node for node in network.get_ordered_ops() if node.get_type_name() in LAYERS]
    first = [node.get_friendly_name() for node in layers[: int(len(layers) * FIRST_SHARE)]]
    return nncf.IgnoredScope(names=first, types=["Add"], validate=False)


def remove_features(network: openvino.Model) -> str:
    """Remove the features from a network's outputs; return the name of their node, or ""."""
    _, *rest = network.get_results()
    for result in rest:
        network.remove_result(result)
    return str(rest[0].input_value(0).get_node().get_friendly_name()) if rest else ""


def restore_features(quantised: openvino.Model, name: str) -> None:
    """Add the features that the pooling takes to a quantized network's outputs.

    They are quantized: this halves their cost and leaves the logits bit-identical (unquantized, OpenVINO
    would no longer fuse the operations before them).
    """
    node = next(op for op in quantised.get_ops() if op.get_friendly_name() == name)
    users = [user.get_node() for user in node.output(0).get_target_inputs()]
    source = next((user for user in users if user.get_type_name() == "FakeQuantize"), node)
    quantised.add_outputs([source.output(0)])
