"""The answers of TensorFlow Serving's and KServe's V1 paths, as types; ``/openapi.json`` is drawn from them.

Requests, and answers that are written as text, are described in ``app/web/openapi/tfserving.json``.
"""

from __future__ import annotations

from typing import Literal, TypedDict


class ModelEntry(TypedDict):
    """A model in OpenAI's list format.

    Attributes:
        id: Name of the model.
        object: Always "model".
    """

    id: str
    object: Literal["model"]


class ModelList(TypedDict):
    """List of all models in the formats of KServe and OpenAI.

    Attributes:
        models: Names of the models (KServe).
        object: Always "list" (OpenAI).
        data: The models (OpenAI).
    """

    models: list[str]
    object: Literal["list"]
    data: list[ModelEntry]


class VersionFault(TypedDict):
    """Error of a version, if any.

    Attributes:
        error_code: "OK" if there is no error.
        error_message: Error message; empty if there is no error.
    """

    error_code: Literal["OK", "FAILED_PRECONDITION"]
    error_message: str


class VersionState(TypedDict):
    """State of a version.

    Attributes:
        version: Version number.
        state: State; only an "AVAILABLE" version answers requests.
        status: Error of the version, if any.
    """

    version: str
    state: Literal["AVAILABLE", "LOADING", "END"]
    status: VersionFault


class ModelStatus(TypedDict):
    """Status of a model: TensorFlow Serving's response plus the keys of KServe and OpenAI.

    Attributes:
        model_version_status: State of each version, highest version first.
        name: Name of the model (KServe).
        ready: True if any version is available (KServe).
        id: Name of the model (OpenAI).
        object: Always "model" (OpenAI).
    """

    model_version_status: list[VersionState]
    name: str
    ready: bool
    id: str
    object: Literal["model"]


class Dimension(TypedDict):
    """Dimension of a tensor; size "-1" means any size."""

    size: str
    name: str


class TensorShape(TypedDict):
    """Shape of a tensor."""

    dim: list[Dimension]
    unknown_rank: bool


class TensorInfo(TypedDict):
    """TensorFlow dtype, shape and name of a tensor."""

    dtype: str
    tensor_shape: TensorShape
    name: str


class SignatureDef(TypedDict):
    """Signature of a model: inputs and outputs by name, and the method."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]
    method_name: str


class SignatureDefMap(TypedDict):
    """Signatures by name."""

    signature_def: dict[str, SignatureDef]


class MetadataMap(TypedDict):
    """Metadata of a model."""

    signature_def: SignatureDefMap


class ModelSpec(TypedDict):
    """Name and version of a model; ``signature_name`` is always empty."""

    name: str
    signature_name: str
    version: str


class ModelMetadata(TypedDict):
    """Inputs and outputs of a model, as TensorFlow signatures."""

    model_spec: ModelSpec
    metadata: MetadataMap
