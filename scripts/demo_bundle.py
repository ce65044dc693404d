"""Write and score the demo's bundle, and draw the sample images and the training curve."""

from __future__ import annotations

import csv
import itertools
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot

from app.engines.eager import EagerEngine
from app.models.bundle import CONFIG_FILE, find_bundle
from scripts.bundle_files import write_class_names, write_json
from scripts.demo_backdrops import Color, paint_horizon
from scripts.demo_scenes import CLASS_NAMES, Scene, draw_scene
from scripts.scores import exact_share, mean_average_precision

DESCRIPTION = (
    "Demo: recognizes emoji drawings of the twenty Pascal VOC classes, not photographs. "
    "For photographs run scripts/get-model resnet50, or mount your own model.pth and class_name.json."
)


@dataclass(frozen=True)
class Sample:
    """A sample image: calm ground under a calm sky, in colors of such a place.

    Attributes:
        seed: of the scene. The samples are for trying out, not for evaluation: with these seeds nothing
            hides anything, and the demo labels all of them correctly.
        classes: what it shows.
        above: the color of sky or wall.
        below: the color of ground, water or floor.
    """

    seed: int
    classes: tuple[str, ...]
    above: Color
    below: Color

    def draw(self) -> Scene:
        """Draw it."""
        labels = tuple(CLASS_NAMES.index(name) for name in self.classes)
        paint = partial(paint_horizon, above=self.above, below=self.below, contrast=(4, 16))
        return draw_scene(np.random.default_rng([SAMPLE_SEED, self.seed]), labels, paint)


SAMPLE_SEED = 6
SAMPLES = {
    "street": Sample(5, ("Bus", "Car", "Bicycle", "Person"), (176, 205, 230), (120, 120, 124)),
    "farm": Sample(12, ("Cow", "Horse", "Sheep"), (160, 202, 238), (112, 150, 74)),
    "harbour": Sample(17, ("Boat", "Bird"), (236, 208, 178), (58, 104, 134)),
    "airport": Sample(0, ("Aeroplane", "Bus", "Person"), (196, 214, 226), (150, 150, 146)),
    "station": Sample(31, ("Train", "Motorbike"), (214, 206, 190), (110, 100, 94)),
    "living-room": Sample(31, ("Sofa", "TV Monitor", "Cat"), (224, 214, 196), (142, 102, 72)),
    "kitchen": Sample(24, ("Dining Table", "Chair", "Bottle"), (206, 222, 214), (170, 150, 126)),
    "garden": Sample(36, ("Potted Plant", "Dog"), (190, 212, 196), (92, 128, 66)),
}


def write_bundle(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Write ``model.npz`` and ``class_name.json``.

    Matrices and kernels are stored in half precision, in which the pruned zeros compress well; the
    small batch norm tensors stay fp32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        name: (tensor.half() if tensor.ndim > 1 else tensor).cpu().numpy()
        for name, tensor in weights.items()
    }
    np.savez_compressed(folder / "model.npz", allow_pickle=False, **arrays)
    write_class_names(folder, CLASS_NAMES)


def measure_bundle(models: Path, images: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Score the demo's bundle in fp32, as it is served.

    Args:
        models: the models folder, with the demo in it.
        images: (n, 3, 224, 224) uint8 held-out scenes.
        targets: (n, 20) 0 or 1.

    Returns:
        The ``scores`` of ``model.json``.
    """
    bundle = find_bundle(models, "demo")
    network = EagerEngine(bundle, torch.get_num_threads())
    parts = np.array_split(images, max(1, len(images) // 50))
    logits = np.concatenate([network.forward(list(part)).logits for part in parts])
    kernels = [tensor for tensor in np.load(bundle.weights).values() if tensor.ndim == 4]
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
    return {
        "held_out_scenes": len(images),
        "mean_average_precision": round(mean_average_precision(logits, targets), 4),
        "exact_label_sets": round(exact_share(logits, targets), 4),
        "zero_share_of_kernels": round(zeros / sum(kernel.size for kernel in kernels), 4),
        "file_mib": round(bundle.weights.stat().st_size / 2**20, 2),
    }


def write_config(folder: Path, scores: dict[str, float]) -> None:
    """Write ``model.json``."""
    write_json(folder / CONFIG_FILE, {"description": DESCRIPTION, "scores": scores})


def write_samples(folder: Path) -> None:
    """Write eight JPEG files and ``labels.csv``."""
    folder.mkdir(exist_ok=True)
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image", "labels"])
        for name, sample in SAMPLES.items():
            scene = sample.draw()
            scene.image.save(folder / f"{name}.jpg", quality=90)
            table.writerow([f"{name}.jpg", " | ".join(CLASS_NAMES[i] for i in scene.labels)])


def plot_curve(history: list[dict[str, float]], path: Path) -> None:
    """Plot loss, pruning and the held-out scores over the steps."""
    mpl.use("Agg")
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(8, 6), sharex=True)
    steps = [row["step"] for row in history]
    above.plot(steps, [row["loss"] for row in history], color="0.7", linewidth=0.5)
    above.plot(steps, running_mean([row["loss"] for row in history], 50), color="C0")
    above.set(ylabel="loss (mean of 50 steps)", yscale="log")
    scored = [row for row in history if "map" in row]
    scored_steps = [row["step"] for row in scored]
    below.plot(scored_steps, [row["map"] for row in scored], "o-", label="mAP")
    below.plot(
        scored_steps, [row["exact"] for row in scored], "o-", label="label sets exactly right"
    )
    below.plot(steps, [row["sparsity"] for row in history], color="0.6", label="pruned share")
    below.set(xlabel="step", ylim=(0, 1.02))
    below.legend(loc="lower right")
    changes = [b["step"] for a, b in itertools.pairwise(history) if a["side"] != b["side"]]
    for axes in (above, below):
        axes.grid(alpha=0.3)
        for step in changes:
            axes.axvline(step, color="0.5", linestyle=":")
    sides = list(dict.fromkeys(int(row["side"]) for row in history))
    above.set_title("demo model: scenes of " + ", then ".join(f"{side} px" for side in sides))
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def running_mean(values: list[float], window: int) -> list[float]:
    """Return the trailing mean over up to ``window`` values."""
    return [float(np.mean(values[max(0, i - window + 1) : i + 1])) for i in range(len(values))]
