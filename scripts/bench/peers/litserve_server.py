"""LitServe: ``python -m scripts.bench.peers.litserve_server PORT``."""

import os
import sys
from typing import Any

import litserve
import torch

from scripts.bench.eager import Classifier


class Predict(litserve.LitAPI):
    """Decode in ``decode_request``, the batch in ``predict``."""

    def setup(self, device: str) -> None:
        """Load the model in the worker's process."""
        self.classifier = Classifier()

    def decode_request(self, request: dict[str, Any]) -> torch.Tensor:
        """Decode the form's file."""
        return self.classifier.prepare(request["image"].file.read())

    def batch(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Leave the pictures a list."""
        return inputs

    def predict(self, images: list[torch.Tensor]) -> list[dict[str, Any]]:
        """Answer a batch."""
        return self.classifier.classify(images)

    def unbatch(self, outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Leave the answers a list."""
        return outputs

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Answer as it is."""
        return output


if __name__ == "__main__":
    api = Predict(max_batch_size=8, batch_timeout=0.005)
    workers = int(os.environ.get("BENCH_WORKERS", "2"))
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, timeout=120)
    server.run(
        port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False, log_level="error"
    )
