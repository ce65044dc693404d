"""What TensorFlow Serving's requests and answers hold for a model of pictures: its signatures, inputs and outputs.

Every signature takes either input; its own is the one that the metadata show. An answer has the
signature's outputs: bare values where it is one, by name where they are several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.errors import MalformedRequest
from app.prediction import Prediction
from app.servable import Model
from app.studio import Picture
from app.web.bodies import abbreviate
from app.web.tensors import (
    B64,
    as_decimals,
    check_shape,
    is_binary,
    open_base64,
    read_numbers,
    to_pictures,
    unnest,
)
from app.web.tfserving_types import SignatureDef, TensorInfo

INPUTS: dict[str, tuple[str, tuple[int, ...]]] = {
    "image_bytes": ("DT_STRING", (-1,)),
    "pixels": ("DT_UINT8", (-1, -1, -1, 3)),
}


@dataclass(frozen=True)
class Output:
    """An output tensor: its type, and its values for n predictions, each with one for every class."""

    dtype: str
    values: Callable[[Sequence[Prediction]], list[Any]]


OUTPUTS = {
    "scores": Output("DT_FLOAT", lambda all_: as_decimals(np.stack([p.scores() for p in all_]))),
    "logits": Output("DT_FLOAT", lambda all_: as_decimals(np.stack([p.logits for p in all_]))),
    "classes": Output("DT_STRING", lambda all_: [list(p.model.class_names) for p in all_]),
}


@dataclass(frozen=True)
class Signature:
    """A way to call the model."""

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
    """Return the signatures as a SignatureDefMap in JSON."""

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
            "inputs": {signature.input: tensor(signature.input, *INPUTS[signature.input])},
            "outputs": {
                output: tensor(output, OUTPUTS[output].dtype, (-1, classes))
                for output in signature.outputs
            },
            "method_name": signature.method,
        }
        for name, signature in SIGNATURES.items()
    }


def find_signature(content: dict[str, Any]) -> Signature:
    """Return the signature that a request names, or the default one. Raises MalformedRequest for any other."""
    name = content.get("signature_name", "")
    if not isinstance(name, str):
        raise MalformedRequest(
            f"JSON Value: {abbreviate(name)} not formatted correctly."
            " 'signature_name' key must be a string value."
        )
    name = name or DEFAULT
    if name not in SIGNATURES:
        raise MalformedRequest(f'Serving signature name: "{name}" not found in signature def')
    return SIGNATURES[name]


def unpack_rows(content: dict[str, Any]) -> tuple[str, list[Any]]:
    """Return the name of the input and its value for each picture, of a request with ``instances``.

    Raises:
        MalformedRequest: it is not formed as it should be.
    """
    rows = content["instances"]
    if "inputs" in content:
        raise MalformedRequest(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
        )
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
    tensor = next((name for name in INPUTS if name in rows[0]), DEFAULT_INPUT)
    for index, row in enumerate(rows):
        if row.keys() != {tensor}:
            raise MalformedRequest(
                f"Failed to process element: {index} of 'instances' list."
                f" JSON object: {abbreviate(row)} keys must be equal to: {tensor}"
            )
    return tensor, [row[tensor] for row in rows]


def unpack_columns(content: dict[str, Any]) -> tuple[str, list[Any]]:
    """Return the same of a request with ``inputs``. Raises as ``unpack_rows``."""
    if "inputs" not in content:
        raise MalformedRequest("Missing 'inputs' or 'instances' key")
    value = content["inputs"]
    if is_named(value):
        tensor = next((name for name in INPUTS if name in value), "")
        if not tensor:
            raise MalformedRequest(f"Missing named input: {DEFAULT_INPUT} in 'inputs' object.")
        value = value[tensor]
    else:
        tensor = guess_input(value[0] if isinstance(value, list) and value else value)
    return tensor, value if isinstance(value, list) else [value]


def is_named(value: object) -> bool:
    """Tell whether a JSON value is an object of named tensors."""
    return isinstance(value, dict) and not is_binary(value)


def guess_input(value: object) -> str:
    """Return which input is meant where the request names none: nested lists are pixels."""
    return "pixels" if isinstance(value, list) else DEFAULT_INPUT


def find_examples(content: dict[str, Any]) -> list[Any]:
    """Return the picture of each of a request's ``examples``; other features are let be, as a parsed Example's are.

    Raises:
        MalformedRequest: they are not formed as they should be.
    """
    examples, context = content.get("examples"), content.get("context", {})
    if "examples" not in content:
        raise MalformedRequest(
            "When method is classify, key 'examples' is expected and was not found"
        )
    if not isinstance(examples, list):
        raise MalformedRequest("Expecting 'examples' value to be an list/array")
    if not examples:
        raise MalformedRequest("'examples' value is an empty array")
    found = []
    for example in [context, *examples]:
        if not isinstance(example, dict):
            raise MalformedRequest(f"Example must be JSON object but got {abbreviate(example)}")
    for example in examples:
        if both := context.keys() & example.keys():
            raise MalformedRequest(f"Feature: {min(both)} is in the context and in an example")
        value = (context | example).get(DEFAULT_INPUT)
        if value is None:
            raise MalformedRequest(f"Feature: {DEFAULT_INPUT} (data type: string) is required")
        alone = (
            isinstance(value, list) and len(value) == 1
        )  # a feature is a list; one value may go bare
        found.append(value[0] if alone else value)
    return found


def open_pictures(tensor: str, values: list[Any]) -> list[Picture]:
    """Return the pictures of a request.

    Args:
        tensor: the name of the input.
        values: one for each picture: ``{"b64": "…"}``, or pixels as [height][width][3] whole numbers 0..255.

    Raises:
        MalformedRequest: a value is something else.
    """
    if tensor == "pixels":
        flat, shape = unnest(values)
        check_shape(shape)
        return [*to_pictures(read_numbers(flat, shape))]
    for value in values:
        if not is_binary(value):
            raise MalformedRequest(
                f"JSON Value: {abbreviate(value)} is not of expected type: string"
                f' (a picture goes as {{"{B64}": "<base64>"}})'
            )
    return [open_base64(value[B64]) for value in values]
