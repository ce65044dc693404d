"""The objects that routes share, from the running application."""

from __future__ import annotations

from flask import current_app

from app.serving.server import ModelServer
from app.settings import Settings


def model_server() -> ModelServer:
    """Return the running application's model server."""
    server: ModelServer = current_app.extensions["model_server"]
    return server


def settings() -> Settings:
    """Return the running application's settings."""
    found: Settings = current_app.extensions["settings"]
    return found
