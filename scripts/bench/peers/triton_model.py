"""Triton's model, in its Python backend; triton_server puts it into a model repository."""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as backend

from scripts.bench.eager import Classifier


class TritonPythonModel:
    """Decode and answer what the dynamic batcher brings together."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model in the instance's process."""
        self.classifier = Classifier()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch."""
        images = []
        for request in requests:
            data = backend.get_input_tensor_by_name(request, "image").as_numpy().item()
            images.append(self.classifier.prepare(data))
        return [self.respond(answer) for answer in self.classifier.classify(images)]

    @staticmethod
    def respond(answer: dict[str, Any]) -> Any:
        """Put one answer into a tensor."""
        text = np.array([[json.dumps(answer).encode()]], np.object_)
        return backend.InferenceResponse([backend.Tensor("answer", text)])
