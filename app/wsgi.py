"""The application that Gunicorn serves, built from the environment in each worker, after the fork."""

from __future__ import annotations

import os

from app.factory import create_app
from app.log_writer import stdout
from app.roster import roster
from app.serving import ModelServer
from app.settings import Settings
from app.sizing import follow_lineup


def end_worker() -> None:
    """End the process at once: Gunicorn replaces it, and nginx tries its requests again with the others."""
    stdout.flush()
    os._exit(1)


settings = Settings.from_env(os.environ)
server = ModelServer(settings, roster, follow_lineup(settings), on_death=end_worker)
app = create_app(settings, server)
server.start()
