"""``create_app``: assembles the Flask application from settings, model server and routes."""

from __future__ import annotations

from flask import Flask

from app.control.manifest import Manifest
from app.control.placement import Placement
from app.control.plan import Plan
from app.scoreboard import Scoreboard
from app.serving.loader import Loader
from app.serving.server import ModelServer
from app.settings import Settings
from app.web import access, keys, problems
from app.web.docs import routes as docs
from app.web.input.urls import Fetcher
from app.web.native import health, heatmap, metrics, model_predict, predict, samples
from app.web.openinference import routes as openinference
from app.web.page import routes as page
from app.web.tfserving import routes as tfserving


def create_app(settings: Settings, server: ModelServer | None = None) -> Flask:
    """Return the application.

    Args:
        settings: the settings.
        server: the model server, which the caller starts and stops; by default one without a model.
    """
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # otherwise "//" is redirected, with an HTML body
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.extensions["settings"] = settings
    app.extensions["model_server"] = server or make_idle_server(settings)
    app.extensions["fetcher"] = Fetcher(
        settings.url_hosts, settings.max_body_bytes, settings.url_timeout_s
    )
    access.register(app)
    keys.register(app)
    problems.register(app)
    for routes in (
        model_predict,
        predict,
        heatmap,
        tfserving,
        openinference,
        health,
        page,
        samples,
        metrics,
        docs,
    ):
        app.register_blueprint(routes.blueprint)
    return app


def make_idle_server(settings: Settings) -> ModelServer:
    """Return a server that is alone on its scoreboard and has no model."""
    scoreboard = Scoreboard()
    plan = Plan((Placement("cpu", 1),), Manifest())
    return ModelServer(settings, scoreboard, Loader(settings, scoreboard, plan))
