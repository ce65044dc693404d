"""How far a network's answers agree with those of another: counted on images, with what follows from the counts.

A share that was counted on some images says little without their number. So each has a one-sided lower
bound, Clopper and Pearson's ("The use of confidence or fiducial limits illustrated in the case of the
binomial", Biometrika 26, 1934): the smallest true share under which so good a count would still
be seen in one of twenty tries.
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
    """On how many images one answer was held against another, and on how many the two differ."""

    images: int
    differing: int

    @property
    def share(self) -> float:
        """The share of the images that agree, 0..1; 0 without images."""
        return 1 - self.differing / self.images if self.images else 0.0

    @cached_property
    def bound(self) -> float:
        """The least true share that this count allows, with ``CONFIDENCE``; 0 without images."""
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
        """Return how probable so many differing images, or more, are where the true ``share`` agrees."""
        return at_least(self.differing, self.images, 1 - share)


@dataclass(frozen=True)
class ClassCount:
    """The same for one class, on the images where either side names it."""

    name: str
    count: Count


@dataclass(frozen=True)
class Agreement:
    """How far a network's label sets agree with another's.

    Attributes:
        everywhere: on all images; an image agrees where the two sets of labels are the same.
        labelled: on the images to which either side gives a label.
        classes: how many classes there are.
        classes_seen: those that either side names on any image.
        worst_class: the one whose count speaks most against it; None where no class was seen.
    """

    everywhere: Count
    labelled: Count
    classes: int
    classes_seen: int
    worst_class: ClassCount | None


def at_least(successes: int, trials: int, share: float) -> float:
    """Return the binomial distribution's probability of so many successes or more; 0 < share < 1.

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


def images_needed(differing: int, wanted: float) -> int:
    """Return the fewest images that show the ``wanted`` share where so many of them differ."""
    low, high = differing, differing + 1
    while Count(high, differing).bound < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if Count(middle, differing).bound < wanted:
            low = middle
        else:
            high = middle
    return high


def compare(
    decision: Decision,
    logits: np.ndarray,
    reference: np.ndarray,
    names: Sequence[str],
    wanted: float,
) -> Agreement:
    """Hold (n, classes) logits against the reference's, by the label sets that ``decision`` makes of them.

    A logit that is no finite number agrees with nothing: its whole image differs, whichever side has it.

    Args:
        decision: the model's rule.
        logits: of the network in question.
        reference: of the network to agree with.
        names: of the classes, in order.
        wanted: the share of agreeing images that each class is asked for.
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
    seen = [each for each in counts if each.count.images]
    worst = min(
        seen, key=lambda each: (each.count.probability(wanted), each.count.images), default=None
    )
    return Agreement(
        Count(len(logits), int(wrong.sum())),
        Count(int(labelled.sum()), int((wrong & labelled).sum())),
        len(counts),
        len(seen),
        worst,
    )
