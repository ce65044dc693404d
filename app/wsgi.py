"""The application that Gunicorn serves, built from the environment in each worker, after the fork."""

from __future__ import annotations

import os

from app.factory import create_app
from app.roster import roster
from app.serving import ModelServer
from app.settings import Settings

settings = Settings.from_env(os.environ)
server = ModelServer(settings, roster)
app = create_app(settings, server)
server.start()
