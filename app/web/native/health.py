"""Liveness and readiness probes."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from app.web.answers import Alive, Ready
from app.web.context import model_server

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@blueprint.get("/healthcheck")  # the path of older clients
def healthz() -> Response:
    """Returns 200 while the process is running, with or without a model."""
    return jsonify(Alive(status="alive"))


@blueprint.get("/readyz")
def readyz() -> Response:
    """Returns 200 if the default model is loaded and warmed up and the worker accepts requests, otherwise 503."""
    server = model_server()
    model = server.find().model
    ready = Ready(
        status="ready",
        model=model.name,
        version=model.version,
        workers=server.workers.states(),
        live=server.workers.live(),
    )
    return jsonify(ready)
