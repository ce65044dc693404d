"""Requests of the Open Inference Protocol: one input tensor, in the JSON or after it.

In Triton's binary tensor extension, tensors follow the JSON, whose length is in the header
``Inference-Header-Content-Length``. Each element of a BYTES tensor follows its length, 4 bytes, little-endian. A
length of 0 means that there is no JSON: the body is an image file.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.errors import MalformedRequest
from app.serving.image_pool import ImageInput
from app.web.input.documents import is_list, only_element, opened, parse_object, plain
from app.web.input.tensors import check_shape, open_base64, read_array, to_images, unnest
from app.web.limits import MAX_DIGITS, MAX_DIMENSION, MAX_DIMENSIONS, MAX_ID
from app.web.openinference.outputs import (
    ELEMENT_LENGTH,
    HEADER_LENGTH,
    OUTPUT_VALUES,
    RequestedOutput,
)
from app.web.quoting import abbreviate

# Accepted datatypes and shape of each input.
INPUT_TENSORS: dict[str, tuple[list[str], list[int]]] = {
    "image": (["BYTES"], [-1]),
    "pixels": (["UINT8", "FP32"], [-1, -1, -1, 3]),
}
DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}


@dataclass(frozen=True)
class InputTensor:
    """An input tensor; its elements are in ``data`` (JSON) or, if not None, in ``binary``."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any
    binary: bytes | None


@dataclass(frozen=True)
class Inference:
    """A request: at least one image, the requested outputs, and the id that the answer repeats."""

    images: Sequence[ImageInput]
    outputs: Sequence[RequestedOutput]
    id: str | None = None


def read_inference(
    body: bytes, header_length: str | None, check_count: Callable[[int], None]
) -> Inference:
    """Read a request (on any thread).

    Args:
        body: the body, decompressed.
        header_length: the header with the length of the JSON in bytes; None: all of the body is JSON.
        check_count: raises an error for a number of images over the limit; called before any is opened.

    Raises:
        MalformedRequest: the request does not follow the protocol, or does not fit the model.
    """
    if header_length is None:
        header_length = str(len(body))
    elif header_length.strip() == "0":
        outputs = [RequestedOutput(name, is_binary=True) for name in OUTPUT_VALUES]
        return Inference([io.BytesIO(body)], outputs)
    length = read_length(header_length)
    if length is None or length > len(body):
        raise MalformedRequest(
            f"{HEADER_LENGTH} is {header_length[:20]!r}; the body has {len(body):,} bytes"
        )
    content = parse_object(body[:length])
    request_id = read_id(content)
    outputs = read_outputs(content)
    tensor = read_tensor(content, body[length:])
    check_count(tensor.shape[0] if tensor.shape else 0)
    open_tensor = open_files if tensor.name == "image" else open_pixels
    return Inference(open_tensor(tensor), outputs, request_id)


def read_length(text: str) -> int | None:
    """Return the length in a header; None if it is no number or has too many digits."""
    return int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else None


def read_id(content: dict[str, Any]) -> str | None:
    """Return the id of a request, if any. Raises MalformedRequest."""
    request_id = plain(content.get("id"))
    if not isinstance(request_id, str | None):
        raise MalformedRequest(f"'id' is {abbreviate(request_id)}, no string")
    if request_id and len(request_id) > MAX_ID:
        raise MalformedRequest(f"'id' has {len(request_id):,} characters; the limit is {MAX_ID}")
    return request_id


def read_tensor(content: dict[str, Any], rest: bytes) -> InputTensor:
    """Return the only input of a request; its data are not checked yet. Raises MalformedRequest.

    Args:
        content: the JSON of the request.
        rest: the bytes after the JSON.
    """
    tensor = only_element(content.get("inputs"))
    if not isinstance(tensor, dict):
        raise MalformedRequest(
            f"'inputs' is {abbreviate(content.get('inputs'))};"
            f" expected a list of one tensor, {' or '.join(INPUT_TENSORS)}"
        )
    name, datatype, shape = (plain(tensor.get(key)) for key in ("name", "datatype", "shape"))
    if not isinstance(name, str) or name not in INPUT_TENSORS:
        raise MalformedRequest(
            f"unexpected inference input {abbreviate(name)}; expected {' or '.join(INPUT_TENSORS)}"
        )
    datatypes, _ = INPUT_TENSORS[name]
    if datatype not in datatypes:
        raise MalformedRequest(
            f"input '{name}' has the datatype {abbreviate(datatype)}; expected {' or '.join(datatypes)}"
        )
    check_dimensions(name, shape)
    binary = read_binary(name, tensor, rest)
    return InputTensor(name, datatype, tuple(shape), tensor.get("data"), binary)


def read_binary(name: str, tensor: dict[str, Any], rest: bytes) -> bytes | None:
    """Return the binary data of an input; None if its data are in the JSON. Raises MalformedRequest."""
    size = read_parameters(tensor).get("binary_data_size")
    if size is None and rest:
        raise MalformedRequest(f"unexpected additional input data: {len(rest):,} bytes")
    if size is not None and (type(size) is not int or size != len(rest)):
        raise MalformedRequest(
            f"unexpected size for input '{name}': binary_data_size is {abbreviate(size)},"
            f" {len(rest):,} bytes follow the JSON ({HEADER_LENGTH} tells its length)"
        )
    return None if size is None else rest


