"""The network as a torch module, built from a bundle: what every engine starts from.

It takes pixels as they come from ``images`` and answers logits, so the normalisation is decided in
this one place and every engine carries it on the device.
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import resnet50

from app.bundle import Bundle
from app.errors import BundleError
from app.weights import load_weights

# ImageNet's statistics, RGB in 0..1: what torchvision's pretrained networks were trained with
# (torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms).
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


class PixelNetwork(nn.Module):
    """A classifier that takes pixels: (n, 3, 224, 224) in 0..255 → (n, classes) logits."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, classifier: nn.Module, outputs: int) -> None:
        """Put the normalisation in front: x / 255, less the mean, over the deviation, as one scale and one shift."""
        super().__init__()
        mean, deviation = torch.tensor(MEAN), torch.tensor(DEVIATION)
        self.register_buffer("scale", (1 / (255 * deviation)).view(1, 3, 1, 1))
        self.register_buffer("shift", (-mean / deviation).view(1, 3, 1, 1))
        self.classifier = classifier
        self.outputs = outputs

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Answer a batch; integers are brought to the weights' own type."""
        images = pixels.to(self.scale.dtype) * self.scale + self.shift
        logits: torch.Tensor = self.classifier(images)
        return logits


def build_network(bundle: Bundle) -> PixelNetwork:
    """Build the network on the CPU in fp32, in evaluation mode, with the bundle's weights.

    Raises:
        BundleError: the weights cannot be read, or do not fit ResNet-50.
    """
    weights = load_weights(bundle.weights)
    # As many outputs as the weights have: that they fit the class names is checked for every engine
    # alike (app/engines).
    outputs = weights.get("fc.weight", torch.empty(len(bundle.class_names))).shape[0]
    classifier = resnet50(weights=None, num_classes=outputs)
    try:
        classifier.load_state_dict(weights)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise BundleError(f"{bundle.weights} does not fit ResNet-50: {detail}") from error
    return PixelNetwork(classifier, outputs).eval()
