"""What TensorFlow Serving's and KServe's V1 paths take and answer, as types: ``/openapi.json`` is drawn from them.

What is taken is written down here but read by ``web/signatures.py``, which words its errors as the
original does.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from msgspec import UNSET, Meta, Struct, UnsetType

from app.web.input.tensors import Base64

Level = Annotated[int, Meta(ge=0, le=255)]
SignatureName = Literal["", "serving_default", "pixels", "logits", "classify"]
Pixels = Annotated[
    list[list[Annotated[list[Level], Meta(min_length=3, max_length=3)]]],
    Meta(description="RGB, [height][width][3], whole numbers from 0 to 255"),
]
NotEmpty = Meta(min_length=1)


class Binary(Struct, forbid_unknown_fields=True):
    """Binary data in JSON.

    Attributes:
        b64: a picture's file in base64, of either alphabet, padded or not.
    """

    b64: Base64


class NamedPicture(Struct, forbid_unknown_fields=True):
    """A picture under the name of the input: one of the two.

    Attributes:
        image_bytes: its file.
        pixels: its pixels.
    """

    image_bytes: Binary | UnsetType = UNSET
    pixels: Pixels | UnsetType = UNSET


class NamedFiles(Struct):
    """Files under the name of the input.

    Attributes:
        image_bytes: the files; a lone one may go without a list.
    """

    image_bytes: Binary | Annotated[list[Binary], NotEmpty]


class NamedPixels(Struct):
    """Pixels under the name of the input.

    Attributes:
        pixels: of each picture, all of one size.
    """

    pixels: Annotated[list[Pixels], NotEmpty]


class Signed(Struct, kw_only=True):
    """What every prediction may say.

    Attributes:
        signature_name: which of the model's signatures shall answer; the metadata list them.
    """

    signature_name: SignatureName = ""


class FileRows(Signed):
    """Pictures as rows: files.

    Attributes:
        instances: a file for each.
    """

    instances: Annotated[list[Binary], NotEmpty]


class NamedRows(Signed):
    """Pictures as rows: files or pixels, under the name of the input.

    Attributes:
        instances: all under the same name.
    """

    instances: Annotated[list[NamedPicture], NotEmpty]


class PixelRows(Signed):
    """Pictures as rows: pixels.

    Attributes:
        instances: all of one size.
    """

    instances: Annotated[list[Pixels], NotEmpty]


class FileColumns(Signed):
    """Pictures as a column: files, under the name of the input or not.

    Attributes:
        inputs: the files.
    """

    inputs: NamedFiles | Annotated[list[Binary], NotEmpty]


class LoneFile(Signed):
    """One picture as a column: a file.

    Attributes:
        inputs: the file.
    """

    inputs: Binary


class PixelColumns(Signed):
    """Pictures as a column: pixels, under the name of the input or not.

    Attributes:
        inputs: of each picture, all of one size.
    """

    inputs: NamedPixels | Annotated[list[Pixels], NotEmpty]


class Example(Struct):
    """A picture as a TensorFlow Example; features of other names are let be.

    Attributes:
        image_bytes: its file; a list of one is taken too.
    """

    image_bytes: Binary | Annotated[list[Binary], Meta(min_length=1, max_length=1)]


class Examples(Signed):
    """Pictures to classify.

    Attributes:
        examples: one for each.
    """

    examples: Annotated[list[Example], NotEmpty]


class ClassesAndScores(TypedDict):
    """What the signature ``classify`` predicts for a picture.

    Attributes:
        classes: every class, in the model's order.
        scores: theirs, 0..1.
    """

    classes: list[str]
    scores: list[float]


class ClassesAndScoresOfAll(TypedDict):
    """The same for all pictures, as columns.

    Attributes:
        classes: of each picture.
        scores: of each picture.
    """

    classes: list[list[str]]
    scores: list[list[float]]


class Predictions(TypedDict):
    """What ``:predict`` answers to rows.

    Attributes:
        predictions: for each picture its scores (or logits) in the order of the classes; both by their
            names where the signature has both.
    """

    predictions: list[list[float] | ClassesAndScores]


class Outputs(TypedDict):
    """What ``:predict`` answers to columns.

    Attributes:
        outputs: for each picture its scores (or logits) in the order of the classes; both by their
            names where the signature has both.
    """

    outputs: list[list[float]] | ClassesAndScoresOfAll


class Classifications(TypedDict):
    """What ``:classify`` answers.

    Attributes:
        results: for each picture every [label, score], the highest first.
    """

    results: list[list[Annotated[list[str | float], Meta(min_length=2, max_length=2)]]]


class ModelEntry(TypedDict):
    """A model, as OpenAI lists them.

    Attributes:
        id: its name.
        object: always "model".
    """

    id: str
    object: Literal["model"]


class ModelList(TypedDict):
    """All models, as KServe and OpenAI list them.

    Attributes:
        models: their names.
        object: always "list".
        data: the same, as OpenAI has it.
    """

    models: list[str]
    object: Literal["list"]
    data: list[ModelEntry]


class VersionFault(TypedDict):
    """Why a version does not answer.

    Attributes:
        error_code: whether there is a reason.
        error_message: the reason, or empty.
    """

    error_code: Literal["OK", "FAILED_PRECONDITION"]
    error_message: str


class VersionState(TypedDict):
    """How a version stands.

    Attributes:
        version: its number.
        state: whether it answers.
        status: why it does not.
    """

    version: str
    state: Literal["AVAILABLE", "LOADING", "END"]
    status: VersionFault


class ModelStatus(TypedDict):
    """How a model stands: TensorFlow Serving's answer, with KServe's and OpenAI's keys beside it.

    Attributes:
        model_version_status: its versions, the highest first.
        name: the model's.
        ready: whether any of the versions answers.
        id: the model's name.
        object: always "model".
    """

    model_version_status: list[VersionState]
    name: str
    ready: bool
    id: str
    object: Literal["model"]


class Dimension(TypedDict):
    """A dimension of a tensor; of any size where it is "-1"."""

    size: str
    name: str


class TensorShape(TypedDict):
    """A tensor's shape."""

    dim: list[Dimension]
    unknown_rank: bool


class TensorInfo(TypedDict):
    """A tensor, with TensorFlow's names for its type and for itself."""

    dtype: str
    tensor_shape: TensorShape
    name: str


class SignatureDef(TypedDict):
    """A way to call the model: its inputs and outputs by their names, and what it is for."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]
    method_name: str


class SignatureDefMap(TypedDict):
    """All ways to call the model, by their names."""

    signature_def: dict[str, SignatureDef]


class MetadataMap(TypedDict):
    """All metadata that there are: the signatures."""

    signature_def: SignatureDefMap


class ModelSpec(TypedDict):
    """Which model and version it is about; the name of a signature is always empty."""

    name: str
    signature_name: str
    version: str


class ModelMetadata(TypedDict):
    """What a model takes and gives."""

    model_spec: ModelSpec
    metadata: MetadataMap
