"""Scores of multi-label classifiers: average precision and F1 per class, and the share of exact label sets."""

from __future__ import annotations

import numpy as np


def average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the area under the precision-recall curve of one class.

    The precision at each recall is the maximum at that or any higher recall, as in Pascal VOC since
    2010 (Everingham et al., "The Pascal VOC Challenge: A Retrospective", section
    4.1).

    Args:
        scores: (n,) float, any monotone score.
        targets: (n,) 0 or 1.

    Returns:
        0..1, or NaN if the class does not occur.
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
    """Return the mean average precision over classes that occur; arguments are (n, classes)."""
    return mean_of_present(
        [average_precision(scores[:, c], targets[:, c]) for c in range(targets.shape[1])]
    )


def mean_of_present(values: list[float]) -> float:
    """Return the mean of the values that are not NaN, or NaN if there are none."""
    present = [value for value in values if not np.isnan(value)]
    return float(np.mean(present)) if present else float("nan")


def exact_share(
    logits: np.ndarray,
    targets: np.ndarray,
    threshold: float | np.ndarray = 0.5,
    known: np.ndarray | bool = True,
) -> float:
    """Return the share of images whose set of classes with ``logit > threshold`` equals the true set.

    Args:
        logits: (n, classes) float.
        targets: (n, classes) 0 or 1.
        threshold: one for all classes, or (classes,) one for each.
        known: (n, classes) bool; unknown targets match any prediction.
    """
    right = (logits > threshold) == (targets > 0.5)
    return float((right | ~np.asarray(known)).all(axis=1).mean())


def f1_score(logits: np.ndarray, targets: np.ndarray, threshold: float) -> float:
    """Return the F1 score of one class for ``logit > threshold``.

    Args:
        logits: (n,) float.
        targets: (n,) 0 or 1.
        threshold: in the unit of the logits.

    Returns:
        0..1, or NaN if the class does not occur.
    """
    positives, passing = targets.sum(), logits > threshold
    if positives == 0:
        return float("nan")
    return float(2 * targets[passing].sum() / (passing.sum() + positives))


def tune_threshold(logits: np.ndarray, targets: np.ndarray, fallback: float) -> float:
    """Return the threshold with the best F1 for one class; among equals the highest.

    It is the midpoint between the lowest logit that passes and the next lower one, so that rounding
    affects neither; half a logit below the lowest if all pass.

    Args:
        logits: (n,) float.
        targets: (n,) 0 or 1.
        fallback: returned if the class does not occur.
    """
    positives = targets.sum()
    if positives == 0:
        return fallback
    order = np.argsort(-logits, kind="stable")
    falling = logits[order].astype(np.float64)
    below = np.append(falling[1:], falling[-1] - 1)
    passing = np.arange(1, len(falling) + 1)
    f1 = 2 * np.cumsum(targets[order]) / (passing + positives)
    f1[falling == below] = -1  # no threshold lies between equal logits
    best = int(f1.argmax())
    return float((falling[best] + below[best]) / 2)
