"""Responses of the Open Inference Protocol: output tensors, in the JSON or, if requested, after it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from flask import Response, g

from app.serving.prediction import Prediction, count_passing
from app.web.input.bodies import check_rows, write_rows
from app.web.input.tensors import write_numbers
from app.web.openinference.schema import OutputTensor

HEADER_LENGTH = "Inference-Header-Content-Length"
OUTPUT_VALUES: dict[str, Callable[[Prediction], np.ndarray]] = {
    "scores": Prediction.scores,
    "logits": lambda prediction: prediction.logits,
}
ELEMENT_LENGTH = struct.Struct("<I")  # before each element of a binary BYTES tensor


@dataclass(frozen=True)
class RequestedOutput:
    """A requested output.

    Attributes:
        name: a key of ``OUTPUT_VALUES``.
        is_binary: the tensor follows the JSON.
        classes: return this many labels instead of the values; 0: the values.
    """

    name: str
    is_binary: bool = False
    classes: int = 0


def encode_response(
    predictions: Sequence[Prediction], outputs: Sequence[RequestedOutput], request_id: str | None
) -> Response:
    """Return the response of an inference; the request id is repeated if there is one.

    Raises:
        InvalidOption: the response would be too large.
    """
    rows = len(predictions) * len(predictions[0].model.class_names) * len(outputs)
    check_rows(rows)
    text, binaries, g.log_fields["labels"] = write_rows(
        rows,
        lambda: (*write_response(predictions, outputs, request_id), count_passing(predictions)),
    )
    if not binaries:
        return Response(text, mimetype="application/json")
    response = Response(b"".join([text, *binaries]), mimetype="application/octet-stream")
    response.headers[HEADER_LENGTH] = str(len(text))
    return response


def write_response(
    predictions: Sequence[Prediction], outputs: Sequence[RequestedOutput], request_id: str | None
) -> tuple[bytes, Sequence[bytes]]:
    """Return the JSON of the response and the tensors that follow it."""
    model = predictions[0].model
    head = {"model_name": model.name, "model_version": str(model.version)}
    if request_id is not None:
        head["id"] = request_id
    written = [write_output(predictions, output) for output in outputs]
    tensors = ", ".join(tensor for tensor, _ in written)
    text = f'{json.dumps(head)[:-1]}, "outputs": [{tensors}]}}'
    return text.encode(), [binary for _, binary in written if binary]


def write_output(predictions: Sequence[Prediction], output: RequestedOutput) -> tuple[str, bytes]:
    """Return an output tensor as JSON, and its binary data, if requested."""
    class_names = predictions[0].model.class_names
    values = [OUTPUT_VALUES[output.name](prediction) for prediction in predictions]
    tensor: OutputTensor = {
        "name": output.name,
        "datatype": "BYTES" if output.classes else "FP32",
        "shape": [len(values), min(output.classes, len(class_names)) or len(class_names)],
    }
    if output.classes:
        labels = [label for row in values for label in rank(row, class_names, output.classes)]
        texts = [json.dumps(label) for label in labels]
        binary = join_elements(labels) if output.is_binary else b""
    else:
        texts = [] if output.is_binary else [text for row in values for text in write_numbers(row)]
        binary = np.stack(values).astype("<f4").tobytes() if output.is_binary else b""
    if output.is_binary:
        tensor["parameters"] = {"binary_data_size": len(binary)}
        return json.dumps(tensor), binary
    return f'{json.dumps(tensor)[:-1]}, "data": [{", ".join(texts)}]}}', b""


def join_elements(elements: Iterable[str]) -> bytes:
    """Return strings as a binary BYTES tensor."""
    encoded = [element.encode() for element in elements]
    return b"".join(ELEMENT_LENGTH.pack(len(element)) + element for element in encoded)


def rank(values: np.ndarray, class_names: Sequence[str], count: int) -> list[str]:
    """Return the highest values with their classes in Triton's format, ``0.731059:1:Dog``.

    Args:
        values: (classes,).
        class_names: the classes.
        count: the maximum number of labels.
    """
    order = np.argsort(-values, kind="stable")[:count].tolist()
    return [f"{values[index]:f}:{index}:{class_names[index]}" for index in order]
