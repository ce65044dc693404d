"""Is it alive, is it ready, what is it: for supervisors, load balancers and people."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, jsonify

from app.web import model_server
from app.web.answers import About, Alive, Ready

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
    model = server.ready_model()
    ready = Ready(
        status="ready",
        model=model.name,
        version=model.version,
        workers=server.worker_states(),
        live=server.live_by_worker(),
    )
    return jsonify(ready)


@blueprint.get("/")
def index() -> Response:
    """What is served here, and where."""
    server = model_server()
    model = server.ready_model()
    routes = sorted(
        {str(rule) for rule in current_app.url_map.iter_rules() if rule.endpoint != "static"}
    )
    about = About(
        service="resnet-serving",
        model=model.name,
        version=model.version,
        description=model.description,
        classes=list(model.class_names),
        device=model.device,
        engine=model.engine,
        precision=model.precision,
        routes=routes,
    )
    return jsonify(about)
