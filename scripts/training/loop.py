"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from scripts.training.errors import Interrupted, TrainingError
from scripts.training.examples import Examples, make_targets
from scripts.training.measure import predict, score
from scripts.training.pictures import Reader, read_ahead
from scripts.training.run import Run

CHECKPOINT_EVERY_S = 300  # the most that a power cut loses; Ctrl-C loses nothing


@dataclass
class Trainer:
    """Trains a run to its last step.

    Attributes:
        run: the training state.
        examples: the data set.
        reader: decodes images.
        device: ``cpu`` or ``cuda:N``.
        threads: number of decode threads.
        checkpoint: path of the checkpoint.
        check: called before each step; raises Interrupted to stop.
    """

    run: Run
    examples: Examples
    reader: Reader
    device: str
    threads: int
    checkpoint: Path
    check: Callable[[], None]

    def train(self) -> None:
        """Train to the last step; validate after each epoch.

        Raises:
            Interrupted: after writing the checkpoint.
            TrainingError: an image cannot be read, or the loss is not finite.
        """
        try:
            self._train()
        except Interrupted:
            self.run.save(self.checkpoint)
            raise

    def _train(self) -> None:
        run, plan = self.run, self.run.plan
        # The validation of the last epoch was interrupted: repeat it.
        if run.step > len(run.history) * plan.epoch_steps and run.step % plan.epoch_steps == 0:
            self._finish_epoch()
        saved = time.monotonic()
        self._set_mode()
        with (
            closing(self._draw_batches()) as batches,
            tqdm(total=plan.steps, initial=run.step, desc="training", unit="step") as bar,
        ):
            for images, targets, known in batches:
                self.check()
                self._learn(images, targets, known)
                bar.update()
                bar.set_postfix(loss=f"{run.losses[-1]:.3f}")
                if run.step % plan.epoch_steps == 0:
                    bar.write(self._finish_epoch())
                    self._set_mode()
                elif time.monotonic() - saved > CHECKPOINT_EVERY_S:
                    run.save(self.checkpoint)
                    saved = time.monotonic()

    def _draw_batches(
        self,
    ) -> Generator[tuple[torch.Tensor, torch.Tensor, torch.Tensor], None, None]:
        """Yield pixels (n, 3, side, side) uint8, targets (n, classes) float32 and known (n, classes) bool."""
        plan, training = self.run.plan, self.examples.training
        targets, known = make_targets(training, len(self.examples.class_names))

        def read(job: tuple[int, int]) -> tuple[int, np.ndarray]:
            index = job[1]
            rng = plan.variation(*job)
            return index, self.reader.read_varied(training[index].image, plan.side, rng)

        order = plan.draw_order(self.run.step)
        with closing(read_ahead(read, order, self.threads, 3 * plan.batch_size)) as pictures:
            while batch := list(islice(pictures, plan.batch_size)):
                rows = [index for index, _ in batch]
                images = torch.from_numpy(np.stack([pixels for _, pixels in batch]))
                yield images, torch.from_numpy(targets[rows]), torch.from_numpy(known[rows])

    def _set_mode(self) -> None:
        """Set training mode; a frozen trunk stays in evaluation mode to keep its batch norm statistics."""
        self.run.network.train(not self.run.plan.head_only)

    def _learn(self, images: torch.Tensor, targets: torch.Tensor, known: torch.Tensor) -> None:
        """Do one optimizer step; shapes as in ``_draw_batches``."""
        run, plan = self.run, self.run.plan
        for group in run.optimiser.param_groups:
            group["lr"] = plan.rate * group["share"] * plan.rate_share(run.step)
        images = images.to(self.device).contiguous(memory_format=torch.channels_last)
        kind = self.device.partition(":")[0]
        with torch.autocast(kind, torch.float16, enabled=kind == "cuda"):
            logits = run.network(images)
        loss = masked_loss(logits.float(), targets.to(self.device), known.to(self.device))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at step {run.step + 1}: choose a --rate below {plan.rate}"
            )
        run.optimiser.zero_grad(set_to_none=True)
        run.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        run.scaler.unscale_(run.optimiser)
        nn.utils.clip_grad_norm_(run.network.parameters(), 1.0)
        run.scaler.step(run.optimiser)
        run.scaler.update()
        run.step += 1
        run.losses.append(value)

    def _finish_epoch(self) -> str:
        """Validate and write a checkpoint; return a one-line summary of the epoch."""
        run, held_out = self.run, self.examples.validation
        logits = predict(run.network, held_out, self.reader, self.threads, self.check)
        run.scores = score(logits, held_out, self.examples.class_names)
        run.history.append(float(np.mean(run.losses)))
        run.losses = []
        run.save(self.checkpoint)
        mean = run.scores["mean_average_precision"]
        return f"epoch {len(run.history)}: loss {run.history[-1]:.4f}, mAP {mean}"


def masked_loss(logits: torch.Tensor, targets: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the mean binary cross-entropy over known targets, 0 if there are none; arguments are (n, classes)."""
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (losses * known).sum() / known.sum().clamp_min(1)