def check_dimensions(name: str, shape: object) -> None:
    """Raise MalformedRequest for an invalid or oversized shape, before its sizes are multiplied or quoted."""
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


def read_outputs(content: dict[str, Any]) -> list[RequestedOutput]:
    """Return the requested outputs; all, if the request names none. Raises MalformedRequest."""
    is_binary = bool(read_parameters(content).get("binary_data_output", False))
    rows = plain(content.get("outputs")) or [{"name": name} for name in OUTPUT_VALUES]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MalformedRequest(f"'outputs' is {abbreviate(rows)}; expected a list of objects")
    outputs: dict[str, RequestedOutput] = {}
    for row in rows:
        output = read_output(row, is_binary)
        if output.name in outputs:
            raise MalformedRequest(f"output '{output.name}' is asked for twice")
        outputs[output.name] = output
    return list(outputs.values())


def read_output(row: dict[str, Any], is_binary: bool) -> RequestedOutput:
    """Return a requested output; ``is_binary`` is the default of the request. Raises MalformedRequest."""
    name, parameters = row.get("name"), read_parameters(row)
    if not isinstance(name, str) or name not in OUTPUT_VALUES:
        raise MalformedRequest(
            f"unexpected inference output {abbreviate(name)}; there are {', '.join(OUTPUT_VALUES)}"
        )
    classes = parameters.get("classification", 0)
    if type(classes) is not int or classes < 0:
        raise MalformedRequest(
            f"output '{name}': classification is {abbreviate(classes)}; expected a number of labels"
        )
    return RequestedOutput(name, bool(parameters.get("binary_data", is_binary)), classes)


def read_parameters(owner: dict[str, Any]) -> dict[str, Any]:
    """Return the ``parameters`` of a request or a tensor. Raises MalformedRequest."""
    parameters = plain(owner.get("parameters", {}))
    if not isinstance(parameters, dict):
        raise MalformedRequest(f"'parameters' is {abbreviate(parameters)}, no object")
    if any(key.startswith("shared_memory") for key in parameters):
        raise MalformedRequest("shared memory is not served; send the data")
    return parameters


def open_files(tensor: InputTensor) -> list[ImageInput]:
    """Return the image files of a BYTES tensor; in JSON they are base64. Raises MalformedRequest."""
    count = math.prod(tensor.shape)
    if tensor.shape not in ((count,), (count, 1)):  # batching proxies add a dimension
        raise MalformedRequest(f"input 'image' has the shape {list(tensor.shape)}; expected [n]")
    if tensor.binary is not None:
        return [io.BytesIO(data) for data in split_elements(tensor.binary, count)]
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


def open_pixels(tensor: InputTensor) -> list[ImageInput]:
    """Return the images of a UINT8 or FP32 tensor, each (height, width, 3) uint8. Raises MalformedRequest."""
    check_shape(tensor.shape)
    if tensor.binary is None:
        check_list(tensor)
        flat, shape = read_array(tensor.data)
        check_elements(tensor, len(flat))
        if len(shape) > 1 and shape != tensor.shape:
            raise MalformedRequest(
                f"input 'pixels' has data of shape {abbreviate([*shape])}; its shape is {list(tensor.shape)}"
            )
        return [*to_images(flat.reshape(tensor.shape))]
    dtype = DTYPES[tensor.datatype]
    expected = math.prod(tensor.shape) * dtype.itemsize
    if len(tensor.binary) != expected:
        raise MalformedRequest(
            f"unexpected size for input 'pixels': {len(tensor.binary):,} bytes;"
            f" {tensor.datatype} of shape {list(tensor.shape)} has {expected:,}"
        )
    return [*to_images(np.frombuffer(tensor.binary, dtype).reshape(tensor.shape))]


def check_list(tensor: InputTensor) -> None:
    """Raise MalformedRequest unless the data in JSON are a list."""
    if not is_list(tensor.data):
        raise MalformedRequest(
            f"input '{tensor.name}': 'data' is {abbreviate(tensor.data)}, no list"
        )


def check_elements(tensor: InputTensor, found: int) -> None:
    """Raise MalformedRequest unless the number of elements fits the shape."""
    expected = math.prod(tensor.shape)
    if found != expected:
        raise MalformedRequest(
            f"input '{tensor.name}' has {found:,} elements; its shape {list(tensor.shape)}"
            f" has {expected:,}"
        )


def split_elements(data: bytes, count: int) -> list[bytes]:
    """Return the elements of a binary BYTES tensor. Raises MalformedRequest."""
    elements, offset = [], 0
    for index in range(count):
        begin = offset + ELEMENT_LENGTH.size
        if begin <= len(data):
            offset = begin + ELEMENT_LENGTH.unpack_from(data, offset)[0]
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
