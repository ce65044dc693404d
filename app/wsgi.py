"""The application that Gunicorn serves, built from the environment in each worker, after the fork."""

from __future__ import annotations

import os

from app.control.plan import scan_and_plan
from app.control.planner import manifest_reader, planner
from app.scoreboard import scoreboard
from app.serving.loader import Loader
from app.serving.server import ModelServer
from app.settings import Settings
from app.system.log_writer import stdout
from app.web.app import create_app


def end_worker() -> None:
    """End the process at once: Gunicorn replaces it, and nginx retries its requests on the other workers."""
    stdout.flush()
    os._exit(1)


settings = Settings.from_env(os.environ)
plan = planner.plan or scan_and_plan(settings)
loader = Loader(settings, scoreboard, plan)
server = ModelServer(
    settings, scoreboard, loader, manifest_reader(settings, plan.manifest), on_death=end_worker
)
app = create_app(settings, server)
server.start()
