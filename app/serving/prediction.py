"""The answer to one picture: the network's outputs, who gave them, and where the time went."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from app.processing.heatmap import Drawing, HeatMap, Style
from app.serving.batcher import Timing
from app.serving.model import Model


@dataclass(frozen=True)
class Prediction:
    """The answer to one picture.

    Attributes:
        logits: (classes,) float32, in the order of ``model.class_names``.
        model: who answered.
        timing: how long it waited, and how long the forward took.
        decode_s: waiting for a decode thread, and decoding.
        size: the picture's width and height in pixels, as its file has them.
        heat_maps: those that were wished for, by class.
        drawing: the first of them as it was wished for.
    """

    logits: np.ndarray
    model: Model
    timing: Timing
    decode_s: float
    size: tuple[int, int]
    heat_maps: Mapping[int, HeatMap] = field(default_factory=dict)
    drawing: Drawing | None = None

    def scores(self) -> np.ndarray:
        """Return each class's score by the model's activation: (classes,) float32 in 0..1."""
        return self.model.config.decision.scores(self.logits)

    def passing(self) -> list[int]:
        """Return the classes that pass by the model's rule, by rising logit."""
        return self.model.config.decision.choose(self.logits)

    def strongest(self) -> int:
        """Return the class with the largest logit."""
        return int(np.argmax(np.nan_to_num(self.logits, nan=-np.inf)))

    def labels(self) -> list[str]:
        """Return the names of the classes that pass, by rising logit."""
        return [self.model.class_names[index] for index in self.passing()]


def count_passing(predictions: Sequence[Prediction]) -> int:
    """Return how many classes pass in all of them together."""
    return sum(len(prediction.passing()) for prediction in predictions)


@dataclass(frozen=True)
class HeatMapRequest:
    """Which heat maps a request wants.

    Attributes:
        choose: returns the classes, once the logits are there; may raise a ServingError.
        style: how the first of them is to be drawn over the picture; None draws nothing.
    """

    choose: Callable[[Prediction], Sequence[int]]
    style: Style | None = None
