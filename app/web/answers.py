"""What the native routes answer, as types: they write the JSON, and ``/openapi.json`` is drawn from them.

Logits and scores have six digits after the point: float32 has no more to say about numbers of this size.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict, cast

from flask import Response
from msgspec import UNSET, Raw, Struct, UnsetType, json

DIGITS = 6


class Labels(TypedDict):
    """What ``POST /model_predict`` answers.

    Attributes:
        result: the classes that pass, the strongest last; or that there are none.
        status: 1 where a class passes, else 0.
    """

    result: list[str] | Literal["No Categories"]
    status: Literal[0, 1]


class HeatMap(Struct):
    """Where the network saw a class in a picture (Grad-CAM).

    Attributes:
        label: the class's name.
        peak: what 1 stands for in the map: what that cell adds to the class's logit.
        map: rows of numbers in 0..1, top and left first; the cells lie over what the network saw of the picture.
    """

    label: str
    peak: float
    map: list[list[float]]


class Label(Struct, omit_defaults=True):
    """A class of the model, and what the network says of it for one picture.

    Attributes:
        label: the class's name.
        score: 0..1, by the model's activation.
        logit: the network's raw output.
        heatmap: where it was seen, where that was asked for.
    """

    label: str
    score: float
    logit: float
    heatmap: HeatMap | UnsetType = UNSET


class Fault(Struct, omit_defaults=True):
    """Why one picture among others has no answer.

    Attributes:
        status: what the HTTP status would be, were it alone.
        code: stable machine-readable name.
        detail: a sentence for a person.
        retry_after_s: where trying again makes sense, after how many seconds.
    """

    status: int
    code: str
    detail: str
    retry_after_s: int | UnsetType = UNSET


class PictureTimings(Struct):
    """Where a picture's time went, in ms.

    Attributes:
        decode: waiting for a decode thread, and decoding.
        queue: waiting for the forward to begin.
        forward: the forward, for its whole batch.
    """

    decode: float
    queue: float
    forward: float


class Picture(Struct, omit_defaults=True):
    """One picture's answer, or its error.

    Attributes:
        name: the file's name as it was sent, the URL, or "image N".
        bytes: size of the file.
        width: px, as the file has it.
        height: px, as the file has it.
        labels: the classes that pass, the strongest first.
        scores: every class in the model's order, where ``scores=all`` asks for it.
        timings_ms: where the time went.
        batch: pictures that shared the forward, this one included.
        error: why there is no answer; all of the above but ``name`` and ``bytes`` are left out then.
    """

    name: str
    bytes: int
    width: int | UnsetType = UNSET
    height: int | UnsetType = UNSET
    labels: list[Label] | UnsetType = UNSET
    scores: list[Label] | UnsetType = UNSET
    timings_ms: PictureTimings | UnsetType = UNSET
    batch: int | UnsetType = UNSET
    error: Fault | UnsetType = UNSET


class ModelName(Struct):
    """Which model and version has answered."""

    name: str
    version: int


class RequestTimings(Struct):
    """Where a request's time went, in ms.

    Attributes:
        upload: from its first byte to its last, at the gateway.
        total: from its first byte until the answer was ready.
    """

    upload: float
    total: float


class DrawingTimings(Struct):
    """Where the time of a drawn heat map went, in ms.

    Attributes:
        upload: as of every request.
        decode: as of every picture.
        queue: likewise.
        forward: likewise.
        draw: laying the map over the picture, and writing the PNG.
        total: as of every request.
    """

    upload: float
    decode: float
    queue: float
    forward: float
    draw: float
    total: float


class DrawnHeatMap(Struct):
    """What ``POST /predict/heatmap`` answers in JSON.

    Attributes:
        model: who has answered.
        label: the class's name.
        score: 0..1, by the model's activation.
        logit: the network's raw output.
        peak: what 1 stands for in the map: what that cell adds to the class's logit.
        map: rows of numbers in 0..1, top and left first: the cells, which lie over what the network saw
            of the picture; with ``size=picture`` the pixels of the drawing.
        overlay: the drawing, a PNG in base64.
        timings_ms: where the time went.
        request_id: the log has it too.
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
    """What ``POST /predict`` answers: the pictures in the order in which they were sent."""

    model: ModelName
    images: list[Picture]
    timings_ms: RequestTimings
    request_id: str


class Problem(Struct, omit_defaults=True):
    """An error (RFC 9457, application/problem+json).

    Attributes:
        type: always "about:blank".
        title: the status in words.
        status: the HTTP status.
        detail: a sentence for a person; it names the value and the limit.
        instance: the path.
        code: stable machine-readable name.
        request_id: the log has it too.
        images: where ``POST /predict`` has an answer to none of its pictures: the error of each.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    images: list[Picture] | UnsetType = UNSET


class DialectProblem(TypedDict):
    """An error as the clients of other servers know it.

    Attributes:
        error: a sentence for a person; it names the value and the limit.
    """

    error: str


class Alive(TypedDict):
    """The process answers."""

    status: Literal["alive"]


class Ready(TypedDict):
    """A model answers.

    Attributes:
        status: always "ready".
        model: the one that answers requests that name none.
        version: its version.
        workers: what each worker is doing, by its number.
        live: which versions of which models answer in each worker.
    """

    status: Literal["ready"]
    model: str
    version: int
    workers: dict[int, str]
    live: dict[int, dict[str, list[int]]]


def as_rows(numbers: bytes) -> list[list[float]]:
    """Return rows of numbers that are JSON already, for a place in an answer."""
    return cast("list[list[float]]", Raw(numbers))


def as_pictures(written: list[bytes]) -> list[Picture]:
    """Return pictures that are JSON already, for a place in an answer."""
    return cast("list[Picture]", [Raw(each) for each in written])


def write_json(content: Any, status: int = 200, mimetype: str = "application/json") -> Response:
    """Return an answer as JSON, with a line's end for terminals."""
    return Response(json.encode(content) + b"\n", status, mimetype=mimetype)
