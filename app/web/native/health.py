"""Liveness and readiness probes, and ``GET /health`` for monitoring scripts."""

from __future__ import annotations

from typing import Literal

from flask import Blueprint, Response, jsonify, request
from msgspec import UNSET, Struct, UnsetType

from app import __version__
from app.errors import NotReady
from app.web import keys
from app.web.answers import Alive, Ready, write_json
from app.web.context import model_server
from app.web.problems import answer_serving_error

NAME = "resnet-serving"
STRANGER = "X-Serving-Stranger"  # set by nginx for clients that are not in SERVING_METRICS_FROM
API_VERSIONS = ("native", "v1", "v2")
# State of a version in TensorFlow Serving's terms → ours.
STATES: dict[str, Literal["ready", "loading", "failed"]] = {
    "AVAILABLE": "ready",
    "LOADING": "loading",
    "END": "failed",
}

blueprint = Blueprint("health", __name__)


class VersionHealth(Struct, omit_defaults=True):
    """State of a version.

    Attributes:
        version: Version number.
        state: State of the version in the worker that answered.
        reason: Reason of a failure.
    """

    version: int
    state: Literal["ready", "loading", "failed"]
    reason: str | UnsetType = UNSET


class ModelHealth(Struct):
    """State of a model.

    Attributes:
        name: Name of the model.
        versions: Known versions in rising order.
    """

    name: str
    versions: list[VersionHealth]


class Health(Struct):
    """Response of ``GET /health``.

    Attributes:
        status: State of the worker that answered: `loading`, `ready`, `failed` or `draining`.
        name: Always "resnet-serving".
        version: Version of the server.
        api_versions: Supported APIs: the native one, `v1` (TensorFlow Serving, KServe V1) and `v2` (Open Inference
            Protocol).
        models: Models with the states of their versions.
    """

    status: str
    name: str
    version: str
    api_versions: tuple[str, ...]
    models: list[ModelHealth]


@blueprint.get("/health")
def health() -> Response:
    """Returns name and version of the server, and the state of every model; 200 while the process is running."""
    server = model_server()
    models: dict[str, ModelHealth] = {}
    for each in server.statuses():
        state = VersionHealth(each.version, STATES[each.state], each.problem or UNSET)
        models.setdefault(each.name, ModelHealth(each.name, [])).versions.append(state)
    status = server.state.name.lower()
    return write_json(Health(status, NAME, __version__, API_VERSIONS, [*models.values()]))


@blueprint.get("/healthz")
@blueprint.get("/healthcheck")  # the path of older clients
def healthz() -> Response:
    """Returns 200 while the process is running, with or without a model."""
    return jsonify(Alive(status="alive"))


@blueprint.get("/readyz")
def readyz() -> Response:
    """Returns 200 if the default model is loaded and warmed up and the worker accepts requests, otherwise 503.

    The model is told to clients that may read models, the workers to operators and to API keys that may.
    """
    server = model_server()
    in_full = STRANGER not in request.headers or keys.holds("read")
    try:
        model = server.find().model
    except NotReady as error:
        return answer_serving_error(error, workers=server.workers.states() if in_full else UNSET)
    ready = Ready(status="ready")
    if in_full or keys.allows("read"):
        ready |= {"model": model.name, "version": model.version}
    if in_full:
        ready |= {"workers": server.workers.states(), "live": server.workers.live()}
    return jsonify(ready)
