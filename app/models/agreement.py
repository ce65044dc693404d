"""The agreement of a network's labels with a reference's: counts of images, with confidence bounds.

A share without its number of images says little. So each share has a one-sided lower bound, Clopper and
Pearson's ("The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 26,
1934): the smallest true share under which so good a count would occur in one of twenty trials.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from app.processing.decision import Decision

CONFIDENCE = 0.95  # of every bound, one-sided
BISECTIONS = 60  # halvings of 0..1: to the last digits of a float
NEGLIGIBLE = 1e-17  # the share of a sum that a float cannot hold


@dataclass(frozen=True)
class Count:
    """A number of compared images, and the number of those that differ."""

    images: int
    differing: int

    @property
    def share(self) -> float:
        """The share of the images that agree, 0..1; 0 without images."""
        return 1 - self.differing / self.images if self.images else 0.0

    @cached_property
    def bound(self) -> float:
        """The lower bound of the true share with ``CONFIDENCE``; 0 without images."""
        if self.differing >= self.images:
            return 0.0
        agreeing = self.images - self.differing
        low, high = 0.0, agreeing / self.images
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            if at_least(agreeing, self.images, middle) < 1 - CONFIDENCE:
                low = middle
            else:
                high = middle
        return low

    def probability(self, share: float) -> float:
        """Return the probability of at least so many differing images if the true ``share`` agrees."""
        return at_least(self.differing, self.images, 1 - share)


@dataclass(frozen=True)
class ClassCount:
    """The count of one class, over the images with its label on either side."""

    name: str
    count: Count


@dataclass(frozen=True)
class Agreement:
    """The agreement of a network's label sets with the reference's.

    Attributes:
        everywhere: over all images; an image agrees if the two label sets are equal.
        labelled: over the images with a label on either side.
        classes: the number of classes.
        classes_seen: the number of classes with a label on any image.
        worst_class: the class with the least probable count; None if no class was seen.
    """

    everywhere: Count
    labelled: Count
    classes: int
    classes_seen: int
    worst_class: ClassCount | None


def at_least(successes: int, trials: int, share: float) -> float:
    """Return the binomial probability of at least so many successes; 0 < share < 1.

    Above the mean each further term is smaller than the one before, so the sum needs few of them.
    """
    if successes <= 0:
        return 1.0
    if successes <= trials * share:
        return 1 - at_least(trials - successes + 1, trials, 1 - share)
    ways = (
        math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
    )
    failures = trials - successes
    term = math.exp(ways + successes * math.log(share) + failures * math.log1p(-share))
    total = term
    while failures and term > total * NEGLIGIBLE:
        term *= failures / (trials - failures + 1) * share / (1 - share)
        failures -= 1
        total += term
    return min(1.0, total)


def images_needed(differing: int, required: float) -> int:
    """Return the fewest images that prove the ``required`` share if so many of them differ."""
    low, high = differing, differing + 1
    while Count(high, differing).bound < required:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if Count(middle, differing).bound < required:
            low = middle
        else:
            high = middle
    return high


def compare(
    decision: Decision,
    logits: np.ndarray,
    reference: np.ndarray,
    names: Sequence[str],
    required: float,
) -> Agreement:
    """Compare (n, classes) logits with the reference's, by the label sets of ``decision``.

    An image with a non-finite logit on either side differs.

    Args:
        decision: the model's decision.
        logits: of the network under test.
        reference: of the reference network.
        names: of the classes, in order.
        required: the share of agreeing images required of each class.
    """
    ours, theirs = decision.passes(logits), decision.passes(reference)
    broken = ~(np.isfinite(logits).all(axis=1) & np.isfinite(reference).all(axis=1))
    named = ours | theirs
    differs = (ours != theirs) | (named & broken[:, None])
    wrong = differs.any(axis=1) | broken
    labelled = named.any(axis=1)
    counts = [
        ClassCount(name, Count(int(named[:, c].sum()), int(differs[:, c].sum())))
        for c, name in enumerate(names)
    ]
    seen = [row for row in counts if row.count.images]
    worst = min(
        seen, key=lambda row: (row.count.probability(required), row.count.images), default=None
    )
    return Agreement(
        Count(len(logits), int(wrong.sum())),
        Count(int(labelled.sum()), int((wrong & labelled).sum())),
        len(counts),
        len(seen),
        worst,
    )
