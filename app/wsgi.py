"""The application that Gunicorn serves, built from the environment in each worker, after the fork."""

from __future__ import annotations

import os

from app.factory import create_app
from app.roster import roster
from app.serving import ModelServer
from app.settings import Settings
from app.sizing import follow_lineup

settings = Settings.from_env(os.environ)
# A worker whose model thread has died is of no use: it ends at once, Gunicorn replaces it, and nginx
# tries its requests again with the others.
server = ModelServer(settings, roster, follow_lineup(settings), on_death=lambda: os._exit(1))
app = create_app(settings, server)
server.start()
