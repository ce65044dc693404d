"""int8 for OpenVINO by NNCF, from calibration pictures. Needs requirements-optimize.txt; offline only.

Weights and activations become 8-bit integers; the ranges of the activations are what the pictures
show.
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

# Measured with the demo model on scenes that nothing was calibrated on. Share of 1,000 label sets that
# agree with fp32's (mean deviation of a logit): NNCF's defaults 98.3 % (0.061), without the overflow fix
# 99.0 % (0.067), with ranges from smallest to largest as well 99.3 % (0.043).
# The overflow fix halves the first layer's range, for processors without VNNI, whose sums saturate;
# int8 is served on processors with it only.
PARAMETERS = nncf.AdvancedQuantizationParameters(
    overflow_fix=OverflowFix.DISABLE,
    activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
)
# What is not quantised, and what that brings: mean deviation of the logits within 1 of the threshold, on 600
# such scenes, and images/s on two busy cores, where bf16 did 12.5. Nothing: 0.094, 23.8. The sums of the
# shortcuts: 0.061, 19.6. Those and the first eleven layers: 0.046, 18.8. The last block instead: 0.094.
LAYERS = ("Convolution", "GroupConvolution", "MatMul")
FIRST_SHARE = 0.2  # of the layers, not quantised


def quantise(artifacts: Artifacts, images: np.ndarray) -> Path:
    """Make the int8 network of a converted bundle; return its path. Takes some 20 s on two cores.

    Args:
        artifacts: has the fp32 network.
        images: (n, 3, side, side) uint8, pictures of the kind that will come.
    """
    nncf.set_log_level(logging.ERROR)
    network = openvino.Core().read_model(artifacts.find_network(FP32))
    features = take_off_features(network)
    quantised = nncf.quantize(
        network,
        nncf.Dataset([image[None] for image in images]),
        subset_size=len(images),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        ignored_scope=find_sensitive(network),
        advanced_parameters=PARAMETERS,
    )
    if features:
        put_back_features(quantised, features)
    side = artifacts.bundle.config.transform.side
    return artifacts.add_network(INT8, lambda path: save_network(quantised, path, side)[0])


def find_sensitive(network: openvino.Model) -> nncf.IgnoredScope:
    """Return what is not quantised: the sums of the shortcuts, and the first layers, whose errors all others get."""
    layers = [each for each in network.get_ordered_ops() if each.get_type_name() in LAYERS]
    first = [each.get_friendly_name() for each in layers[: int(len(layers) * FIRST_SHARE)]]
    return nncf.IgnoredScope(names=first, types=["Add"], validate=False)


def take_off_features(network: openvino.Model) -> str:
    """Leave a network its logits alone; return the name of the node that gave the features, or empty."""
    _, *rest = network.get_results()
    for result in rest:
        network.remove_result(result)
    return str(rest[0].input_value(0).get_node().get_friendly_name()) if rest else ""


def put_back_features(quantised: openvino.Model, name: str) -> None:
    """Let a quantised network give its features as its pooling gets them.

    Quantised: from there they cost half of what they cost before, and the logits stay the same to the
    bit (unquantised, OpenVINO would no longer make one operation of what comes before).
    """
    node = next(each for each in quantised.get_ops() if each.get_friendly_name() == name)
    users = [user.get_node() for user in node.output(0).get_target_inputs()]
    giver = next((user for user in users if user.get_type_name() == "FakeQuantize"), node)
    quantised.add_outputs([giver.output(0)])
