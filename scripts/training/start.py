"""Initial weights: ImageNet, a file, or random."""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.models import ResNet, ResNet50_Weights, resnet50

from app.engines.weights import load_weights
from app.errors import BundleError, first_line
from scripts.training.errors import READ_ERRORS, TrainingError

IMAGENET, NONE = "imagenet", "none"
# V1, not V2: V2's recipe (label smoothing, mixup) gains on ImageNet, but its features transfer worse
# to a new linear head (Kornblith et al., arXiv:2010.16402).
IMAGENET_WEIGHTS = ResNet50_Weights.IMAGENET1K_V1


def build_classifier(weights: str, classes: int, seed: int) -> ResNet:
    """Build ResNet-50 on the CPU in fp32.

    Args:
        weights: ``imagenet``, ``none``, or a file that ``app/engines/weights.py`` reads; a head of another
            size than ``classes`` is replaced by a new one.
        classes: number of outputs.
        seed: of random weights.

    Raises:
        TrainingError: the weights cannot be fetched or read, or do not fit ResNet-50.
    """
    torch.manual_seed(seed)
    classifier: ResNet = resnet50(weights=None, num_classes=classes, zero_init_residual=True)
    if weights == NONE:
        return classifier
    tensors = fetch_imagenet() if weights == IMAGENET else read_weights(Path(weights))
    own = classifier.state_dict()
    for name in ("fc.weight", "fc.bias"):
        if name not in tensors or tensors[name].shape[:1] != own[name].shape[:1]:
            tensors |= {"fc.weight": own["fc.weight"], "fc.bias": own["fc.bias"]}
    try:
        classifier.load_state_dict(tensors)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise TrainingError(f"{weights} does not fit ResNet-50: {detail}") from error
    return classifier


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a weights file. Raises TrainingError."""
    if not path.is_file():
        raise TrainingError(
            f"--weights {path}: there is no such file; expected {IMAGENET}, {NONE}, or a file .pth, "
            ".safetensors or .npz"
        )
    try:
        return load_weights(path)
    except BundleError as error:
        raise TrainingError(str(error)) from error


def fetch_imagenet() -> dict[str, torch.Tensor]:
    """Return torchvision's ImageNet weights, downloaded once into torch's cache. Raises TrainingError."""
    try:
        return dict(IMAGENET_WEIGHTS.get_state_dict(progress=True, check_hash=True))
    except READ_ERRORS as error:
        raise TrainingError(
            f"torchvision's ImageNet weights cannot be fetched ({first_line(error)}): fetch "
            f"{IMAGENET_WEIGHTS.url} where there is a network and give --weights FILE"
        ) from error
