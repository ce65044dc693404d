"""mosec: ``python -m scripts.bench.peers.mosec_server --port N``."""

import io
import os
from typing import Any

import torch
from mosec import Server, Worker
from multipart import MultipartParser

from scripts.bench.eager import Classifier


class Predict(Worker):
    """Decode in ``deserialize``, the batch in ``forward``."""

    def __init__(self) -> None:
        """Load the model in the worker's process."""
        super().__init__()
        self.classifier = Classifier()

    def deserialize(self, data: bytes) -> torch.Tensor:
        """Take the file out of the multipart body and decode it."""
        boundary = data[2 : data.index(b"\r\n")].decode()
        part = next(iter(MultipartParser(io.BytesIO(data), boundary)))
        return self.classifier.prepare(part.raw)

    def forward(self, data: list[torch.Tensor]) -> list[dict[str, Any]]:
        """Answer a batch."""
        return self.classifier.classify(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Predict, num=int(os.environ.get("BENCH_WORKERS", "2")), max_batch_size=8, max_wait_time=5
    )
    server.run()
