"""The answer to one picture: the network's outputs, who gave them, and where the time went."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.batcher import Timing
from app.servable import Model


@dataclass(frozen=True)
class Prediction:
    """The answer to one picture.

    Attributes:
        logits: (classes,) float32, in the order of ``model.class_names``.
        model: who answered.
        timing: how long it waited, and how long the forward took.
        decode_s: waiting for a decode thread, and decoding.
        size: the picture's width and height in pixels, as its file has them.
    """

    logits: np.ndarray
    model: Model
    timing: Timing
    decode_s: float
    size: tuple[int, int]

    def scores(self) -> np.ndarray:
        """Return each class's score by the model's activation: (classes,) float32 in 0..1."""
        return self.model.card.decision.scores(self.logits)

    def passing(self) -> list[int]:
        """Return the classes that pass by the model's rule, by rising logit."""
        return self.model.card.decision.choose(self.logits)

    def labels(self) -> list[str]:
        """Return the names of the classes that pass, by rising logit."""
        return [self.model.class_names[index] for index in self.passing()]
