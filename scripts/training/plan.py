"""Hyperparameters, and the order of images and the learning rate that follow from them.

All of it is a function of the plan and the step number, so an interrupted training resumes exactly.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from scripts.training.errors import TrainingError

WARM_UP = 0.05  # share of the steps in which the rate rises; a new head's first gradients are large
ORDER, VARIATION = 0, 1  # keep the generators of one seed apart


@dataclass(frozen=True)
class Plan:
    """Everything that determines the result.

    Attributes:
        examples: fingerprint of the data set.
        pictures: number of training images.
        weights: ``imagenet``, ``none`` or a file's path.
        head_only: train only the last layer; the trunk is frozen, batch norm statistics included.
        epochs: passes over the training images.
        batch: images per step; capped at the number of images.
        rate: the head's peak learning rate.
        side: image size in training, px; validation always uses the serving size.
        seed: random seed.
        exif_rotate: rotate images by their EXIF orientation.
    """

    examples: str
    pictures: int
    weights: str
    head_only: bool
    epochs: int
    batch: int
    rate: float
    side: int
    seed: int
    exif_rotate: bool

    @property
    def batch_size(self) -> int:
        """Images per step."""
        return min(self.batch, self.pictures)

    @property
    def epoch_steps(self) -> int:
        """Steps per epoch; a last incomplete batch is dropped, with other images in each epoch."""
        return self.pictures // self.batch_size

    @property
    def steps(self) -> int:
        """Steps in total."""
        return self.epochs * self.epoch_steps

    def rate_share(self, step: int) -> float:
        """Return the learning rate at a step as a share of its peak: linear warm-up, then cosine decay to 0."""
        rise = max(1, round(WARM_UP * self.steps))
        if step < rise:
            return (step + 1) / rise
        return (1 + math.cos(math.pi * (step - rise) / max(1, self.steps - rise))) / 2

    def draw_order(self, step: int) -> Iterator[tuple[int, int]]:
        """Yield (epoch, image index) from the start of a step to the end of the training."""
        first_epoch, done = divmod(step, self.epoch_steps)
        for epoch in range(first_epoch, self.epochs):
            order = np.random.default_rng([self.seed, ORDER, epoch]).permutation(self.pictures)
            start = done * self.batch_size if epoch == first_epoch else 0
            for index in order[start : self.epoch_steps * self.batch_size]:
                yield epoch, int(index)

    def variation(self, epoch: int, index: int) -> np.random.Generator:
        """Return the random generator for an image's augmentation in an epoch."""
        return np.random.default_rng([self.seed, VARIATION, epoch, index])

    def check_same(self, kept: dict[str, object], where: str) -> None:
        """Compare this plan with a checkpoint's. Raises TrainingError if they differ."""
        own = dataclasses.asdict(self)
        changed = [
            f"{name} was {kept.get(name)!r}, is {value!r}"
            for name, value in own.items()
            if kept.get(name) != value
        ]
        if changed:
            raise TrainingError(
                f"{where} is of another training ({'; '.join(changed)}): run with the same options and "
                "data to finish it, or with --restart to throw it away"
            )
