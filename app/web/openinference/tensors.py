"""What an inference request of the Open Inference Protocol holds, and its answer: tensors in JSON or beside it.

Triton's binary extension puts tensors behind the JSON, whose length the header
``Inference-Header-Content-Length`` tells. Elements of BYTES have their length before them, 4 bytes,
little-endian. A length of 0 means that there is no JSON: the body is a picture as it is.
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flask import Response, g

from app.errors import MalformedRequest
from app.serving.image_pool import Picture
from app.serving.prediction import Prediction, count_passing
from app.web.input.bodies import check_rows, write_rows
from app.web.input.documents import is_list, only_element, opened, parse_object, plain
from app.web.input.tensors import (
    check_shape,
    open_base64,
    read_array,
    to_pictures,
    unnest,
    write_numbers,
)
from app.web.limits import MAX_DIGITS, MAX_DIMENSION, MAX_DIMENSIONS, MAX_ID
from app.web.openinference.schema import OutputTensor
from app.web.quoting import abbreviate

HEADER_LENGTH = "Inference-Header-Content-Length"
INPUTS: dict[str, tuple[list[str], list[int]]] = {  # which datatypes each takes, and its shape
    "image": (["BYTES"], [-1]),
    "pixels": (["UINT8", "FP32"], [-1, -1, -1, 3]),
}
DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}
OUTPUTS: dict[str, Callable[[Prediction], np.ndarray]] = {
    "scores": Prediction.scores,
    "logits": lambda prediction: prediction.logits,
}
LENGTH = struct.Struct("<I")  # before each element of a binary BYTES tensor


@dataclass(frozen=True)
class Tensor:
    """A tensor of a request: what its JSON says, and its bytes where they are not in the JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any
    binary: bytes | None


@dataclass(frozen=True)
class Output:
    """An output that is asked for; ``classes`` > 0 asks for so many labels instead of the values."""

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(frozen=True)
class Inference:
    """A request: at least one picture, the outputs that are asked for, and the client's own id or None."""

    pictures: Sequence[Picture]
    outputs: Sequence[Output]
    id: str | None = None


def read_inference(
    body: bytes, header_length: str | None, check_count: Callable[[int], None]
) -> Inference:
    """Read a request.

    Args:
        body: inflated.
        header_length: how many of its bytes are JSON, as the header says it; None: all.
        check_count: refuses a number of pictures, before anything is made of them.

    Raises:
        MalformedRequest: it is not as the protocol, or the model, asks for.
    """
    if header_length is None:
        header_length = str(len(body))
    elif header_length.strip() == "0":
        return Inference([io.BytesIO(body)], [Output(name, binary=True) for name in OUTPUTS])
    length = read_length(header_length)
    if length is None or length > len(body):
        raise MalformedRequest(
            f"{HEADER_LENGTH} is {header_length[:20]!r}; the body has {len(body):,} bytes"
        )
    content = parse_object(body[:length])
    request_id = plain(content.get("id"))
    if not isinstance(request_id, str | None):
        raise MalformedRequest(f"'id' is {abbreviate(request_id)}, no string")
    if request_id and len(request_id) > MAX_ID:
        raise MalformedRequest(f"'id' has {len(request_id):,} characters; the limit is {MAX_ID}")
    outputs = read_outputs(content)
    tensor = read_tensor(content, body[length:])
    check_count(tensor.shape[0] if tensor.shape else 0)
    open_pictures = open_images if tensor.name == "image" else open_pixels
    return Inference(open_pictures(tensor), outputs, request_id)


def read_length(text: str) -> int | None:
    """Return a length that a header tells; None where it tells none, or one that no body can have."""
    return int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else None


def read_tensor(content: dict[str, Any], rest: bytes) -> Tensor:
    """Return the one input of a request, checked but for its data. Raises as ``read_inference``."""
    inputs = content.get("inputs")
    given = only_element(inputs)
    if not isinstance(given, dict):
        raise MalformedRequest(
            f"'inputs' is {abbreviate(inputs)}; expected a list of one tensor, {' or '.join(INPUTS)}"
        )
    name, datatype, shape = (plain(given.get(key)) for key in ("name", "datatype", "shape"))
    if not isinstance(name, str) or name not in INPUTS:
        raise MalformedRequest(
            f"unexpected inference input {abbreviate(name)}; expected {' or '.join(INPUTS)}"
        )
    if datatype not in INPUTS[name][0]:
        expected = " or ".join(INPUTS[name][0])
        raise MalformedRequest(
            f"input '{name}' has the datatype {abbreviate(datatype)}; expected {expected}"
        )
    check_sizes(name, shape)
    size = read_parameters(given).get("binary_data_size")
    if size is None and rest:
        raise MalformedRequest(f"unexpected additional input data: {len(rest):,} bytes")
    if size is not None and (type(size) is not int or size != len(rest)):
        raise MalformedRequest(
            f"unexpected size for input '{name}': binary_data_size is {abbreviate(size)},"
            f" {len(rest):,} bytes follow the JSON ({HEADER_LENGTH} tells its length)"
        )
    return Tensor(name, datatype, tuple(shape), given.get("data"), None if size is None else rest)


