"""Make a small model for tests that do not depend on ResNet-50's numerics: it knows the demo's samples.

It takes images of 64 x 64 px, is 2 MB small and answers in a millisecond.
"""

import csv
import json
from pathlib import Path

import numpy as np
import torch

from app.engines.conversion import convert_bundle
from app.models.artifacts import Artifacts
from app.models.bundle import find_bundle
from tests import reference
from tests.helpers import DEMO, SAMPLES

CONFIG = {"architecture": "shufflenet_v2_x0_5", "input_size": 64}
PASSING, MISSING = 6.0, -6.0  # logits; none is like another, so that labels have one order


def make_tiny(folder: Path) -> None:
    """Write the bundle and its converted network into a new folder."""
    names = json.loads((DEMO / "class_name.json").read_text())
    with (SAMPLES / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    prepare = reference.make_prepare(CONFIG["input_size"])
    images = torch.stack(
        [prepare(reference.as_rgb((SAMPLES / row["image"]).read_bytes())) for row in rows]
    )
    labels = [row["labels"].split(" | ") for row in rows]
    targets = torch.tensor(
        [
            [
                PASSING - own.index(name) / 2 if name in own else MISSING - index / 10
                for index, name in enumerate(names.values())
            ]
            for own in labels
        ]
    )
    network = reference.make_random(CONFIG["architecture"], len(names), images)
    fit_last_layer(network, images, targets)
    folder.mkdir(parents=True)
    np.savez(folder / "model.npz", **network.state_dict())
    (folder / "class_name.json").write_text(json.dumps(names))
    (folder / "model.json").write_text(json.dumps(CONFIG))
    convert_bundle(Artifacts(find_bundle(folder), folder / "cache"))


@torch.no_grad()
def fit_last_layer(network: torch.nn.Module, images: torch.Tensor, targets: torch.Tensor) -> None:
    """Choose the last layer's weights so that the images get exactly those logits, (n, classes)."""
    last = network.fc
    network.fc = torch.nn.Identity()
    features = network(images)
    network.fc = last
    last.bias.fill_(MISSING)
    last.weight.copy_(torch.linalg.lstsq(features, targets - MISSING).solution.T)
