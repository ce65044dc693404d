"""Is it alive, is it ready: for supervisors and load balancers."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from app.web.answers import Alive, Ready
from app.web.context import model_server

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@blueprint.get("/healthcheck")  # as older clients call it
def healthz() -> Response:
    """Alive: the process answers, with or without a model."""
    return jsonify(Alive(status="alive"))


@blueprint.get("/readyz")
def readyz() -> Response:
    """Ready: a model is loaded, has answered a real forward, and this worker takes requests; otherwise 503."""
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
