"""The network as a torch module built from a bundle: the source of every engine.

It takes pixels as ``app/processing/images.py`` makes them and returns logits, so the normalization is defined
in one place and runs on the device.
"""

from __future__ import annotations

import json
import logging
import math
from collections import OrderedDict
from difflib import get_close_matches
from typing import Any

import torch
import torchvision
from torch import nn
from torch.func import functional_call

from app.engines.engine import Gradients
from app.engines.gradcam import find_gradients, give_features
from app.engines.likeness import find_remedy
from app.engines.weight_errors import describe_misfit
from app.engines.weights import Shape, open_weights
from app.errors import BundleError, first_line
from app.models.bundle import CONFIG_FILE, MAX_CLASSES, MAX_WEIGHTS_BYTES, Bundle
from app.models.config import BGR, DEFAULT, ModelConfig

SPARE_BYTES = 64 << 20  # that a weights file may have beyond its numbers

# These have auxiliary outputs for training, whose weights are skipped. torchvision's own weights of both
# need a mean and deviation of 0.5 instead of ImageNet's (transform_input), which no weights file
# records: model.json has to set them.
AUXILIARY = {"inception_v3": ("AuxLogits.",), "googlenet": ("aux1.", "aux2.")}

logger = logging.getLogger(__name__)


class PixelNetwork(nn.Module):
    """A classifier with pixels as input: (n, 3, side, side) in 0..255, RGB → (n, classes) logits.

    If the classifier has a feature map (``gradcam.give_features``), ``run`` returns it too, (n, channels,
    height, width).
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, classifier: nn.Module, outputs: int, config: ModelConfig = DEFAULT) -> None:
        super().__init__()
        mean, deviation = torch.tensor(config.mean), torch.tensor(config.deviation)
        self.register_buffer("scale", (1 / (255 * deviation)).view(1, 3, 1, 1))
        self.register_buffer("shift", (-mean / deviation).view(1, 3, 1, 1))
        self.is_bgr = config.channels == BGR
        self.classifier = classifier
        self.outputs = outputs

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return a batch's logits."""
        return self.run(pixels)[0]

    def run(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return a batch's logits, and features or None; integers are converted to the weights' type."""
        if self.is_bgr:
            pixels = pixels.flip(1)
        images = pixels.to(self.scale.dtype) * self.scale + self.shift
        answer = self.classifier(images)
        return answer if isinstance(answer, tuple) else (answer, None)

    def gradients(self) -> Gradients:
        """Return the gradients of its logits, on its current device."""
        return find_gradients(self.classifier, self.outputs)


def build_network(bundle: Bundle) -> PixelNetwork:
    """Build the network on the CPU in fp32, in evaluation mode, with the bundle's weights.

    Raises:
        BundleError: the weights are unreadable or do not fit the architecture; or torchvision does
            not have it, or not for this input size.
    """
    config = bundle.config
    auxiliary = AUXILIARY.get(config.architecture, ())
    outputs = len(bundle.class_names)
    needed = find_shapes(bundle, outputs)
    # Room for 64-bit numbers and an optimizer's state.
    most_bytes = 32 * sum(map(math.prod, needed.values())) + SPARE_BYTES
    with open_weights(bundle.weights, min(most_bytes, MAX_WEIGHTS_BYTES)) as opened:
        file = opened.fit_head(needed)
        shapes = {n: shape for n, shape in file.shapes.items() if not n.startswith(auxiliary)}
        # As many outputs as the weights have: app/engines/loader.py compares them with the class names for
        # every engine. Every torchvision classifier ends with its class layer.
        last = shapes.get(list(needed)[-1])
        if last and last[0] != outputs and 0 < last[0] <= MAX_CLASSES:
            outputs = last[0]
            needed = find_shapes(bundle, outputs)
        if describe_misfit(shapes, needed):
            remedy = find_remedy(bundle, opened.shapes, list_architectures(), find_shapes)
            raise BundleError(f"{bundle.weights} does not fit {config.architecture}: {remedy}")
        weights = file.read(shapes)
    if file.notes:
        logger.info("%s: in %s %s", bundle.name, bundle.weights.name, "; ".join(file.notes))
    classifier = build_classifier(bundle, outputs)
    classifier.load_state_dict(versioned(weights, classifier))
    classifier.eval().requires_grad_(False)
    network = PixelNetwork(give_features(classifier), outputs, config).eval()
    check_input_size(network, bundle)
    return network


def find_shapes(bundle: Bundle, outputs: int) -> dict[str, Shape]:
    """Return the shapes of the architecture's tensors, mostly without allocating them. Raises BundleError."""
    try:
        with torch.device("meta"):
            classifier = build_classifier(bundle, outputs)
    except NotImplementedError:  # RegNets compute their widths with tensors
        classifier = build_classifier(bundle, outputs)
    return {name: tuple(tensor.shape) for name, tensor in classifier.state_dict().items()}


def list_architectures() -> list[str]:
    """Return torchvision's classifiers."""
    return list(torchvision.models.list_models(module=torchvision.models))


def build_classifier(bundle: Bundle, outputs: int) -> nn.Module:
    """Build the architecture without its weights. Raises BundleError like ``build_network``."""
    config = bundle.config
    known = list_architectures()
    if config.architecture not in known:
        close = get_close_matches(config.architecture.lower(), known, n=5)
        raise BundleError(
            f"{bundle.folder / CONFIG_FILE}: architecture is {json.dumps(config.architecture)}; expected "
            f"a torchvision classifier, such as {', '.join(close or ['resnet50', 'mobilenet_v3_small'])}"
        )
    options: dict[str, Any] = {}
    if config.architecture in AUXILIARY:
        options = {"aux_logits": False, "transform_input": False, "init_weights": False}
    elif config.architecture.startswith("vit_"):
        options = {"image_size": config.transform.side}
    elif config.architecture.startswith("maxvit_"):
        options = {"input_size": (config.transform.side, config.transform.side)}
    try:
        classifier: nn.Module = torchvision.models.get_model(
            config.architecture, weights=None, num_classes=outputs, **options
        )
    except (AssertionError, ValueError) as error:
        raise BundleError(describe_size(bundle, error)) from error
    return classifier


def versioned(
    weights: dict[str, torch.Tensor], classifier: nn.Module
) -> OrderedDict[str, torch.Tensor]:
    """Mark weights as saved by this version of the classifier's class: MNASNet refuses others.

    Its layers are not marked: so batch norms from files without batch counts load too.
    """
    marked = OrderedDict(weights)
    marked._metadata = {"": {"version": classifier._version}}  # type: ignore[attr-defined]
    return marked


@torch.inference_mode()
def check_input_size(network: PixelNetwork, bundle: Bundle) -> None:
    """Run the network's shapes without its numbers, in milliseconds. Raises BundleError."""
    side = bundle.config.transform.side
    shapes_only = {name: tensor.to("meta") for name, tensor in network.state_dict().items()}
    pixels = torch.empty((1, 3, side, side), dtype=torch.uint8, device="meta")
    try:
        functional_call(network, shapes_only, (pixels,))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BundleError(describe_size(bundle, error)) from error


def describe_size(bundle: Bundle, error: Exception) -> str:
    """Return the reason why a network does not accept its config's input size."""
    return (
        f"{bundle.folder / CONFIG_FILE}: input_size is {bundle.config.transform.side}; "
        f"{bundle.config.architecture} cannot take that: {first_line(error)}"
    )
