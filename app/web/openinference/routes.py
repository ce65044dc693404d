"""The Open Inference Protocol, version 2: KServe V2, Triton, MLServer. ``tensors.py`` reads the requests.

Texts and statuses are those of KServe where it has them, else Triton's (http_server.cc), so that
tritonclient and the servers' own probes find what they look for.
"""

from __future__ import annotations

from typing import Literal

from flask import Blueprint, Response, g, jsonify, request

from app import __version__
from app.errors import MalformedRequest, NotReady, UnknownModel
from app.serving.model import Model
from app.serving.routing import Target
from app.web.access import set_model_headers
from app.web.context import model_server
from app.web.input.bodies import process_body, read_body
from app.web.input.client import find_model, read_cache_use, routing_key, watch_client
from app.web.input.documents import parse_object, plain
from app.web.openinference.outputs import HEADER_LENGTH, OUTPUT_VALUES, encode_response
from app.web.openinference.schema import (
    IndexEntry,
    ModelNames,
    ModelReady,
    ModelTensors,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
)
from app.web.openinference.tensors import INPUT_TENSORS, read_inference
from app.web.problems import answer_serving_error
from app.web.static import make_revalidated

EXTENSIONS = ["binary_tensor_data", "classification", "model_repository"]
# Triton's names.
STATES: dict[str, Literal["READY", "LOADING", "UNAVAILABLE"]] = {
    "AVAILABLE": "READY",
    "LOADING": "LOADING",
    "END": "UNAVAILABLE",
}

blueprint = Blueprint("openinference", __name__, url_prefix="/v2")


@blueprint.errorhandler(UnknownModel)
def answer_unknown_model(error: UnknownModel) -> Response:
    """Answer an unknown model in the words of KServe."""
    named = request.view_args or {}
    if "name" not in named:
        return answer_serving_error(error)
    version = f" and version {named['version']}" if "version" in named else ""
    text = f"Model with name {named['name']}{version} does not exist."
    return answer_serving_error(UnknownModel(text))


@blueprint.get("", strict_slashes=False)
def server_metadata() -> Response:
    """Answer the name, version and extensions of the server."""
    metadata = ServerMetadata(name="resnet-serving", version=__version__, extensions=EXTENSIONS)
    return make_revalidated(jsonify(metadata))


@blueprint.get("/health/live")
def live() -> Response:
    """Alive: the process answers."""
    return jsonify(ServerLive(live=True))


@blueprint.get("/health/ready")
def ready() -> Response:
    """Ready: a model answers; otherwise 503."""
    model_server().find()
    return jsonify(ServerReady(ready=True))


@blueprint.get("/models")
def models() -> Response:
    """List the models, as KServe does."""
    statuses = model_server().statuses()
    names = list(dict.fromkeys(status.name for status in statuses))
    return make_revalidated(jsonify(ModelNames(models=names)))


@blueprint.get("/models/<name>")
@blueprint.get("/models/<name>/versions/<int:version>")
def model_metadata(name: str, version: int | None = None) -> Response:
    """Answer the inputs and outputs of a model."""
    server = model_server()
    model = server.find(Target(name, version)).model
    live = [str(each.version) for each in server.statuses(name) if each.state == "AVAILABLE"]
    outputs = [describe(output, "FP32", [-1, len(model.class_names)]) for output in OUTPUT_VALUES]
    metadata = ModelTensors(
        name=model.name,
        versions=live,
        platform=f"pytorch_{model.choice.engine}",
        inputs=[describe(name, types[0], shape) for name, (types, shape) in INPUT_TENSORS.items()],
        outputs=outputs,
    )
    return set_model_headers(make_revalidated(jsonify(metadata)), model)


def describe(name: str, datatype: str, shape: list[int]) -> TensorMetadata:
    """Return a tensor's metadata."""
    return {"name": name, "datatype": datatype, "shape": shape}


@blueprint.get("/models/<name>/ready")
@blueprint.get("/models/<name>/versions/<int:version>/ready")
def model_ready(name: str, version: int | None = None) -> Response:
    """Ready: the model answers; otherwise 503, as KServe does."""
    try:
        model: Model = model_server().find(Target(name, version)).model
    except NotReady as error:
        raise NotReady(f"Model with name {name} is not ready.") from error
    return set_model_headers(jsonify(ModelReady(name=name, ready=True)), model)


@blueprint.post("/models/<name>/infer")
@blueprint.post("/models/<name>/versions/<int:version>/infer")
def infer(name: str, version: int | None = None) -> Response:
    """Answer an inference request."""
    server = model_server()
    servable = find_model(Target(name, version, sticky=routing_key()))
    servable.check_capacity()
    body, header_length = read_body(), request.headers.get(HEADER_LENGTH)
    parsed = process_body(body, lambda: read_inference(body, header_length, server.check_count))
    g.log_fields["pictures"] = len(parsed.images)
    predictions = server.predict(servable, parsed.images, watch_client(), cache=read_cache_use())
    response = encode_response(predictions, parsed.outputs, parsed.id)
    return set_model_headers(response, predictions[0].model, predictions)


@blueprint.post("/repository/index")
def repository_index() -> Response:
    """Answer the state of every version of every model; with ``ready``, of the live ones only."""
    body = read_body()
    given = process_body(body, lambda: parse_object(body)) if body else {}
    only_ready = plain(given.get("ready", False))
    if not isinstance(only_ready, bool):
        raise MalformedRequest("'ready' must be true or false")
    rows: list[IndexEntry] = [
        {
            "name": status.name,
            "version": str(status.version),
            "state": STATES[status.state],
            "reason": status.problem,
        }
        for status in model_server().statuses()
    ]
    return jsonify([row for row in rows if row["state"] == "READY" or not only_ready])


@blueprint.post("/repository/models/<name>/<any(load, unload):action>")
def control(name: str, action: str) -> Response:
    """Refuse to load or unload models: only the operator may."""
    raise MalformedRequest(
        f"to {action} {name} by request is not allowed; what lies in the models folder is served"
    )
