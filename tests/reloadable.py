"""An application whose workers behave as a file says.

The file is named by RELOADABLE and says ``loads``, ``loads slowly``, ``fails``, ``crashes``, ``raises`` or ``has no
room``. A worker that loads slowly waits until the file says something else. What is served follows ``manifest.json``
beside it, where there is one; each version takes a moment to load.
"""

import os
import time
from pathlib import Path

import numpy as np

from app.control.manifest import Manifest
from app.errors import BundleError
from app.scoreboard import scoreboard
from app.serving import loader
from app.serving.server import ModelServer
from app.settings import Settings
from app.web.app import create_app
from tests.helpers import StubLoader, make_entry, make_light, make_manifest

LOAD_S = 0.3
NO_ROOM = "host: 0.0 GiB free"
file = Path(os.environ["RELOADABLE"])


def behavior() -> str:
    """Return the behavior named in the file."""
    return file.read_text().strip()


def load(_settings, _slot, entry):
    """Load the model, or do as the file says."""
    time.sleep(LOAD_S)
    while behavior() == "loads slowly":
        time.sleep(0.02)
    if behavior() == "fails":
        raise BundleError("damaged")
    if behavior() == "crashes":
        os._exit(9)
    return make_light(entry, answer)


def answer(images):
    """Wait a moment, so that a request can be in flight."""
    time.sleep(0.05)
    return np.float32([(5, 0)] * len(images))


def read_manifest():
    """Return the manifest to serve."""
    try:
        return Manifest.from_text(file.with_name("manifest.json").read_text())
    except FileNotFoundError:
        return manifest


loader.lacking_memory = lambda *_: NO_ROOM if behavior() == "has no room" else ""
if behavior() == "raises":
    raise RuntimeError("this release is broken")
manifest = make_manifest(make_entry("light", 4))
settings = Settings.from_env(os.environ)
server = ModelServer(settings, scoreboard, StubLoader(settings, scoreboard, load), read_manifest)
app = create_app(settings, server)
server.start()
