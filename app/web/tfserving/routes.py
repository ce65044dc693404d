"""TensorFlow Serving's REST API, and KServe's first, on the same paths.

    GET   /v1/models                                    {"models": ["M"], …}
    GET   /v1/models/M[/versions/V|/labels/L]           {"model_version_status": […], "ready": true, …}
    GET   /v1/models/M[/versions/V|/labels/L]/metadata  {"model_spec": …, "metadata": …}
    POST  /v1/models/M[/versions/V|/labels/L]:predict   {"instances": […]} → {"predictions": […]}
                                                        {"inputs": …}      → {"outputs": …}
    POST  /v1/models/M[/versions/V|/labels/L]:classify  {"examples": […]}  → {"results": […]}

Error texts and statuses follow its http_rest_api_util.cc, json_tensor.cc and server_core.cc, because clients may
depend on them. ``app/web/tfserving/signatures.py`` parses the requests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from flask import Blueprint, Response, g, request

from app.errors import MalformedRequest, UnknownModel
from app.serving.image_pool import ImageInput
from app.serving.prediction import Prediction, count_passing
from app.serving.routing import Target
from app.serving.status import VersionStatus
from app.web.access import set_model_headers
from app.web.context import model_server
from app.web.input.bodies import check_rows, process_body, read_body, write_rows
from app.web.input.client import find_model, read_cache_use, routing_key, watch_client
from app.web.input.documents import parse_object
from app.web.limits import MAX_DIGITS
from app.web.quoting import cut
from app.web.static import make_revalidated
from app.web.tfserving.schema import (
    ModelEntry,
    ModelList,
    ModelMetadata,
    ModelStatus,
    VersionState,
)
from app.web.tfserving.signatures import (
    SIGNATURE_OUTPUTS,
    Signature,
    describe_signatures,
    find_examples,
    find_signature,
    open_images,
    unpack_columns,
    unpack_rows,
)

MODEL = r"/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?"
ANY_CASE = re.IGNORECASE | re.ASCII  # digits are 0 to 9
PREDICTION = re.compile(rf"/v1/models{MODEL}:(classify|regress|predict)", ANY_CASE)
STATUS = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?(?:/(metadata))?", ANY_CASE
)
MAX_VERSION = 2**63 - 1

blueprint = Blueprint("tfserving", __name__)


class Address(Target):
    """The target of a path. ``str`` formats it as TensorFlow Serving does."""

    @classmethod
    def from_path(cls, name: str | None, version: str | None, label: str | None) -> Address:
        """Create it from the groups of a path. Raises MalformedRequest if the version has too many digits."""
        if version and (len(version) > MAX_DIGITS or int(version) > MAX_VERSION):
            raise MalformedRequest(f"Failed to convert version: {cut(version)} to numeric.")
        number = int(version) if version else None
        return cls(name or "", number, label or "", routing_key())

    def __str__(self) -> str:
        if self.version is None:
            return f"Latest({self.name})"
        return f"Specific({self.name}, {self.version})"

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Raise the errors of TensorFlow Serving for an unknown model."""
        try:
            yield
        except UnknownModel as error:
            if self.label:
                text = f"Unrecognized servable version label: {self.label}"
                raise MalformedRequest(text) from error
            raise UnknownModel(f"Servable not found for request: {self}") from error


@blueprint.get("/v1/<path:rest>")
@blueprint.get("/V1/<path:rest>")
def read(rest: str) -> Response:
    """Answer the list of models, the status of a model, or its metadata."""
    match = STATUS.fullmatch(request.path)
    if match is None:
        raise MalformedRequest(f"Malformed request: {request.method} {request.path}")
    *target, metadata = match.groups()
    if not any(match.groups()):
        return list_models()
    if match[1] is None:
        raise MalformedRequest("Missing model name in request.")
    found = Address.from_path(*target)
    return show_metadata(found) if metadata else show_status(found)


@blueprint.post("/v1/<path:rest>")
@blueprint.post("/V1/<path:rest>")
def predict(rest: str) -> Response:
    """Answer ``:predict`` and ``:classify``."""
    match = PREDICTION.fullmatch(request.path)
    if match is None:
        raise MalformedRequest(f"Malformed request: {request.method} {request.path}")
    *target, method = match.groups()
    found = Address.from_path(*target)
    with found.translate_errors():
        servable = find_model(found)
    servable.check_capacity()
    body, check_count = read_body(), model_server().check_count
    parsed = process_body(
        body, lambda: read_request(method.lower(), parse_object(body), check_count)
    )
    g.log_fields["pictures"] = len(parsed.images)
    predictions = model_server().predict(
        servable, parsed.images, watch_client(), cache=read_cache_use()
    )
    return (
        answer_rankings(predictions)
        if method.lower() == "classify"
        else answer_outputs(predictions, parsed)
    )


@dataclass(frozen=True)
class PredictRequest:
    """A parsed request: its images, at least one; its signature; and whether it has rows or columns."""

    images: list[ImageInput]
    signature: Signature
    by_row: bool = False


