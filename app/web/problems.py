"""Error responses: RFC 9457 ``application/problem+json``, in the form that nginx uses too.

{"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "image is empty: 0 bytes",
 "instance": "/model_predict", "code": "unreadable_image", "request_id": "5d0c…"}

Paths of another server's dialect have the error format and the statuses of that server:

{"error": "Servable not found for request: Latest(half)"}
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from http import HTTPStatus

from flask import Flask, Response, g, request
from msgspec import UNSET, UnsetType, json
from msgspec.structs import replace
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from app.errors import BodyTooLarge, InternalError, ServingError, Unauthorized, UnreadableImage
from app.logs import request_id
from app.web.answers import DialectProblem, ImageResult, Problem, write_json
from app.web.limits import (
    MAX_DETAIL,
    MAX_DETAIL_BYTES,
    MAX_ECHO,
    MAX_ERROR_BYTES,
    MAX_INSTANCE_BYTES,
)
from app.web.quoting import cut, cut_json

# First path segment of each dialect, and the statuses that its clients expect instead of ours.
DIALECTS: dict[str, dict[int, int]] = {
    "v1": {413: 400, 415: 400},  # TensorFlow Serving, ToHTTPStatusCode
    "v2": {413: 400, 415: 400, 429: 503, 499: 400, 504: 503},  # Triton, HttpCodeFromError
}

# Where Python's phrase is missing or out of date; conf/nginx.conf has the same titles.
TITLES = {413: "Content Too Large", 414: "URI Too Long", 499: "Client Closed Request"}

logger = logging.getLogger(__name__)


def register(app: Flask) -> None:
    """Register the error handlers."""
    app.register_error_handler(ServingError, answer_serving_error)
    app.register_error_handler(HTTPException, answer_http_exception)
    app.register_error_handler(Exception, answer_anything)


def problem(
    status: int,
    code: str,
    detail: str,
    images: list[ImageResult] | UnsetType = UNSET,
    workers: dict[int, str] | UnsetType = UNSET,
) -> Response:
    """Return an error response in the format of the path's dialect, and log its code.

    It has at most ``MAX_ERROR_BYTES``.
    """
    g.log_fields["code"] = code
    detail = cut_json(cut(detail, MAX_DETAIL), MAX_DETAIL_BYTES)
    statuses = DIALECTS.get(dialect())
    if statuses is not None:
        return write_json(DialectProblem(error=detail), statuses.get(status, status))
    body = Problem(
        type="about:blank",
        title=find_title(status),
        status=status,
        detail=detail,
        instance=cut_json(request.path, MAX_INSTANCE_BYTES),
        code=code,
        request_id=request_id.get(),
        workers=workers,
    )
    if images is not UNSET:
        body.images = []
        body.images = fit(images, MAX_ERROR_BYTES - len(json.encode(body)) - 1)
    return write_json(body, status, "application/problem+json")


def find_title(status: int) -> str:
    """Return the phrase of a status."""
    return TITLES.get(status) or HTTPStatus(status).phrase


def fit(images: list[ImageResult], most: int) -> list[ImageResult]:
    """Return the first images, their names and errors cut so that they fit into ``most`` bytes."""
    share = max(200, most // len(images)) - 200  # without the rest of each entry
    fitting = []
    for image in images:
        short = replace(image, name=cut_json(image.name, MAX_ECHO))
        if image.error is not UNSET:
            detail = cut_json(image.error.detail, MAX_ECHO + share)
            short.error = replace(image.error, detail=detail)
        most -= len(json.encode(short)) + 1
        if most < 0:
            break
        fitting.append(short)
    return fitting


def answer_serving_error(
    error: ServingError,
    images: list[ImageResult] | UnsetType = UNSET,
    workers: dict[int, str] | UnsetType = UNSET,
) -> Response:
    """Answer a ServingError.

    Args:
        error: the error.
        images: the error of each image, if all of them failed.
        workers: the state of each worker, for the readiness probe.
    """
    # The frames of its traceback hold the request's body and the error: a cycle that only the collector frees.
    error.__traceback__ = error.__cause__ = error.__context__ = None
    log_first_bytes([error])
    response = problem(error.status, error.code, error.message, images, workers)
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def log_first_bytes(errors: Iterable[object]) -> None:
    """Log the first bytes of the first file of unknown type, which clients are not shown."""
    for error in errors:
        if isinstance(error, UnreadableImage) and error.first_bytes:
            g.log_fields.setdefault("first_bytes", error.first_bytes.hex(" "))


def answer_http_exception(error: HTTPException) -> Response:
    """Answer an error of Flask or Werkzeug: unknown path, wrong method, broken body."""
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    code = HTTPStatus(status).phrase.lower().replace(" ", "_")
    detail = error.description or HTTPStatus(status).phrase
    if dialect() == "v1" and isinstance(error, NotFound | MethodNotAllowed):
        status, detail = (
            HTTPStatus.BAD_REQUEST,
            f"Malformed request: {request.method} {request.path}",
        )
    elif isinstance(error, NotFound):
        detail = f"there is nothing at {request.path}; GET / lists the routes"
    elif isinstance(error, MethodNotAllowed):
        detail = f"{request.method} is not allowed here; allowed are {', '.join(sorted(error.valid_methods or []))}"
    elif isinstance(error, RequestEntityTooLarge):
        code, detail = BodyTooLarge.code, describe_large_body()
    response = problem(status, code, detail)
    for name, value in error.get_headers(request.environ):
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response


def dialect() -> str:
    """Return the first segment of the current path, in lower case: TensorFlow Serving's paths ignore case."""
    return request.path.lower().split("/")[1]


def describe_large_body() -> str:
    """Return the error text for a body over the limit, with its size."""
    length, limit = request.content_length, request.max_content_length or 0
    size = f"{length:,}" if length is not None else "more"
    return f"the body has {size} bytes; the limit is {limit:,}"


def answer_anything(error: Exception) -> Response:
    """Answer an unexpected error: log the traceback, return the request id."""
    logger.error("unexpected %s", type(error).__name__, exc_info=error)
    return answer_serving_error(
        InternalError("an unexpected error; the log has it under this request id")
    )
