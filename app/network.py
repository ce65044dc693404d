"""From pixels to logits: ResNet-50 on one device.

Runs on the model thread only; torch keeps gradient mode and CUDA's current device for each thread
apart.
"""

from __future__ import annotations

import numpy as np
import torch
from torchvision.models import resnet50

from app.bundle import Bundle, first_line, load_weights
from app.errors import BundleError
from app.images import SIDE

# ImageNet's statistics, RGB in 0..1: what torchvision's pretrained networks were trained with
# (torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms).
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


class Network:
    """A loaded network that answers batches."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        """Build the network, read the weights and move them to the device.

        Raises:
            BundleError: the weights do not fit ResNet-50 with the bundle's class count.
        """
        weights = load_weights(bundle.weights)
        check_class_count(bundle, weights)
        module = resnet50(weights=None, num_classes=len(bundle.class_names))
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            detail = " ".join(str(error).split())[:300]
            raise BundleError(f"{bundle.weights} does not fit ResNet-50: {detail}") from error
        self._module = module.eval().to(device)
        self._device = device
        self.device = str(device)
        self._mean = torch.tensor(MEAN, device=device).view(1, 3, 1, 1)
        self._deviation = torch.tensor(DEVIATION, device=device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def forward(self, images: np.ndarray) -> np.ndarray:
        """Answer one batch.

        Args:
            images: (n, 3, 224, 224) uint8, RGB, n ≥ 1.

        Returns:
            (n, classes) float32 logits.
        """
        pixels = torch.from_numpy(images).to(self._device).float().div_(255)
        logits = self._module((pixels - self._mean) / self._deviation)
        answer: np.ndarray = logits.float().cpu().numpy()
        return answer

    def warm_up(self, max_batch: int) -> None:
        """Run the smallest and the largest batch once, so that no client pays for the first allocation.

        Raises:
            BundleError: an output is not finite, so the weights are unusable.
        """
        for size in {1, max_batch}:
            logits = self.forward(np.zeros((size, 3, SIDE, SIDE), np.uint8))
            if not np.isfinite(logits).all():
                raise BundleError("the network answers NaN or infinity to a black picture")


def check_class_count(bundle: Bundle, weights: dict[str, torch.Tensor]) -> None:
    """Compare the weights' last layer with the class names."""
    last = weights.get("fc.weight")
    if last is not None and last.shape[0] != len(bundle.class_names):
        raise BundleError(
            f"{bundle.weights} has {last.shape[0]} outputs, but class_name.json names {len(bundle.class_names)} classes"
        )


def choose_device(wanted: str, slot: int) -> torch.device:
    """Return the device for a worker: ``auto`` and ``cuda`` take the GPUs in turn by the worker's slot.

    Raises:
        BundleError: a GPU was asked for that is not there.
    """
    gpus = torch.cuda.device_count() if wanted != "cpu" else 0
    if wanted == "cpu" or (wanted == "auto" and not gpus):
        return torch.device("cpu")
    index = int(wanted.partition(":")[2] or slot % max(1, gpus))
    if index >= gpus:
        raise BundleError(f"SERVING_DEVICE={wanted}: there are {gpus} usable GPUs here")
    return torch.device("cuda", index)


def load_network(
    bundle: Bundle, wanted_device: str, slot: int, threads: int, max_batch: int
) -> Network:
    """Load and warm up a network on the calling thread; it is ready to answer when this returns.

    Args:
        bundle: what to load.
        wanted_device: the device setting.
        slot: the worker's slot.
        threads: CPU threads of one forward.
        max_batch: the largest batch that will come.

    Raises:
        BundleError: the bundle cannot be served; the text says why.
    """
    torch.set_num_threads(threads)
    try:
        network = Network(bundle, choose_device(wanted_device, slot))
        network.warm_up(max_batch)
    except torch.OutOfMemoryError as error:
        raise BundleError(
            f"not enough GPU memory for {bundle.name}: {first_line(error)}"
        ) from error
    return network