def read_request(
    method: str, content: dict[str, Any], check_count: Callable[[int], None]
) -> PredictRequest:
    """Parse the body of a prediction; on any thread.

    Args:
        method: of the path: ``predict``, ``classify`` or ``regress``.
        content: the body.
        check_count: checks the number of images, before they are decoded.

    Raises:
        MalformedRequest: it does not match the method or the signature.
    """
    signature = find_signature(content)
    if method == "regress":
        raise MalformedRequest(
            "Expected regression signature method_name to be tensorflow/serving/regress."
            f" Was: {signature.method}"
        )
    if method == "classify":
        examples = find_examples(content, check_count)
        return PredictRequest(open_images("image_bytes", examples, check_count), signature)
    by_row = "instances" in content
    tensor, values = (unpack_rows if by_row else unpack_columns)(content, check_count)
    return PredictRequest(open_images(tensor, values, check_count), signature, by_row)


def answer_outputs(predictions: list[Prediction], parsed: PredictRequest) -> Response:
    """Answer ``:predict``: a row for each image if the request had rows, else a column for each output."""
    names = parsed.signature.outputs

    def write() -> str:
        columns = {
            name: [write_list(SIGNATURE_OUTPUTS[name].values(p)) for p in predictions]
            for name in names
        }
        if parsed.by_row:
            rows = [write_outputs(names, row) for row in zip(*columns.values(), strict=True)]
            return f'{{"predictions": {write_list(rows)}}}'
        written = write_outputs(names, [write_list(columns[name]) for name in names])
        return f'{{"outputs": {written}}}'

    return answer(write, predictions, len(names))


def write_outputs(names: Sequence[str], values: Sequence[str]) -> str:
    """Return JSON values as an object by their names; a single one without its name."""
    if len(names) == 1:
        return values[0]
    pairs = [f'"{name}": {value}' for name, value in zip(names, values, strict=True)]
    return f"{{{', '.join(pairs)}}}"


def write_list(elements: Iterable[str]) -> str:
    """Return JSON values as a JSON list."""
    return f"[{', '.join(elements)}]"


def answer_rankings(predictions: list[Prediction]) -> Response:
    """Answer ``:classify``: all labels of each image with their scores, the highest first."""

    def write() -> str:
        return f'{{"results": {write_list(map(write_ranking, predictions))}}}'

    return answer(write, predictions, 2)


def write_ranking(prediction: Prediction) -> str:
    """Return every [label, score] of a prediction as JSON, the highest first."""
    names, scores = (SIGNATURE_OUTPUTS[name].values(prediction) for name in ("classes", "scores"))
    order = np.argsort(-prediction.scores(), kind="stable").tolist()
    return write_list(f"[{names[index]}, {scores[index]}]" for index in order)


def list_models() -> Response:
    """Answer all models, as KServe's V1 protocol and OpenAI's API do; TensorFlow Serving has no such route."""
    names = list(dict.fromkeys(status.name for status in model_server().statuses()))
    data: list[ModelEntry] = [{"id": name, "object": "model"} for name in names]
    models: ModelList = {"models": names, "object": "list", "data": data}
    return show(models)


def show_status(target: Address) -> Response:
    """Answer the status of a model's versions, the highest first, with the keys of KServe and OpenAI."""
    versions: list[VersionState] = [
        {
            "version": str(status.version),
            "state": status.state,
            "status": {
                "error_code": "FAILED_PRECONDITION" if status.problem else "OK",
                "error_message": status.problem,
            },
        }
        for status in reversed(find_statuses(target))
    ]
    ready = any(version["state"] == "AVAILABLE" for version in versions)
    status: ModelStatus = {
        "model_version_status": versions,
        "name": target.name,
        "ready": ready,
        "id": target.name,
        "object": "model",
    }
    return show(status)


def find_statuses(target: Address) -> list[VersionStatus]:
    """Return the statuses of the versions that a path addresses; at least one.

    Raises:
        UnknownModel: there is none.
        NotReady: the versions are not known yet.
    """
    server = model_server()
    version = target.version
    if target.label:
        with target.translate_errors():
            version = server.find(target).model.version
    known = server.statuses(target.name)
    if not known:
        try:
            server.find(Target(target.name))
        except UnknownModel as error:
            text = f"Could not find any versions of model {target.name}"
            raise UnknownModel(text) from error
    found = [status for status in known if version in (None, status.version)]
    if not found:
        raise UnknownModel(f"Could not find version {version} of model {target.name}")
    return found


def show_metadata(target: Address) -> Response:
    """Answer the signatures of a model."""
    with target.translate_errors():
        model = model_server().find(target).model
    metadata: ModelMetadata = {
        "model_spec": {"name": model.name, "signature_name": "", "version": str(model.version)},
        "metadata": {"signature_def": {"signature_def": describe_signatures(model)}},
    }
    return set_model_headers(show(metadata), model)


def show(body: Mapping[str, Any]) -> Response:
    """Return metadata as indented JSON, as TensorFlow Serving does."""
    text = json.dumps(body, indent=1) + "\n"
    return make_revalidated(Response(text, mimetype="application/json"))


def answer(write: Callable[[], str], predictions: list[Prediction], outputs: int) -> Response:
    """Return the response to a prediction; ``outputs`` is the number of values per class."""
    model = predictions[0].model
    rows = len(predictions) * len(model.class_names) * outputs
    check_rows(rows)
    text, g.log_fields["labels"] = write_rows(rows, lambda: (write(), count_passing(predictions)))
    return set_model_headers(Response(text + "\n", mimetype="application/json"), model, predictions)
