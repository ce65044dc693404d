"""What the Open Inference Protocol's paths take and answer, as types: ``/openapi.json`` is drawn from them.

What is taken is written down here but read by ``web/inference.py``, which words its errors as Triton does.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import UNSET, Meta, Struct, UnsetType

from app.web.input.tensors import Base64

Size = Annotated[int, Meta(ge=0)]
Pixel = Annotated[float, Meta(ge=0, le=255)]


class InputParameters(Struct):
    """What may be said of an input.

    Attributes:
        binary_data_size: how many bytes it has behind the JSON.
    """

    binary_data_size: Size | UnsetType = UNSET


class ImageInput(Struct):
    """Pictures as files.

    Attributes:
        name: the input's name.
        datatype: of its elements.
        shape: how many, as [n] or [n, 1].
        data: the files in base64; left out where they follow the JSON.
        parameters: where the data are.
    """

    name: Literal["image"]
    datatype: Literal["BYTES"]
    shape: Annotated[list[Size], Meta(min_length=1, max_length=2)]
    data: list[Base64] | UnsetType = UNSET
    parameters: InputParameters | UnsetType = UNSET


class PixelsInput(Struct):
    """Pictures as pixels, whole numbers from 0 to 255, all of one size.

    Attributes:
        name: the input's name.
        datatype: of its elements.
        shape: [n, height, width, 3].
        data: the pixels, flat or nested as ``shape`` says; left out where they follow the JSON.
        parameters: where the data are.
    """

    name: Literal["pixels"]
    datatype: Literal["UINT8", "FP32"]
    shape: Annotated[list[Size], Meta(min_length=4, max_length=4)]
    data: list[Pixel | list[Any]] | UnsetType = UNSET
    parameters: InputParameters | UnsetType = UNSET


class OutputParameters(Struct):
    """What may be asked of an output.

    Attributes:
        classification: so many of the highest values with their labels, as "0.731059:1:Dog"; 0: all values.
        binary_data: whether it shall follow the JSON as bytes.
    """

    classification: Size = 0
    binary_data: bool | UnsetType = UNSET


class AskedOutput(Struct):
    """An output that is asked for.

    Attributes:
        name: the output's name.
        parameters: how it shall come.
    """

    name: Literal["scores", "logits"]
    parameters: OutputParameters | UnsetType = UNSET


class RequestParameters(Struct):
    """What may be asked of all outputs.

    Attributes:
        binary_data_output: whether they shall follow the JSON as bytes.
    """

    binary_data_output: bool = False


class Inferred(Struct, kw_only=True):
    """What any inference request may say.

    Attributes:
        id: comes back with the answer.
        outputs: those that are asked for; all where there are none.
        parameters: how they shall come.
    """

    id: str | UnsetType = UNSET
    outputs: list[AskedOutput] | UnsetType = UNSET
    parameters: RequestParameters | UnsetType = UNSET


class ImageInference(Inferred):
    """Pictures as files, to be answered.

    Attributes:
        inputs: the input.
    """

    inputs: Annotated[list[ImageInput], Meta(min_length=1, max_length=1)]


class PixelsInference(Inferred):
    """Pictures as pixels, to be answered.

    Attributes:
        inputs: the input.
    """

    inputs: Annotated[list[PixelsInput], Meta(min_length=1, max_length=1)]


class OutputTensor(TypedDict):
    """An output.

    Attributes:
        name: its name.
        datatype: FP32; BYTES where labels were asked for.
        shape: (n, classes), or as many labels as were asked for.
        data: its elements, row-major; missing where they follow the JSON.
        parameters: how many bytes follow, as ``binary_data_size``.
    """

    name: str
    datatype: Literal["FP32", "BYTES"]
    shape: list[int]
    data: NotRequired[list[float | str]]
    parameters: NotRequired[dict[str, int]]


class InferenceAnswer(TypedDict):
    """What ``infer`` answers.

    Attributes:
        model_name: who has answered.
        model_version: its number.
        id: as the request had it.
        outputs: as they were asked for.
    """

    model_name: str
    model_version: str
    id: NotRequired[str]
    outputs: list[OutputTensor]


class ServerMetadata(TypedDict):
    """What this server is.

    Attributes:
        name: always "resnet-serving".
        version: its release.
        extensions: of the protocol that it speaks.
    """

    name: str
    version: str
    extensions: list[str]


class ServerLive(TypedDict):
    """The process answers."""

    live: bool


class ServerReady(TypedDict):
    """A model answers."""

    ready: bool


class ModelNames(TypedDict):
    """The names of the models."""

    models: list[str]


class TensorMetadata(TypedDict):
    """An input or an output.

    Attributes:
        name: its name.
        datatype: of its elements.
        shape: of any size where it is -1.
    """

    name: str
    datatype: str
    shape: list[int]


class ModelTensors(TypedDict):
    """What a model takes and gives.

    Attributes:
        name: its name.
        versions: those that answer.
        platform: what it runs in.
        inputs: a request has one of them.
        outputs: a request gets all that it does not choose from.
    """

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(TypedDict):
    """A model answers."""

    name: str
    ready: bool


class IndexRequest(Struct):
    """Which versions to list.

    Attributes:
        ready: only those that answer.
    """

    ready: bool = False


class IndexEntry(TypedDict):
    """How a version of a model stands.

    Attributes:
        name: the model's.
        version: its number.
        state: whether it answers.
        reason: why it does not.
    """

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str