def check_sizes(name: str, shape: object) -> None:
    """Refuse with MalformedRequest what can be no input's shape, before anybody multiplies or prints its sizes."""
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise MalformedRequest(f"input '{name}' has the shape {abbreviate(shape)}")
    if len(shape) > MAX_DIMENSIONS:
        raise MalformedRequest(
            f"input '{name}' has {len(shape):,} dimensions; the limit is {MAX_DIMENSIONS}"
        )
    if any(size > MAX_DIMENSION for size in shape):
        raise MalformedRequest(
            f"input '{name}' has the shape {abbreviate(shape)}; a dimension is at most {MAX_DIMENSION:,}"
        )


def read_outputs(content: dict[str, Any]) -> list[Output]:
    """Return the outputs that a request asks for: all, where it names none. Raises as ``read_inference``."""
    binary = read_parameters(content).get("binary_data_output", False)
    asked = plain(content.get("outputs")) or [{"name": name} for name in OUTPUTS]
    if not isinstance(asked, list) or not all(isinstance(each, dict) for each in asked):
        raise MalformedRequest(f"'outputs' is {abbreviate(asked)}; expected a list of objects")
    outputs: list[Output] = []
    for each in asked:
        name, parameters = each.get("name"), read_parameters(each)
        if not isinstance(name, str) or name not in OUTPUTS:
            raise MalformedRequest(
                f"unexpected inference output {abbreviate(name)}; there are {', '.join(OUTPUTS)}"
            )
        if any(name == other.name for other in outputs):
            raise MalformedRequest(f"output '{name}' is asked for twice")
        classes = parameters.get("classification", 0)
        if type(classes) is not int or classes < 0:
            raise MalformedRequest(
                f"output '{name}': classification is {abbreviate(classes)}; expected a number of labels"
            )
        outputs.append(Output(name, bool(parameters.get("binary_data", binary)), classes))
    return outputs


def read_parameters(owner: dict[str, Any]) -> dict[str, Any]:
    """Return the ``parameters`` of a request or a tensor. Raises as ``read_inference``."""
    parameters = plain(owner.get("parameters", {}))
    if not isinstance(parameters, dict):
        raise MalformedRequest(f"'parameters' is {abbreviate(parameters)}, no object")
    if any(key.startswith("shared_memory") for key in parameters):
        raise MalformedRequest("shared memory is not served; send the data")
    return parameters


def open_images(tensor: Tensor) -> list[Picture]:
    """Return the pictures of a BYTES tensor: files, in base64 within JSON. Raises as ``read_inference``."""
    count = math.prod(tensor.shape)
    if tensor.shape not in ((count,), (count, 1)):  # batching servers give each element a row
        raise MalformedRequest(f"input 'image' has the shape {list(tensor.shape)}; expected [n]")
    if tensor.binary is not None:
        return [io.BytesIO(data) for data in split(tensor.binary, count)]
    check_list(tensor)
    values = opened(tensor.data)
    if len(values) > count:
        check_elements(tensor, len(values))
    flat, _ = unnest([opened(value) for value in values])
    check_elements(tensor, len(flat))
    texts = [opened(value) for value in flat]
    for text in texts:
        if not isinstance(text, str):
            raise MalformedRequest(f"input 'image' has {abbreviate(text)}; expected base64")
    return [open_base64(text) for text in texts]


def open_pixels(tensor: Tensor) -> list[Picture]:
    """Return the pictures of a UINT8 or FP32 tensor. Raises as ``read_inference``."""
    check_shape(tensor.shape)
    if tensor.binary is None:
        check_list(tensor)
        flat, shape = read_array(tensor.data)
        check_elements(tensor, len(flat))
        if len(shape) > 1 and shape != tensor.shape:
            raise MalformedRequest(
                f"input 'pixels' has data of shape {abbreviate([*shape])}; its shape is {list(tensor.shape)}"
            )
        return [*to_pictures(flat.reshape(tensor.shape))]
    dtype = DTYPES[tensor.datatype]
    expected = math.prod(tensor.shape) * dtype.itemsize
    if len(tensor.binary) != expected:
        raise MalformedRequest(
            f"unexpected size for input 'pixels': {len(tensor.binary):,} bytes;"
            f" {tensor.datatype} of shape {list(tensor.shape)} has {expected:,}"
        )
    return [*to_pictures(np.frombuffer(tensor.binary, dtype).reshape(tensor.shape))]


