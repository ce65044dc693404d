"""The decision: scores of the classes from logits, and the classes that pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIGMOID, SOFTMAX = "sigmoid", "softmax"
LOGIT, SCORE = "logit", "score"
LOGIT_THRESHOLD = 0.5  # where a model does not say otherwise


@dataclass(frozen=True)
class Decision:
    """A model's decision rule. By default a class passes if its logit is above 0.5, strictly.

    Attributes:
        activation: computes scores from logits: ``sigmoid``, for each class on its own, or ``softmax``.
        threshold: a class passes strictly above it; one for all classes, or one for each in order.
        threshold_on: the value compared with the threshold, ``logit`` or ``score``.
        top_k: if set, this number of best classes passes, and the threshold is ignored.
    """

    activation: str = SIGMOID
    threshold: float | tuple[float, ...] = LOGIT_THRESHOLD
    threshold_on: str = LOGIT
    top_k: int | None = None

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Return (…, classes) float32 in 0..1 for as many logits, without overflow."""
        logits = logits.astype(np.float32, copy=False)
        scores: np.ndarray
        if self.activation == SOFTMAX:
            powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
            scores = powers / powers.sum(axis=-1, keepdims=True)
        else:
            small = np.exp(-np.abs(logits))  # in 0..1, where exp(-logits) would overflow
            scores = np.where(logits >= 0, 1, small) / (1 + small)
        return scores

    def passes(self, logits: np.ndarray) -> np.ndarray:
        """Return (…, classes) bool for as many logits: whether each class passes. NaN never passes.

        Of equal logits at the limit of ``top_k`` the first classes pass.
        """
        if self.top_k is None:
            values = self.scores(logits) if self.threshold_on == SCORE else logits
            passing: np.ndarray = values > np.asarray(self.threshold, np.float32)
            return passing
        best = np.argsort(-logits, axis=-1, kind="stable")[..., : self.top_k]  # NaN comes last
        passing = np.zeros(logits.shape, bool)
        np.put_along_axis(passing, best, True, axis=-1)
        passing &= ~np.isnan(logits)
        return passing

    def choose(self, logits: np.ndarray) -> list[int]:
        """Return the indices of the passing classes, by rising logit, for one image's (classes,) logits."""
        passing = np.flatnonzero(self.passes(logits))
        indices: list[int] = passing[np.argsort(logits[passing], kind="stable")].tolist()
        return indices
