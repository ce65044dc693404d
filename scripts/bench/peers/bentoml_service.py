"""BentoML: ``bentoml serve scripts.bench.peers.bentoml_service:Predict --port N``."""

import os
from pathlib import Path
from typing import Any

import bentoml

from scripts.bench.eager import Classifier


@bentoml.service(
    workers=int(os.environ.get("BENCH_WORKERS", "2")),
    traffic={"timeout": 120},
    logging={"access": {"enabled": False}},
)
class Predict:
    """Decode and answer in a batchable API; a client sends a batch of one."""

    def __init__(self) -> None:
        """Load the model in the worker's process."""
        self.classifier = Classifier()

    @bentoml.api(batchable=True, max_batch_size=8, max_latency_ms=60_000)
    def predict(self, images: list[Path]) -> list[dict[str, Any]]:
        """Answer a batch of the form's files."""
        return self.classifier.classify(
            [self.classifier.prepare(path.read_bytes()) for path in images]
        )
