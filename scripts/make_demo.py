"""Train the demo model from scratch on scenes of pictograms.

    .venv/bin/python -m scripts.make_demo              from scratch: about an hour on two cores
    .venv/bin/python -m scripts.make_demo --continue   from the weights in models/demo/1: half an hour
    .venv/bin/python -m scripts.make_demo --resume     resumes either from its last checkpoint in build/demo

The demo gives a checkout without internet a working model. The network is the same ResNet-50 that
serves a user's own weights. It is pruned during training (19 of 20 convolution weights become zero),
so that its file is small enough for git.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import nn
from tqdm import tqdm

from app.models.config import DEVIATION, MEAN
from app.processing.images import SIDE  # scenes are stored at the serving size
from scripts.bundle_files import save_checkpoint
from scripts.demo_bundle import (
    measure_bundle,
    plot_curve,
    write_bundle,
    write_config,
    write_samples,
)
from scripts.demo_pruning import Pruning
from scripts.demo_scenes import CALIBRATION_SCENES, CLASS_NAMES, draw_scene, write_scenes
from scripts.scores import exact_share, mean_average_precision

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "demo"

TRAINING_SCENES, HELD_OUT_SCENES = 20_000, 2_000
TRAINING_SEED, HELD_OUT_SEED = 1, 2  # scene i is drawn from the generator seeded [seed, i]

BATCH = 32
WEIGHT_DECAY = 0.05
CHECKPOINT_EVERY = 200  # steps


@dataclass(frozen=True)
class Recipe:
    """How long to train, and how.

    Attributes:
        stages: (px a side, steps): mostly at small sizes, where a step is cheap, the last at the serving size.
        peak_rate: the highest learning rate.
        pruned_between: the first and the last step of pruning; (-1, -1) keeps the zeros that there are.
    """

    stages: tuple[tuple[int, int], ...]
    peak_rate: float
    pruned_between: tuple[int, int]

    @property
    def steps(self) -> int:
        """Return the number of optimizer steps."""
        return sum(steps for _, steps in self.stages)

    def side(self, step: int) -> int:
        """Return the image size of a step, px."""
        for side, steps in self.stages:
            if step < steps:
                return side
            step -= steps
        return SIDE


FROM_SCRATCH = Recipe(((96, 1700), (128, 1400), (SIDE, 450)), 1e-3, (1500, 2600))
CONTINUED = Recipe(((SIDE, 350),), 6e-4, (-1, -1))


def draw_prepared(seed_and_index: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return scene ``index`` of ``seed`` as ((3, 224, 224) uint8, (20,) float32)."""
    scene = draw_scene(np.random.default_rng(seed_and_index))
    small = scene.image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small).transpose(2, 0, 1), scene.target()


def draw_set(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a data set in parallel: images (count, 3, 224, 224) uint8, targets (count, 20) float32."""
    images = torch.empty(count, 3, SIDE, SIDE, dtype=torch.uint8)
    targets = torch.empty(count, len(CLASS_NAMES))
    jobs = [(seed, index) for index in range(count)]
    with multiprocessing.get_context("spawn").Pool() as pool:
        drawn = tqdm(
            pool.imap(draw_prepared, jobs, chunksize=50), "drawing scenes", count, unit="scene"
        )
        for index, (image, target) in enumerate(drawn):
            images[index] = torch.from_numpy(image.copy())
            targets[index] = torch.from_numpy(target)
    return images, targets


def normalize(images: torch.Tensor, side: int) -> torch.Tensor:
    """Convert (n, 3, 224, 224) uint8 to the network's (n, 3, side, side) float32 input."""
    pixels = images.float().div_(255)
    if side != SIDE:
        pixels = F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    deviation = torch.tensor(DEVIATION, device=images.device).view(1, 3, 1, 1)
    return ((pixels - mean) / deviation).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def predict(network: nn.Module, images: torch.Tensor, side: int, device: str) -> np.ndarray:
    """Return the logits of (n, 3, 224, 224) uint8 images as (n, 20) float32."""
    network.eval()
    logits = []
    for part in images.split(100):  # type: ignore[no-untyped-call]
        with torch.autocast(device, torch.bfloat16):
            logits.append(network(normalize(part.to(device), side)).float().cpu())
    network.train()
    return torch.cat(logits).numpy()


@dataclass
class Run:
    """Training state, as saved in a checkpoint, except the recipe."""

    recipe: Recipe
    network: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    pruning: Pruning
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        state = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "masks": self.pruning.masks,
            "step": self.step,
            "history": self.history,
        }
        save_checkpoint(path, state)

    def load(self, path: Path) -> None:
        """Restore a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.pruning.masks = state["masks"]
        self.step, self.history = state["step"], state["history"]


def start_run(recipe: Recipe, device: str) -> Run:
    """Create a run at step 0, with random weights."""
    torch.manual_seed(0)
    network = torchvision.models.resnet50(num_classes=len(CLASS_NAMES), zero_init_residual=True)
    network = network.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(
        network.parameters(), recipe.peak_rate, weight_decay=WEIGHT_DECAY, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.peak_rate, recipe.steps, pct_start=0.1
    )
    return Run(recipe, network, optimiser, schedule, Pruning(*recipe.pruned_between))


def continue_from(run: Run, weights: Path) -> None:
    """Take over the weights of ``model.npz``, and keep its zeros."""
    with np.load(weights) as stored:
        run.network.load_state_dict({name: torch.from_numpy(stored[name]) for name in stored})
    run.pruning.keep_zeros(run.network)


def draw_batches(
    images: torch.Tensor, targets: torch.Tensor, run: Run, device: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (images uint8, targets) from the run's step on; a batch depends only on its step number."""
    for step in range(run.step, run.recipe.steps):
        rng = np.random.default_rng([TRAINING_SEED, step])
        chosen = torch.from_numpy(rng.integers(0, len(images), BATCH))
        batch = images[chosen].to(device)
        mirrored = torch.from_numpy(rng.random(BATCH) < 0.5).to(device).view(-1, 1, 1, 1)
        yield torch.where(mirrored, batch.flip(3), batch), targets[chosen].to(device)


