"""An application whose model thread dies of a white picture: a fault that a real network has no way to cause."""

import os

import numpy as np

from app import worker
from app.factory import create_app
from app.roster import roster
from app.servable import Model
from app.serving import ModelServer
from app.settings import Settings
from tests.helpers import as_forward, make_entry, make_lineup


def forward(images: list[np.ndarray]) -> np.ndarray:
    """Answer, or end the thread where a picture is white."""
    if any((image == 255).all() for image in images):
        raise SystemExit
    return np.ones((len(images), 1), np.float32)


worker.BODY_S = 2  # a test of half a minute would be all waiting
settings = Settings.from_env({})
model = Model("mortal", 1, ("Alive",), "", "cpu", "eager", "fp32", 16, as_forward(forward))
lineup = make_lineup(make_entry("mortal", 1))
server = ModelServer(settings, roster, lambda: lineup, lambda *_: model, lambda: os._exit(1))
app = create_app(settings, server)
server.start()
