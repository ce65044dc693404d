"""The other contenders' model: Pillow, torchvision's transforms, the eager network, one torch thread.

``BENCH_MODEL=constant`` leaves out the network: what is measured then is the server alone, with decode
and resize. ``python -m scripts.bench.eager PICTURE`` prints the answer.
"""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision import transforms

from app.engines.network import build_network
from app.models.bundle import find_bundle
from app.settings import ROOT

CLASS_NAMES = find_bundle(ROOT / "models").class_names
CONSTANT = os.environ.get("BENCH_MODEL") == "constant"
PREPARE = transforms.Compose([transforms.Resize((224, 224)), transforms.PILToTensor()])


class Classifier:
    """The demo's network behind two calls: ``prepare`` for one picture, ``classify`` for a batch."""

    def __init__(self) -> None:
        """Load the weights."""
        if threads := os.environ.get("BENCH_THREADS"):
            torch.set_num_threads(int(threads))
        self._network = None if CONSTANT else build_network(find_bundle(ROOT / "models"))

    def prepare(self, data: bytes) -> torch.Tensor:
        """Decode and resize: (3, 224, 224) uint8."""
        image: torch.Tensor = PREPARE(Image.open(io.BytesIO(data)).convert("RGB"))
        return image

    @torch.inference_mode()
    def classify(self, images: list[torch.Tensor]) -> list[dict[str, Any]]:
        """Return the answers of a batch."""
        batch = torch.stack(images)
        logits = torch.ones(len(batch), 20) if self._network is None else self._network(batch)
        return [self.answer(row) for row in logits.tolist()]

    @staticmethod
    def answer(logits: list[float]) -> dict[str, Any]:
        """Return one picture's answer, as POST /model_predict words it."""
        passing = sorted(pair for pair in zip(logits, CLASS_NAMES, strict=True) if pair[0] > 0.5)
        return {
            "result": [name for _, name in passing] or "No Categories",
            "status": int(bool(passing)),
        }


if __name__ == "__main__":
    classifier = Classifier()
    print(json.dumps(classifier.classify([classifier.prepare(Path(sys.argv[1]).read_bytes())])))
