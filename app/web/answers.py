"""Response types of the native routes: they are encoded as JSON, and ``/openapi.json`` is drawn from them.

Logits and scores are rounded to six decimals, the precision of float32 at this magnitude.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict, cast

from flask import Response
from msgspec import UNSET, Raw, Struct, UnsetType, json

DIGITS = 6


class Labels(TypedDict):
    """Response of ``POST /model_predict``.

    Attributes:
        result: Labels of the image, strongest last; "No Categories" if there are none.
        status: 1 if there are labels, otherwise 0.
    """

    result: list[str] | Literal["No Categories"]
    status: Literal[0, 1]


class LabelHeatMap(Struct):
    """Heat map of a class in an image (Grad-CAM).

    Attributes:
        label: Class name.
        peak: Contribution to the logit of the class that the value 1 in the map stands for.
        map: Rows from top to bottom with values from 0 to 1; the cells cover the part of the image that the network
            sees.
    """

    label: str
    peak: float
    map: list[list[float]]


class Label(Struct, omit_defaults=True):
    """Score of a class for one image.

    Attributes:
        label: Class name.
        score: Score from 0 to 1 (logit after the model's activation).
        logit: Raw output of the network.
        heatmap: Heat map, if requested.
    """

    label: str
    score: float
    logit: float
    heatmap: LabelHeatMap | UnsetType = UNSET


class ImageError(Struct, omit_defaults=True):
    """Error of one image in a request with several.

    Attributes:
        status: HTTP status of the same error in a request with only this image.
        code: Stable machine-readable error code.
        detail: Human-readable explanation.
        retry_after_s: Seconds to wait before the next attempt; omitted if a retry is pointless.
    """

    status: int
    code: str
    detail: str
    retry_after_s: int | UnsetType = UNSET


class ImageTimings(Struct):
    """Time per stage of an image, in ms.

    Attributes:
        decode: Wait for a decode thread, and decoding.
        queue: Wait for the forward pass.
        forward: Forward pass of the whole batch.
    """

    decode: float
    queue: float
    forward: float


class ImageResult(Struct, omit_defaults=True):
    """Result or error of one image.

    Attributes:
        name: File name from the request, the URL, or "image N".
        bytes: File size.
        width: Width in pixels, in the orientation in which the image was classified.
        height: Height in pixels, in the orientation in which the image was classified.
        labels: Labels of the image, strongest first.
        scores: All classes in model order, with ``scores=all``.
        timings_ms: Time per stage.
        batch: Number of images in the same forward pass, including this one; 0 if the answer comes from the answer
            cache.
        error: Error; all other members but ``name`` and ``bytes`` are omitted then.
    """

    name: str
    bytes: int
    width: int | UnsetType = UNSET
    height: int | UnsetType = UNSET
    labels: list[Label] | UnsetType = UNSET
    scores: list[Label] | UnsetType = UNSET
    timings_ms: ImageTimings | UnsetType = UNSET
    batch: int | UnsetType = UNSET
    error: ImageError | UnsetType = UNSET


class ModelName(Struct):
    """Name and version of the model that answered."""

    name: str
    version: int


class RequestTimings(Struct):
    """Time per stage of a request, in ms.

    Attributes:
        upload: First to last byte of the request at the gateway.
        total: First byte of the request until the response is ready.
    """

    upload: float
    total: float


class DrawingTimings(Struct):
    """Time per stage of a heat map request, in ms.

    Attributes:
        upload: First to last byte of the request at the gateway.
        decode: Wait for a decode thread, and decoding.
        queue: Wait for the forward pass.
        forward: Forward pass of the whole batch.
        draw: Drawing of the overlay, and PNG encoding.
        total: First byte of the request until the response is ready.
    """

    upload: float
    decode: float
    queue: float
    forward: float
    draw: float
    total: float


class DrawnHeatMap(Struct):
    """JSON response of ``POST /predict/heatmap``.

    Attributes:
        model: Model that answered.
        label: Class name.
        score: Score from 0 to 1 (logit after the model's activation).
        logit: Raw output of the network.
        peak: Contribution to the logit of the class that the value 1 in the map stands for.
        map: Rows from top to bottom with values from 0 to 1. With ``size=map`` the cells cover the part of the image
            that the network sees; with ``size=picture`` there is a value for each pixel of the overlay.
        overlay: The heat map over the image, PNG in base64.
        timings_ms: Time per stage.
        request_id: Request id, also in the log.
    """

    model: ModelName
    label: str
    score: float
    logit: float
    peak: float
    map: list[list[float]]
    overlay: str
    timings_ms: DrawingTimings
    request_id: str


class Answer(Struct):
    """Response of ``POST /predict``.

    Attributes:
        model: Model that answered.
        images: Results in request order.
        timings_ms: Time per stage.
        request_id: Request id, also in the log.
    """

    model: ModelName
    images: list[ImageResult]
    timings_ms: RequestTimings
    request_id: str


class Problem(Struct, omit_defaults=True):
    """Error response (RFC 9457, application/problem+json).

    Attributes:
        type: Always "about:blank".
        title: HTTP status phrase.
        status: HTTP status.
        detail: Human-readable explanation; names the value and the limit.
        instance: Path of the request.
        code: Stable machine-readable error code.
        request_id: Request id, also in the log.
        images: Error of each image, if ``POST /predict`` has no result for any of them.
        workers: State of each worker, by worker number, if ``GET /readyz`` reports that the server is not ready.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    images: list[ImageResult] | UnsetType = UNSET
    workers: dict[int, str] | UnsetType = UNSET


class DialectProblem(TypedDict):
    """Error response of the ``/v1`` and ``/v2`` protocols.

    Attributes:
        error: Human-readable explanation; names the value and the limit.
    """

    error: str


class Alive(TypedDict):
    """Liveness of the server."""

    status: Literal["alive"]


class Ready(TypedDict):
    """Readiness of the server; with its details for clients that may read models.

    Attributes:
        status: Always "ready".
        model: Default model.
        version: Version of the default model.
        workers: State of each worker, by worker number; for operators only.
        live: Loaded models and versions of each worker, by worker number; for operators only.
    """

    status: Literal["ready"]
    model: NotRequired[str]
    version: NotRequired[int]
    workers: NotRequired[dict[int, str]]
    live: NotRequired[dict[int, dict[str, list[int]]]]


def as_rows(numbers: bytes) -> list[list[float]]:
    """Return encoded rows of numbers, typed as the member that they fill."""
    return cast("list[list[float]]", Raw(numbers))


def as_results(written: list[bytes]) -> list[ImageResult]:
    """Return encoded images, typed as the member that they fill."""
    return cast("list[ImageResult]", [Raw(each) for each in written])


def write_json(content: Any, status: int = 200, mimetype: str = "application/json") -> Response:
    """Return a JSON response; a newline ends it, for terminals."""
    return Response(json.encode(content) + b"\n", status, mimetype=mimetype)
