"""Score a multi-label classifier: average precision per class, and label sets that are exactly right."""

from __future__ import annotations

import numpy as np


def average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the area under the precision-recall curve of one class.

    The precision at each recall is the best one at that recall or any higher, as Pascal VOC has
    counted it since 2010 (Everingham et al., "The Pascal VOC Challenge: A Retrospective", section
    4.1).

    Args:
        scores: (n,) float, any monotone score.
        targets: (n,) 0 or 1.

    Returns:
        0..1, or NaN where the class does not occur.
    """
    positives = targets.sum()
    if positives == 0:
        return float("nan")
    hits = targets[np.argsort(-scores, kind="stable")]
    true_so_far = np.cumsum(hits)
    precision = true_so_far / np.arange(1, len(hits) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best_from_here * hits).sum() / positives)


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean of the classes' average precisions; (n, classes) each; absent classes are left out."""
    per_class = [average_precision(scores[:, c], targets[:, c]) for c in range(targets.shape[1])]
    return float(np.nanmean(per_class))


def exact_share(logits: np.ndarray, targets: np.ndarray, threshold: float = 0.5) -> float:
    """Return the share of pictures whose set of classes with ``logit > threshold`` is exactly the true one."""
    return float(((logits > threshold) == (targets > 0.5)).all(axis=1).mean())