def train(run: Run, device: str, checkpoint: Path) -> None:
    """Train to the last step; every CHECKPOINT_EVERY steps, score 500 held-out scenes and write a checkpoint."""
    steps = run.recipe.steps
    if run.step >= steps:
        return
    images, targets = draw_set(TRAINING_SEED, TRAINING_SCENES)
    held_images, held_targets = draw_set(HELD_OUT_SEED, 500)
    bar = tqdm(
        draw_batches(images, targets, run, device), "training", steps, initial=run.step, unit="step"
    )
    run.network.train()
    for batch, wanted in bar:
        side = run.recipe.side(run.step)
        with torch.autocast(device, torch.bfloat16):
            logits = run.network(normalize(batch, side))
        loss = F.binary_cross_entropy_with_logits(logits.float(), wanted)
        run.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(run.network.parameters(), 1.0)
        run.optimiser.step()
        run.schedule.step()
        run.pruning.update(run.network, run.step)
        run.pruning.apply(run.network)
        run.step += 1
        row = {
            "step": run.step,
            "side": side,
            "loss": loss.item(),
            "sparsity": run.pruning.target(run.step),
        }
        if run.step % CHECKPOINT_EVERY == 0 or run.step == steps:
            held_logits = predict(run.network, held_images, side, device)
            row["map"] = mean_average_precision(held_logits, held_targets.numpy())
            row["exact"] = exact_share(held_logits, held_targets.numpy())
            bar.write(json.dumps({name: round(value, 4) for name, value in row.items()}))
        run.history.append(row)
        bar.set_postfix(side=side, loss=f"{row['loss']:.3f}")
        if "map" in row:
            run.save(checkpoint)


def main() -> None:
    """Train, write the bundle, score it on held-out scenes, draw samples and training curve."""
    parser = argparse.ArgumentParser(
        prog="scripts.make_demo", description="Train the demo model on scenes of pictograms."
    )
    parser.add_argument("--resume", action="store_true", help="resume from the last checkpoint")
    parser.add_argument(
        "--continue", action="store_true", dest="go_on", help="train the demo's weights further"
    )
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    BUILD.mkdir(parents=True, exist_ok=True)
    checkpoint = BUILD / "checkpoint.pth"
    models = ROOT / "models"
    run = start_run(CONTINUED if options.go_on else FROM_SCRATCH, device)
    if options.resume and checkpoint.exists():
        run.load(checkpoint)
    elif options.go_on:
        continue_from(run, models / "demo" / "1" / "model.npz")
    train(run, device, checkpoint)

    write_bundle(models / "demo" / "1", run.network.state_dict())
    images, targets = draw_set(HELD_OUT_SEED, HELD_OUT_SCENES)
    scores = measure_bundle(models, images.numpy(), targets.numpy())
    write_config(models / "demo" / "1", scores)
    write_samples(ROOT / "samples")
    write_scenes(models / "demo" / "1" / "calibration", CALIBRATION_SCENES)
    plot_curve(run.history, ROOT / "docs" / "demo-training.png")
    print(json.dumps(scores, indent=1))


if __name__ == "__main__":
    main()
