"""TorchServe's handler; torchserve_server archives and serves it."""

from typing import Any

import torch
from ts.torch_handler.base_handler import BaseHandler

from scripts.bench.eager import Classifier


class Predict(BaseHandler):
    """Decode in ``preprocess``, the batch in ``inference``."""

    def initialize(self, context: object) -> None:
        """Load the model in the worker's process."""
        self.classifier = Classifier()
        self.initialized = True

    def preprocess(self, requests: list[dict[str, Any]]) -> list[torch.Tensor]:
        """Decode the form's files."""
        return [self.classifier.prepare(request["data"]) for request in requests]

    def inference(self, images: list[torch.Tensor]) -> list[dict[str, Any]]:
        """Answer a batch."""
        return self.classifier.classify(images)

    def postprocess(self, answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answer as it is."""
        return answers
