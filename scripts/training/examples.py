"""Labelled images in a training and a validation part."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scripts.training.errors import TrainingError


@dataclass(frozen=True)
class Example:
    """A labeled image.

    Attributes:
        image: the image file.
        labels: indices of its classes, ascending.
        unsure: indices of classes that may or may not be present, ascending; excluded from loss and scores.
    """

    image: Path
    labels: tuple[int, ...]
    unsure: tuple[int, ...] = ()


@dataclass(frozen=True)
class Examples:
    """A data set.

    Attributes:
        source: the folder or file it was read from, for error texts.
        title: its short name, published in the bundle.
        class_names: one per output of the network, in order.
        training: examples for the loss.
        validation: examples for thresholds and scores; disjoint from ``training``.
    """

    source: str
    title: str
    class_names: tuple[str, ...]
    training: tuple[Example, ...]
    validation: tuple[Example, ...]

    def fingerprint(self) -> str:
        """Return a digest of file names, labels and parts; it does not depend on the folder's path."""
        rows = [
            (part, example.image.name, example.labels, example.unsure)
            for part, examples in (("training", self.training), ("validation", self.validation))
            for example in examples
        ]
        return hashlib.sha256(repr((self.class_names, rows)).encode()).hexdigest()[:16]

    def unseen_classes(self) -> list[str]:
        """Return the names of the classes without a training image."""
        seen = {label for example in self.training for label in example.labels}
        return [name for index, name in enumerate(self.class_names) if index not in seen]

    def check(self) -> Examples:
        """Validate the data set and return it.

        Raises:
            TrainingError: a part is empty, the parts share an image, or an image file is missing.
        """
        for part, examples in (("training", self.training), ("validation", self.validation)):
            if not examples:
                raise TrainingError(
                    f"{self.source}: the {part} part is empty; at least one picture is needed"
                )
        shared = {example.image for example in self.training}.intersection(
            example.image for example in self.validation
        )
        if shared:
            raise TrainingError(
                f"{self.source}: {len(shared)} pictures are in the training part and in the validation "
                f"part, {min(shared)} for one; scores would be too good: choose parts that share none"
            )
        missing = [e.image for e in self.training + self.validation if not e.image.is_file()]
        if missing:
            raise TrainingError(
                f"{missing[0]} is missing, though {self.source} names it"
                + (f" ({len(missing)} pictures are missing)" if len(missing) > 1 else "")
            )
        return self


def make_targets(examples: Sequence[Example], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the targets, (n, classes) float32 of 0 and 1, and the mask of known ones, (n, classes) bool."""
    targets = np.zeros((len(examples), classes), np.float32)
    known = np.ones((len(examples), classes), bool)
    for row, example in enumerate(examples):
        targets[row, list(example.labels)] = 1
        known[row, list(example.unsure)] = False
    return targets, known
