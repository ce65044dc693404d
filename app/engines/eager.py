"""torch on the CPU without preparation: the fallback, and the reference for reduced precisions."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import numpy as np
import torch

from app.engines.engine import Outputs
from app.engines.network import build_network
from app.models.bundle import Bundle
from app.models.precision import FP32


class EagerEngine:
    """The network in eager torch, in fp32."""

    device = "cpu"
    precision = FP32
    lanes = 1

    def __init__(self, bundle: Bundle, threads: int, max_batch: int = 4) -> None:
        """Build the network. Raises BundleError like ``build_network``."""
        torch.set_num_threads(threads)
        self.max_batch = max_batch
        self._network = build_network(bundle)
        self.gradients = self._network.gradients()

    @torch.inference_mode()
    def forward(self, images: Sequence[np.ndarray], with_features: bool = False) -> Outputs:
        """Run one batch; see ``Engine.forward``. Not one native call: Python runs between the layers."""
        logits, features = self._network.run(torch.from_numpy(np.stack(images)))
        if features is None or not with_features:
            return Outputs(logits.numpy())
        return Outputs(logits.numpy(), features.numpy())

    def forward_in_lane(
        self, lane: int, images: Sequence[np.ndarray], with_features: bool = False
    ) -> Outputs:
        """Run one batch; there is one lane only."""
        return self.forward(images, with_features)

    def close(self) -> None:
        """Release the weights; see ``Engine.close``."""
        self.__dict__.pop("_network", None)
        self.__dict__.pop("gradients", None)
        gc.collect()  # torch.fx's networks are reference cycles
