"""Train the demo model from scratch on scenes of pictograms.

    .venv/bin/python -m scripts.make_demo            about an hour on two cores
    .venv/bin/python -m scripts.make_demo --resume   resumes from the last checkpoint in build/demo

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
from scripts.demo_scenes import CALIBRATION_SCENES, CLASS_NAMES, draw_scene, write_scenes
from scripts.scores import exact_share, mean_average_precision

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "demo"

TRAINING_SCENES, HELD_OUT_SCENES = 20_000, 2_000
TRAINING_SEED, HELD_OUT_SEED = 1, 2  # scene i is drawn from the generator seeded [seed, i]

BATCH = 32
PEAK_RATE, WEIGHT_DECAY = 1e-3, 0.05
# (px a side, steps): mostly at small sizes, where a step is cheap, the last stage at the serving size.
STAGES = ((96, 1700), (128, 1400), (SIDE, 450))
STEPS = sum(steps for _, steps in STAGES)
PRUNE_FROM, PRUNE_UNTIL, PRUNE_EVERY = 1500, 2600, 50  # steps
SPARSITY = 0.95  # final share of zeros among convolution weights
CHECKPOINT_EVERY = 200  # steps


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


def stage_side(step: int) -> int:
    """Return the image size of a step, px."""
    for side, steps in STAGES:
        if step < steps:
            return side
        step -= steps
    return SIDE


@dataclass
class Pruning:
    """Gradual magnitude pruning.

    The share of zeros follows Zhu and Gupta's cubic schedule (arXiv:1710.01878). Layers are compared by
    the LAMP score (Lee et al., arXiv:2010.07611): a weight's square divided by the sum of the squares
    not smaller than it.

    Attributes:
        masks: by parameter name, a bool tensor of its shape: the weights that are kept.
    """

    masks: dict[str, torch.Tensor] = field(default_factory=dict)

    def target(self, step: int) -> float:
        """Return the scheduled share of zeros at a step."""
        progress = min(1.0, max(0.0, (step - PRUNE_FROM) / (PRUNE_UNTIL - PRUNE_FROM)))
        return SPARSITY * (1 - (1 - progress) ** 3)

    def update(self, network: nn.Module, step: int) -> None:
        """Recompute the masks."""
        prunable = {n: p for n, p in network.named_parameters() if p.ndim == 4 and p.shape[1] > 3}
        scores = {name: lamp_scores(parameter.detach()) for name, parameter in prunable.items()}
        every = torch.cat([score.flatten() for score in scores.values()])
        rank = int(self.target(step) * every.numel())
        limit = every.kthvalue(rank).values if rank else torch.tensor(-1.0)
        self.masks = {name: score > limit for name, score in scores.items()}

    @torch.no_grad()
    def apply(self, network: nn.Module) -> None:
        """Zero the pruned weights after an optimizer step."""
        for name, mask in self.masks.items():
            network.get_parameter(name).mul_(mask)


def lamp_scores(weight: torch.Tensor) -> torch.Tensor:
    """Return each weight's LAMP score, in the weight's shape."""
    squares, order = weight.flatten().square().sort()
    rest = squares.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = squares / rest.clamp_min(1e-30)
    return scores.view_as(weight)


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
    """Training state, as saved in a checkpoint."""

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


def start_run(device: str) -> Run:
    """Create a run at step 0."""
    torch.manual_seed(0)
    network = torchvision.models.resnet50(num_classes=len(CLASS_NAMES), zero_init_residual=True)
    network = network.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(
        network.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, STEPS, pct_start=0.1)
    return Run(network, optimiser, schedule, Pruning())


def draw_batches(
    images: torch.Tensor, targets: torch.Tensor, run: Run, device: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (images uint8, targets) from the run's step on; a batch depends only on its step number."""
    for step in range(run.step, STEPS):
        rng = np.random.default_rng([TRAINING_SEED, step])
        chosen = torch.from_numpy(rng.integers(0, len(images), BATCH))
        batch = images[chosen].to(device)
        mirrored = torch.from_numpy(rng.random(BATCH) < 0.5).to(device).view(-1, 1, 1, 1)
        yield torch.where(mirrored, batch.flip(3), batch), targets[chosen].to(device)


def train(run: Run, device: str, checkpoint: Path) -> None:
    """Train to the last step; every CHECKPOINT_EVERY steps, score 500 held-out scenes and write a checkpoint."""
    if run.step >= STEPS:
        return
    images, targets = draw_set(TRAINING_SEED, TRAINING_SCENES)
    held_images, held_targets = draw_set(HELD_OUT_SEED, 500)
    bar = tqdm(
        draw_batches(images, targets, run, device), "training", STEPS, initial=run.step, unit="step"
    )
    run.network.train()
    for batch, wanted in bar:
        side = stage_side(run.step)
        with torch.autocast(device, torch.bfloat16):
            logits = run.network(normalize(batch, side))
        loss = F.binary_cross_entropy_with_logits(logits.float(), wanted)
        run.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(run.network.parameters(), 1.0)
        run.optimiser.step()
        run.schedule.step()
        if PRUNE_FROM <= run.step <= PRUNE_UNTIL and run.step % PRUNE_EVERY == 0:
            run.pruning.update(run.network, run.step)
        run.pruning.apply(run.network)
        run.step += 1
        row = {
            "step": run.step,
            "side": side,
            "loss": float(loss),
            "sparsity": run.pruning.target(run.step),
        }
        if run.step % CHECKPOINT_EVERY == 0 or run.step == STEPS:
            held_logits = predict(run.network, held_images, side, device)
            row["map"] = mean_average_precision(held_logits, held_targets.numpy())
            row["exact"] = exact_share(held_logits, held_targets.numpy())
            bar.write(json.dumps({name: round(value, 4) for name, value in row.items()}))
        run.history.append(row)
        bar.set_postfix(side=side, loss=f"{float(loss):.3f}")
        if "map" in row:
            run.save(checkpoint)


def main() -> None:
    """Train, write the bundle, score it on held-out scenes, draw samples and training curve."""
    parser = argparse.ArgumentParser(
        prog="scripts.make_demo", description="Train the demo model on scenes of pictograms."
    )
    parser.add_argument("--resume", action="store_true", help="resume from the last checkpoint")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    BUILD.mkdir(parents=True, exist_ok=True)
    checkpoint = BUILD / "checkpoint.pth"
    run = start_run(device)
    if options.resume and checkpoint.exists():
        run.load(checkpoint)
    train(run, device, checkpoint)

    models = ROOT / "models"
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
