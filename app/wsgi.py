"""The application that Gunicorn serves, built from the environment in each worker, after the fork."""

from __future__ import annotations

import os

from app.control.plan import follow_manifest
from app.scoreboard import scoreboard
from app.serving.server import ModelServer
from app.settings import Settings
from app.system.log_writer import stdout
from app.web.app import create_app


def end_worker() -> None:
    """End the process at once: Gunicorn replaces it, and nginx tries its requests again with the others."""
    stdout.flush()
    os._exit(1)


settings = Settings.from_env(os.environ)
server = ModelServer(settings, scoreboard, follow_manifest(settings), on_death=end_worker)
app = create_app(settings, server)
server.start()
