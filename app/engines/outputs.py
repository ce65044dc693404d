"""What a forward gives: logits, and the feature map that they were made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Outputs(NamedTuple):
    """The answer to a batch of n pictures, the caller's own.

    Attributes:
        logits: (n, classes) float32.
        features: (n, channels, height, width) float32, the network's last feature map, where it was
            asked for and the network has one.
    """

    logits: np.ndarray
    features: np.ndarray | None = None


# n pictures, each (3, side, side) uint8; and whether the features are wanted too.
Forward = Callable[[Sequence[np.ndarray], bool], Outputs]

# How a logit changes with the last feature map, summed over the map's area: what Grad-CAM weighs the
# channels by. Where the network ends in average pooling and a linear layer it is the same for every
# picture: (classes, channels) float32. Else it is asked for, on the model thread, with one picture's
# features and a class, and comes as (channels,) float32. None: the network gives no features.
Gradients = np.ndarray | Callable[[np.ndarray, int], np.ndarray] | None
