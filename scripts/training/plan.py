"""What decides the result of a training, and what follows from it: which picture comes when, at what rate.

All of it is worked out from the plan and a step's number alone, so a training that was interrupted
goes on exactly where it was.
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
    """All that decides the result.

    Attributes:
        examples: fingerprint of the examples.
        pictures: how many the training part has.
        weights: ``imagenet``, ``none`` or a file's path.
        head_only: train the last layer alone; the trunk stays as it is, its statistics too.
        epochs: how often each picture is seen.
        batch: pictures in a step; fewer where there are fewer pictures.
        rate: the head's highest learning rate.
        side: px a side of the pictures in training; measured is always at the serving size.
        seed: of all that is drawn by chance.
        exif_rotate: turn pictures upright by their EXIF tag.
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
        """Pictures in a step."""
        return min(self.batch, self.pictures)

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch; pictures that fill no batch are left out, others each time."""
        return self.pictures // self.batch_size

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.epochs * self.epoch_steps

    def rate_share(self, step: int) -> float:
        """Return the share of the highest rate at a step: a short rise, then half a cosine down to nothing."""
        rise = max(1, round(WARM_UP * self.steps))
        if step < rise:
            return (step + 1) / rise
        return (1 + math.cos(math.pi * (step - rise) / max(1, self.steps - rise))) / 2

    def draw_order(self, step: int) -> Iterator[tuple[int, int]]:
        """Yield (epoch, index of the picture) from the beginning of a step to the end of the training."""
        first_epoch, done = divmod(step, self.epoch_steps)
        for epoch in range(first_epoch, self.epochs):
            order = np.random.default_rng([self.seed, ORDER, epoch]).permutation(self.pictures)
            start = done * self.batch_size if epoch == first_epoch else 0
            for index in order[start : self.epoch_steps * self.batch_size]:
                yield epoch, int(index)

    def variation(self, epoch: int, index: int) -> np.random.Generator:
        """Return what a picture's crop and mirroring in an epoch are drawn from."""
        return np.random.default_rng([self.seed, VARIATION, epoch, index])

    def check_same(self, kept: dict[str, object], where: str) -> None:
        """Compare this plan with a checkpoint's. Raises TrainingError where they differ."""
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
