"""Write and score the demo's bundle, and draw the sample images and the training curve."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot

from app.engines.eager import EagerEngine
from app.models.bundle import CONFIG_FILE, find_bundle
from scripts.bundle_files import write_class_names, write_json
from scripts.demo_scenes import CLASS_NAMES, Scene, draw_scene
from scripts.scores import exact_share, mean_average_precision

DESCRIPTION = (
    "Demo: recognizes emoji drawings of the twenty Pascal VOC classes, not photographs. "
    "Mount your own model.pth and class_name.json for real work."
)
# The samples are for trying out, not for evaluation: with this seed the demo labels all eight correctly.
SAMPLE_SEED = 6
# Name → classes and backdrop.
SAMPLES: dict[str, tuple[tuple[str, ...], str]] = {
    "street": (("Bus", "Car", "Bicycle", "Person"), "horizon"),
    "farm": (("Cow", "Horse", "Sheep"), "horizon"),
    "harbour": (("Boat", "Bird"), "horizon"),
    "airport": (("Aeroplane", "Bus", "Person"), "gradient"),
    "station": (("Train", "Motorbike"), "stripes"),
    "living-room": (("Sofa", "TV Monitor", "Cat"), "clouds"),
    "kitchen": (("Dining Table", "Chair", "Bottle"), "shapes"),
    "garden": (("Potted Plant", "Dog"), "horizon"),
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


def draw_sample(name: str) -> Scene:
    """Draw a sample: the first of its seeds whose scene has room for all its classes."""
    classes, backdrop = SAMPLES[name]
    labels = tuple(CLASS_NAMES.index(label) for label in classes)
    row = list(SAMPLES).index(name)
    scenes = (
        draw_scene(np.random.default_rng([SAMPLE_SEED, row, attempt]), labels, backdrop)
        for attempt in range(100)
    )
    return next(scene for scene in scenes if len(scene.labels) == len(labels))


def write_samples(folder: Path) -> None:
    """Write eight JPEG files and ``labels.csv``."""
    folder.mkdir(exist_ok=True)
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image", "labels"])
        for name in SAMPLES:
            scene = draw_sample(name)
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
