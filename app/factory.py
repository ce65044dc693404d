"""create_app: wires settings, model server and surfaces into one Flask application."""

from __future__ import annotations

from flask import Flask

from app.roster import Roster
from app.serving import ModelServer
from app.settings import Settings
from app.web import (
    docs,
    health,
    heatmaps,
    monitoring,
    openinference,
    page,
    predict,
    predictions,
    problems,
    requests,
    tfserving,
)


def create_app(settings: Settings, server: ModelServer | None = None) -> Flask:
    """Return the application.

    Args:
        settings: the settings.
        server: the model server; by default one of its own, alone on a roster, is made. Its caller
            starts and stops it.
    """
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # else "//" is answered by a redirect, in HTML
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.extensions["settings"] = settings
    app.extensions["model_server"] = server or ModelServer(settings, Roster())
    requests.register(app)
    problems.register(app)
    app.register_blueprint(predict.blueprint)
    app.register_blueprint(predictions.blueprint)
    app.register_blueprint(heatmaps.blueprint)
    app.register_blueprint(tfserving.blueprint)
    app.register_blueprint(openinference.blueprint)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(docs.blueprint)
    app.register_blueprint(monitoring.blueprint)
    app.register_blueprint(page.blueprint)
    return app
