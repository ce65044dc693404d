"""This server with a model that costs nothing: only nginx, HTTP, decoding, resizing and batching are measured."""

import os
from collections.abc import Sequence

import numpy as np

from app.control.footprint import Footprint
from app.control.scanner import Entry, Manifest
from app.engines.outputs import Outputs
from app.models.bundle import find_bundle
from app.scoreboard import scoreboard
from app.serving.model import Model
from app.serving.server import ModelServer
from app.settings import ROOT, Settings
from app.web.app import create_app
from scripts.bench import CONSTANT

NOTHING = Footprint(CONSTANT, "fp32", "cpu", "", 0)
NAMES = find_bundle(ROOT / "models").class_names


def forward(images: Sequence[np.ndarray], _with_features: bool) -> Outputs:
    """Answer every picture the same, after the copy that an engine makes."""
    return Outputs(np.ones((len(np.stack(images)), len(NAMES)), np.float32))


settings = Settings.from_env(os.environ)
model = Model(CONSTANT, 1, NAMES, "", "cpu", CONSTANT, "fp32", 8, forward)
manifest = Manifest(model.name, (Entry(model.name, model.version, "", "", NOTHING),))
server = ModelServer(settings, scoreboard, lambda: manifest, lambda *_: model)
app = create_app(settings, server)
server.start()
