"""Write the trained network as a bundle: ``OUT/VERSION/{model.pth, class_name.json, model.json}``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from app.models.bundle import CONFIG_FILE, put_in_place, write_sums
from scripts.bundle_files import write_class_names, write_json
from scripts.training.errors import TrainingError
from scripts.training.examples import Examples

# In the model's folder, so that a finished bundle is renamed within one file system; the server only
# reads folders whose name is a number.
WORK_FOLDER = ".training"


def check_output(model: Path) -> None:
    """Check before hours of training that a bundle can be written. Raises TrainingError."""
    if model.exists() and not model.is_dir():
        raise TrainingError(f"--out {model} is a file; expected a folder such as models/voc")


def write_bundle(
    model: Path, classifier: nn.Module, examples: Examples, scores: Mapping[str, Any]
) -> Path:
    """Write the next version atomically and return its folder.

    Args:
        model: the model's folder, which exists.
        classifier: ResNet-50.
        examples: the data set: class names and title.
        scores: for ``model.json``.
    """
    folder = model / WORK_FOLDER / "bundle"
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
    folder.mkdir(parents=True)  # not by tempfile, whose folders only their owner can read
    weights = {
        name: tensor.detach().cpu().contiguous() for name, tensor in classifier.state_dict().items()
    }
    torch.save(weights, folder / "model.pth")
    write_class_names(folder, examples.class_names)
    description = f"ResNet-50, trained on {len(examples.training):,} pictures of {examples.title}."
    config = {
        "description": description,
        "threshold": scores["thresholds"],  # applied by the server
        "scores": {"training_pictures": len(examples.training), **scores},
    }
    del config["scores"]["thresholds"]
    write_json(folder / CONFIG_FILE, config)
    write_sums(folder)
    return put_in_place(folder, model)
