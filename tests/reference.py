"""Implement the contract of POST /model_predict a second time, in the fewest lines: the reference of every test.

It shares no code with ``app``: Pillow opens, torchvision's transforms prepare, torchvision's eager
fp32 network answers. What plain ``convert("RGB")`` would spoil is defined here: transparency lies on white,
16-bit grays are scaled.
"""

import io
import os
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms
from torchvision.models import get_model


def make_prepare(
    side: int = 224,
    resize: int | None = None,
    mean: tuple = (0.485, 0.456, 0.406),
    deviation: tuple = (0.229, 0.224, 0.225),
) -> transforms.Compose:
    """Return torchvision's own evaluation transform, from an RGB image to the network's input."""
    shape = [transforms.Resize((side, side))]
    if resize:
        shape = [transforms.Resize(resize), transforms.CenterCrop(side)]
    return transforms.Compose(
        [*shape, transforms.ToTensor(), transforms.Normalize(mean, deviation)]
    )


PREPARE = make_prepare()

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(
        1
    )  # the test processes share the cores, and OpenMP's threads spin while they wait


def as_rgb(data: bytes) -> Image.Image:
    """Return the first frame of an image file as RGB."""
    image = Image.open(io.BytesIO(data))
    if image.mode == "I;16":
        return Image.fromarray((np.asarray(image) / 256).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def load(weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Return an eager ResNet-50 in evaluation mode."""
    network = get_model("resnet50", num_classes=len(weights["fc.bias"]))
    network.load_state_dict(weights)
    return network.eval()


def make_random(
    architecture: str | Callable[..., torch.nn.Module], classes: int, images: torch.Tensor
) -> torch.nn.Module:
    """Return a network in evaluation mode with random weights, the same each time.

    The architecture is torchvision's name of it, or a function of ``num_classes``.
    Its batch norms have seen the images, and its last layer spreads what comes of them by about one:
    the outputs of an untrained network hardly depend on the image.
    """
    torch.manual_seed(7)
    build = partial(get_model, architecture) if isinstance(architecture, str) else architecture
    network = build(num_classes=classes)
    norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean of all that it has seen
    with torch.no_grad():
        network(images)
        network.eval()
        spread = network(images).std(dim=0).mean()
        for parameter in list(network.parameters())[-2:]:  # the last layer's weight and bias
            parameter.div_(spread)
    return network


def load_npz(path: Path) -> torch.nn.Module:
    """Return the network of a ``model.npz``."""
    arrays = np.load(path)
    return load(
        {name: torch.from_numpy(arrays[name].astype(arrays[name].dtype)) for name in arrays}
    )


@torch.no_grad()
def logits(
    network: torch.nn.Module, data: bytes, prepare: transforms.Compose = PREPARE
) -> np.ndarray:
    """Return the raw outputs for one image file."""
    return compute_logits(network, data, prepare).copy()


@lru_cache(maxsize=128)  # several tests ask for the same images
def compute_logits(
    network: torch.nn.Module, data: bytes, prepare: transforms.Compose
) -> np.ndarray:
    """Return the raw outputs for one image file, shared by all callers."""
    return network(prepare(as_rgb(data)).unsqueeze(0))[0].numpy()


def answer(network: torch.nn.Module, names: list[str], data: bytes) -> dict:
    """Return the expected answer of POST /model_predict."""
    raw = logits(network, data)
    passed = sorted((value, name) for value, name in zip(raw, names, strict=True) if value > 0.5)
    if not passed:
        return {"result": "No Categories", "status": 0}
    return {"result": [name for _, name in passed], "status": 1}


def grad_cam(network: torch.nn.Module, place: str, images: torch.Tensor, label: int) -> np.ndarray:
    """Return the Grad-CAM of one class by hooks and autograd: (n, height, width), in logits.

    Args:
        network: in evaluation mode.
        place: a module's name and ``.input`` or ``.output``: that is the last feature map.
        images: (n, 3, side, side), prepared.
        label: the class.
    """
    name, _, side = place.rpartition(".")
    kept: list[torch.Tensor] = []

    def keep(_module, inputs, output):
        kept.append(inputs[0] if side == "input" else output)

    hook = network.get_submodule(name).register_forward_hook(keep)
    logits = network(images)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[:, label].sum(), kept)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * kept[0]).sum(dim=1).relu().detach().numpy()
