"""Pictures with their labels, in two parts: one to learn from, one to measure on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scripts.training.errors import TrainingError


@dataclass(frozen=True)
class Example:
    """A picture and what is on it.

    Attributes:
        image: the picture's file.
        labels: class indices that are on it, rising.
        unsure: class indices of which nobody says whether they are, rising; they count neither way.
    """

    image: Path
    labels: tuple[int, ...]
    unsure: tuple[int, ...] = ()


@dataclass(frozen=True)
class Examples:
    """All that a training learns from.

    Attributes:
        source: the folder or file that they come from, for errors.
        title: the same in a word, for everybody: clients may read it.
        class_names: one for each output of the network, in order.
        training: to learn from.
        validation: to tune thresholds and to measure on; shares no picture with ``training``.
    """

    source: str
    title: str
    class_names: tuple[str, ...]
    training: tuple[Example, ...]
    validation: tuple[Example, ...]

    def fingerprint(self) -> str:
        """Return what tells these examples from others: names, labels and parts, but not where the folder lies."""
        rows = [
            (part, example.image.name, example.labels, example.unsure)
            for part, examples in (("training", self.training), ("validation", self.validation))
            for example in examples
        ]
        return hashlib.sha256(repr((self.class_names, rows)).encode()).hexdigest()[:16]

    def unseen_classes(self) -> list[str]:
        """Return the names of the classes that no training picture shows."""
        seen = {label for example in self.training for label in example.labels}
        return [name for index, name in enumerate(self.class_names) if index not in seen]

    def check(self) -> Examples:
        """Return these examples.

        Raises:
            TrainingError: a part is empty, both share a picture, or a picture is missing.
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
    """Return what the network should say: (n, classes) float32 of 0 and 1, and (n, classes) bool, where it counts."""
    targets = np.zeros((len(examples), classes), np.float32)
    known = np.ones((len(examples), classes), bool)
    for row, example in enumerate(examples):
        targets[row, list(example.labels)] = 1
        known[row, list(example.unsure)] = False
    return targets, known
