"""The network as a torch module, built from a bundle: what every engine starts from.

It takes pixels as they come from ``images`` and answers logits, so the normalisation is decided in
this one place and every engine carries it on the device.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import torch
import torchvision
from torch import nn
from torch.func import functional_call

from app.engines.engine import Gradients
from app.engines.gradcam import find_gradients, give_features
from app.engines.weight_errors import describe_misfit, is_same_network
from app.engines.weights import open_weights
from app.errors import BundleError, first_line
from app.models.bundle import CONFIG_FILE, MAX_CLASSES, MAX_WEIGHTS_BYTES, Bundle
from app.models.config import DEFAULT, ModelConfig

SPARE_BYTES = 64 << 20  # that a weights file may have beyond its numbers

# These have further outputs for training, whose weights are left out. torchvision's own weights of
# both want ImageNet's normalisation turned into a mean and deviation of 0.5 (transform_input), which
# no weights file tells: a card says so instead.
AUXILIARY = {"inception_v3": ("AuxLogits.",), "googlenet": ("aux1.", "aux2.")}

# First part of tensors' names → which networks have such. RegNets are left out: see find_shapes.
FAMILIES = {"layer1": ("resnet", "resnext", "wide_resnet"), "encoder": ("vit_",)}
OTHERS = (
    "alex",
    "convnext",
    "dense",
    "efficient",
    "mnas",
    "mobile",
    "shuffle",
    "squeeze",
    "swin",
    "vgg",
)


class PixelNetwork(nn.Module):
    """A classifier that takes pixels: (n, 3, side, side) in 0..255 → (n, classes) logits.

    One whose classifier gives it (``gradcam.give_features``) has a second output: the features, (n,
    channels, height, width).
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, classifier: nn.Module, outputs: int, config: ModelConfig = DEFAULT) -> None:
        """Put the normalisation in front: x / 255, less the mean, over the deviation, as one scale and one shift."""
        super().__init__()
        mean, deviation = torch.tensor(config.mean), torch.tensor(config.deviation)
        self.register_buffer("scale", (1 / (255 * deviation)).view(1, 3, 1, 1))
        self.register_buffer("shift", (-mean / deviation).view(1, 3, 1, 1))
        self.classifier = classifier
        self.outputs = outputs

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Answer a batch with logits."""
        return self.run(pixels)[0]

    def run(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Answer a batch with logits, and features or None; integers are brought to the weights' own type."""
        images = pixels.to(self.scale.dtype) * self.scale + self.shift
        answer = self.classifier(images)
        return answer if isinstance(answer, tuple) else (answer, None)

    def gradients(self) -> Gradients:
        """Return how its logits change with its features, as it stands now on its device."""
        return find_gradients(self.classifier, self.outputs)


def build_network(bundle: Bundle) -> PixelNetwork:
    """Build the network on the CPU in fp32, in evaluation mode, with the bundle's weights.

    Raises:
        BundleError: the weights cannot be read, or do not fit the architecture; or torchvision does
            not have it, or not for this input size.
    """
    config = bundle.config
    auxiliary = AUXILIARY.get(config.architecture, ())
    outputs = len(bundle.class_names)
    needed = find_shapes(bundle, outputs)
    # Room for numbers of 64 bits and for what an optimizer keeps beside them.
    most_bytes = 32 * sum(map(math.prod, needed.values())) + SPARE_BYTES
    with open_weights(bundle.weights, min(most_bytes, MAX_WEIGHTS_BYTES)) as file:
        shapes = {n: shape for n, shape in file.shapes.items() if not n.startswith(auxiliary)}
        # As many outputs as the weights have: that they fit the class names is checked for every engine
        # alike (app/engines). Every torchvision classifier ends with the layer that counts the classes.
        last = shapes.get(list(needed)[-1])
        if last and last[0] != outputs and 0 < last[0] <= MAX_CLASSES:
            outputs = last[0]
            needed = find_shapes(bundle, outputs)
        if misfit := describe_misfit(shapes, needed):
            raise BundleError(
                f"{bundle.weights} does not fit {config.architecture}: {find_cure(bundle, shapes)} ({misfit})"
            )
        weights = file.read(shapes)
    classifier = build_classifier(bundle, outputs)
    classifier.load_state_dict(versioned(weights, classifier))
    classifier.eval().requires_grad_(False)
    network = PixelNetwork(give_features(classifier), outputs, config).eval()
    check_input_size(network, bundle)
    return network


def find_shapes(bundle: Bundle, outputs: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes that the architecture needs; hardly a tensor takes memory. Raises BundleError."""
    try:
        with torch.device("meta"):
            classifier = build_classifier(bundle, outputs)
    except NotImplementedError:  # RegNets reckon their widths with tensors
        classifier = build_classifier(bundle, outputs)
    return {name: tuple(tensor.shape) for name, tensor in classifier.state_dict().items()}


def find_cure(bundle: Bundle, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return what to do with weights that are of another network than the card says."""
    for architecture in list_similar(shapes):
        other = replace(bundle, config=replace(bundle.config, architecture=architecture))
        with suppress(BundleError):  # it cannot take this input size
            if is_same_network(shapes, find_shapes(other, len(bundle.class_names))):
                return (
                    f'its tensors are those of {architecture}: write {{"architecture": '
                    f'"{architecture}"}} into {CONFIG_FILE}'
                )
    if not (bundle.folder / CONFIG_FILE).exists():
        return (
            f"without {CONFIG_FILE} a model is a {DEFAULT.architecture}; for another network write "
            f'{{"architecture": "NAME"}} there, with its name in torchvision'
        )
    return f"{CONFIG_FILE} and the network that was saved must be of one architecture"


def list_similar(names: Iterable[str]) -> list[str]:
    """Return the architectures that a file with these tensors may be of; each takes some 50 ms to compare."""
    firsts = {name.partition(".")[0] for name in names}
    if len(firsts) < 2:
        return []  # no network's
    families = next((families for first, families in FAMILIES.items() if first in firsts), OTHERS)
    return [name for name in list_architectures() if name.startswith(families)]


def list_architectures() -> list[str]:
    """Return torchvision's classifiers."""
    return list(torchvision.models.list_models(module=torchvision.models))


def build_classifier(bundle: Bundle, outputs: int) -> nn.Module:
    """Build the architecture without its weights. Raises BundleError as ``build_network`` does."""
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

    Its layers are not marked: batch norms of files without a count of batches then load as well.
    """
    marked = OrderedDict(weights)
    marked._metadata = {"": {"version": classifier._version}}  # type: ignore[attr-defined]
    return marked


@torch.inference_mode()
def check_input_size(network: PixelNetwork, bundle: Bundle) -> None:
    """Run the network's shapes without its numbers, which takes milliseconds. Raises BundleError."""
    side = bundle.config.transform.side
    hollow = {name: tensor.to("meta") for name, tensor in network.state_dict().items()}
    pixels = torch.empty((1, 3, side, side), dtype=torch.uint8, device="meta")
    try:
        functional_call(network, hollow, (pixels,))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BundleError(describe_size(bundle, error)) from error


def describe_size(bundle: Bundle, error: Exception) -> str:
    """Return why a network cannot take pictures of its card's size."""
    return (
        f"{bundle.folder / CONFIG_FILE}: input_size is {bundle.config.transform.side}; "
        f"{bundle.config.architecture} cannot take that: {first_line(error)}"
    )