def check_list(tensor: Tensor) -> None:
    """Refuse with MalformedRequest data in JSON that are no list."""
    if not is_list(tensor.data):
        raise MalformedRequest(
            f"input '{tensor.name}': 'data' is {abbreviate(tensor.data)}, no list"
        )


def check_elements(tensor: Tensor, found: int) -> None:
    """Refuse with MalformedRequest another number of elements than the shape has."""
    expected = math.prod(tensor.shape)
    if found != expected:
        raise MalformedRequest(
            f"input '{tensor.name}' has {found:,} elements; its shape {list(tensor.shape)}"
            f" has {expected:,}"
        )


def split(data: bytes, count: int) -> list[bytes]:
    """Return the elements of a binary BYTES tensor. Raises as ``read_inference``."""
    elements, offset = [], 0
    for index in range(count):
        begin = offset + LENGTH.size
        if begin <= len(data):
            offset = begin + LENGTH.unpack_from(data, offset)[0]
        if begin > len(data) or offset > len(data):
            raise MalformedRequest(
                f"input 'image' breaks off in element {index} of {count}: it has {len(data):,} bytes"
            )
        elements.append(data[begin:offset])
    if offset != len(data):
        raise MalformedRequest(
            f"input 'image' has {len(data) - offset:,} bytes after its {count} elements"
        )
    return elements


def join(elements: Iterable[str]) -> bytes:
    """Return strings as a binary BYTES tensor."""
    encoded = [element.encode() for element in elements]
    return b"".join(LENGTH.pack(len(element)) + element for element in encoded)


def encode(predictions: Sequence[Prediction], asked: Inference) -> Response:
    """Return the answer; tensors that are asked for in binary form follow the JSON."""
    rows = len(predictions) * len(predictions[0].model.class_names) * len(asked.outputs)
    check_rows(rows)
    text, binaries, g.log_fields["labels"] = write_rows(
        rows, lambda: (*write_answer(predictions, asked), count_passing(predictions))
    )
    if not binaries:
        return Response(text, mimetype="application/json")
    response = Response(b"".join([text, *binaries]), mimetype="application/octet-stream")
    response.headers[HEADER_LENGTH] = str(len(text))
    return response


def write_answer(
    predictions: Sequence[Prediction], asked: Inference
) -> tuple[bytes, Sequence[bytes]]:
    """Return the JSON of the answer, and the tensors that follow it."""
    model = predictions[0].model
    head = {"model_name": model.name, "model_version": str(model.version)}
    if asked.id is not None:
        head["id"] = asked.id
    written = [write_output(predictions, output) for output in asked.outputs]
    tensors = ", ".join(tensor for tensor, _ in written)
    text = f'{json.dumps(head)[:-1]}, "outputs": [{tensors}]}}'
    return text.encode(), [binary for _, binary in written if binary]


def write_output(predictions: Sequence[Prediction], output: Output) -> tuple[str, bytes]:
    """Return an output tensor as JSON, and the bytes that follow it where it is asked for in binary form."""
    names = predictions[0].model.class_names
    rows = [OUTPUTS[output.name](each) for each in predictions]
    ranked = rows if output.classes else []
    labels = [label for row in ranked for label in rank(row, names, output.classes)]
    tensor: OutputTensor = {
        "name": output.name,
        "datatype": "BYTES" if output.classes else "FP32",
        "shape": [len(rows), min(output.classes, len(names)) or len(names)],
    }
    if output.binary:
        binary = join(labels) if output.classes else np.stack(rows).astype("<f4").tobytes()
        tensor["parameters"] = {"binary_data_size": len(binary)}
        return json.dumps(tensor), binary
    if output.classes:
        texts = [json.dumps(label) for label in labels]
    else:
        texts = [text for row in rows for text in write_numbers(row)]
    return f'{json.dumps(tensor)[:-1]}, "data": [{", ".join(texts)}]}}', b""


def rank(values: np.ndarray, names: Sequence[str], count: int) -> list[str]:
    """Return the highest values with their classes as Triton writes them, ``0.731059:1:Dog``.

    Args:
        values: (classes,).
        names: the classes.
        count: how many; all, where there are not so many.
    """
    order = np.argsort(-values, kind="stable")[:count].tolist()
    return [f"{values[index]:f}:{index}:{names[index]}" for index in order]
