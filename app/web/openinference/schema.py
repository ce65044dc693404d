"""The answers of the Open Inference Protocol's paths, as types; ``/openapi.json`` is drawn from them.

Requests, and answers that are written as text, are described in ``app/web/openapi/openinference.json``.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class OutputTensor(TypedDict):
    """Output tensor.

    Attributes:
        name: Name of the output.
        datatype: FP32, or BYTES for labels (parameter ``classification``).
        shape: [n, classes], or [n, labels].
        data: Elements in row-major order; omitted for binary data.
        parameters: ``binary_data_size``, the size of the binary data in bytes.
    """

    name: str
    datatype: Literal["FP32", "BYTES"]
    shape: list[int]
    data: NotRequired[list[float | str]]
    parameters: NotRequired[dict[str, int]]


class ServerMetadata(TypedDict):
    """Server metadata.

    Attributes:
        name: Always "resnet-serving".
        version: Version of the server.
        extensions: Supported protocol extensions.
    """

    name: str
    version: str
    extensions: list[str]


class ServerLive(TypedDict):
    """Liveness of the server."""

    live: bool


class ServerReady(TypedDict):
    """Readiness of the server."""

    ready: bool


class ModelNames(TypedDict):
    """Names of all models."""

    models: list[str]


class TensorMetadata(TypedDict):
    """Metadata of an input or output tensor.

    Attributes:
        name: Name of the tensor.
        datatype: Datatype of the elements.
        shape: Shape; -1 means any size.
    """

    name: str
    datatype: str
    shape: list[int]


class ModelTensors(TypedDict):
    """Inputs and outputs of a model.

    Attributes:
        name: Name of the model.
        versions: Versions that are ready.
        platform: Framework and engine.
        inputs: Accepted inputs; a request has exactly one of them.
        outputs: Available outputs; a request without ``outputs`` gets all of them.
    """

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(TypedDict):
    """Readiness of a model."""

    name: str
    ready: bool


class IndexEntry(TypedDict):
    """State of a model version.

    Attributes:
        name: Name of the model.
        version: Version number.
        state: State; only a "READY" version answers requests.
        reason: Reason why the version is not ready; empty if it is.
    """

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str
