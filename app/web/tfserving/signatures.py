"""Signatures, inputs and outputs of TensorFlow Serving's protocol for an image model.

Every signature accepts every input; the metadata show one of them. A response has the outputs of the signature:
bare values for a single output, an object by name for several.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from msgspec import Raw

from app.errors import MalformedRequest
from app.serving.image_pool import ImageInput
from app.serving.model import Model
from app.serving.prediction import Prediction
from app.web.input.documents import opened, plain
from app.web.input.tensors import (
    B64,
    check_shape,
    find_binary,
    is_nested,
    open_base64,
    read_pixels,
    to_images,
    write_numbers,
)
from app.web.quoting import abbreviate, cut
from app.web.tfserving.schema import SignatureDef, TensorInfo

# TensorFlow dtype and shape of each input.
SIGNATURE_INPUTS: dict[str, tuple[str, tuple[int, ...]]] = {
    "image_bytes": ("DT_STRING", (-1,)),
    "pixels": ("DT_UINT8", (-1, -1, -1, 3)),
}


@dataclass(frozen=True)
class SignatureOutput:
    """An output: its TensorFlow dtype, and a function that returns its value for each class as JSON."""

    dtype: str
    values: Callable[[Prediction], Sequence[str]]


@lru_cache(maxsize=8)
def write_names(names: tuple[str, ...]) -> list[str]:
    """Return the class names of a model as JSON."""
    return [json.dumps(name) for name in names]


SIGNATURE_OUTPUTS = {
    "scores": SignatureOutput("DT_FLOAT", lambda prediction: write_numbers(prediction.scores())),
    "logits": SignatureOutput("DT_FLOAT", lambda prediction: write_numbers(prediction.logits)),
    "classes": SignatureOutput(
        "DT_STRING", lambda prediction: write_names(prediction.model.class_names)
    ),
}


@dataclass(frozen=True)
class Signature:
    """A signature: input in the metadata, outputs, and method name."""

    input: str
    outputs: tuple[str, ...]
    method: str = "tensorflow/serving/predict"


DEFAULT = "serving_default"
SIGNATURES = {
    DEFAULT: Signature("image_bytes", ("scores",)),
    "pixels": Signature("pixels", ("scores",)),
    "logits": Signature("image_bytes", ("logits",)),
    "classify": Signature("image_bytes", ("classes", "scores"), "tensorflow/serving/classify"),
}
DEFAULT_INPUT = SIGNATURES[DEFAULT].input


def describe_signatures(model: Model) -> dict[str, SignatureDef]:
    """Return the signatures of a model by name."""

    def tensor(name: str, dtype: str, shape: Sequence[int]) -> TensorInfo:
        return {
            "dtype": dtype,
            "tensor_shape": {
                "dim": [{"size": str(size), "name": ""} for size in shape],
                "unknown_rank": False,
            },
            "name": f"{name}:0",
        }

    classes = len(model.class_names)
    return {
        name: {
            "inputs": {
                signature.input: tensor(signature.input, *SIGNATURE_INPUTS[signature.input])
            },
            "outputs": {
                output: tensor(output, SIGNATURE_OUTPUTS[output].dtype, (-1, classes))
                for output in signature.outputs
            },
            "method_name": signature.method,
        }
        for name, signature in SIGNATURES.items()
    }


def find_signature(content: dict[str, Any]) -> Signature:
    """Return the signature that a request names, or the default one. Raises MalformedRequest."""
    name = plain(content.get("signature_name", ""))
    if not isinstance(name, str):
        raise MalformedRequest(
            f"JSON Value: {abbreviate(name)} not formatted correctly."
            " 'signature_name' key must be a string value."
        )
    name = name or DEFAULT
    if name not in SIGNATURES:
        raise MalformedRequest(f'Serving signature name: "{cut(name)}" not found in signature def')
    return SIGNATURES[name]


def unpack_rows(content: dict[str, Any], check_count: Callable[[int], None]) -> tuple[str, Any]:
    """Return the input name and the values of a request in row format (``instances``).

    Args:
        content: the request.
        check_count: raises an error for a number of images over the limit; called before any is opened.

    Returns:
        The name, and a list with a value for each image or the text (``Raw``) of nested lists: all pixels together.

    Raises:
        MalformedRequest: the request does not follow the protocol.
    """
    if "inputs" in content:
        raise MalformedRequest(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
        )
    rows = open_list(content["instances"], check_count)
    if is_nested(rows):
        return "pixels", rows
    if not isinstance(rows, list):
        raise MalformedRequest(
            f"Expecting 'instances' to be an list/array; it is {abbreviate(rows)}"
        )
    if not rows:
        raise MalformedRequest("No values in 'instances' array")
    named = is_named(rows[0])
    for index, row in enumerate(rows):
        if is_named(row) != named:
            found, expected = ("value/list", "object") if named else ("object", "value/list")
            raise MalformedRequest(
                f"Expecting {expected} but got {found} at item {index} of input list"
            )
    if not named:
        return guess_input(rows[0]), rows
    tensor = next((name for name in SIGNATURE_INPUTS if name in rows[0]), DEFAULT_INPUT)
    for index, row in enumerate(rows):
        if row.keys() != {tensor}:
            raise MalformedRequest(
                f"Failed to process element: {index} of 'instances' list."
                f" JSON object: {abbreviate(row)} keys must be equal to: {tensor}"
            )
    return tensor, [row[tensor] for row in rows]


def unpack_columns(content: dict[str, Any], check_count: Callable[[int], None]) -> tuple[str, Any]:
    """Return the same for a request in columnar format (``inputs``). Raises MalformedRequest."""
    if "inputs" not in content:
        raise MalformedRequest("Missing 'inputs' or 'instances' key")
    value = open_list(content["inputs"], check_count)
    if is_named(value):
        tensor = next((name for name in SIGNATURE_INPUTS if name in value), "")
        if not tensor:
            raise MalformedRequest(f"Missing named input: {DEFAULT_INPUT} in 'inputs' object.")
        value = open_list(value[tensor], check_count)
    else:
        tensor = guess_input(value[0] if isinstance(value, list) and value else value)
    return tensor, value if isinstance(value, list) or is_nested(value) else [value]


def open_list(value: Any, check_count: Callable[[int], None]) -> Any:
    """Parse a list and each of its elements by one level; nested lists stay text."""
    if is_nested(value):
        return value
    items = opened(value)
    if not isinstance(value, Raw) or not isinstance(items, list):
        return items
    if items:
        check_count(len(items))
    return [item if is_nested(item) else opened(item) for item in items]


def is_named(value: object) -> bool:
    """Check whether a JSON value is an object of named tensors."""
    return isinstance(value, dict) and find_binary(value) is None


def guess_input(value: object) -> str:
    """Return the input of values without a name: nested lists are pixels."""
    return "pixels" if isinstance(value, list) or is_nested(value) else DEFAULT_INPUT


def find_examples(content: dict[str, Any], check_count: Callable[[int], None]) -> list[Any]:
    """Return the image of each of a request's ``examples``; other features are ignored.

    Args:
        content: the request.
        check_count: raises an error for a number of images over the limit; called before any is opened.

    Raises:
        MalformedRequest: the request does not follow the protocol.
    """
    if "examples" not in content:
        raise MalformedRequest(
            "When method is classify, key 'examples' is expected and was not found"
        )
    examples, context = opened(content["examples"]), opened(content.get("context", {}))
    if not isinstance(examples, list):
        raise MalformedRequest("Expecting 'examples' value to be an list/array")
    if not examples:
        raise MalformedRequest("'examples' value is an empty array")
    check_count(len(examples))
    examples = [opened(example) for example in examples]
    for example in [context, *examples]:
        if not isinstance(example, dict):
            raise MalformedRequest(f"Example must be JSON object but got {abbreviate(example)}")
    return [find_image(example, context) for example in examples]


def find_image(example: dict[str, Any], context: dict[str, Any]) -> Any:
    """Return the image of an example; features of the context apply to all examples. Raises MalformedRequest."""
    if both := context.keys() & example.keys():
        raise MalformedRequest(f"Feature: {cut(min(both))} is in the context and in an example")
    value = opened(example.get(DEFAULT_INPUT, context.get(DEFAULT_INPUT)))
    if value is None:
        raise MalformedRequest(f"Feature: {DEFAULT_INPUT} (data type: string) is required")
    if isinstance(value, list) and len(value) == 1:  # a feature is a list, or a single bare value
        return value[0]
    return value


def open_images(tensor: str, values: Any, check_count: Callable[[int], None]) -> list[ImageInput]:
    """Return the images of a request.

    Args:
        tensor: the name of the input.
        values: from ``unpack_rows``: ``{"b64": "…"}`` for each image, or pixels [height][width][3] of integers 0..255.
        check_count: raises an error for a number of images over the limit.

    Raises:
        MalformedRequest: a value has another form.
    """
    if isinstance(values, list):
        check_count(len(values))
    if tensor == "pixels":
        flat, shape = read_pixels(values)
        check_shape(shape)
        check_count(shape[0])
        return [*to_images(flat.reshape(shape))]
    texts = []
    for element in values:
        value = opened(element)
        text = find_binary(value)
        if text is None:
            raise MalformedRequest(
                f"JSON Value: {abbreviate(value)} is not of expected type: string"
                f' (a picture goes as {{"{B64}": "<base64>"}})'
            )
        texts.append(text)
    return [open_base64(text) for text in texts]
