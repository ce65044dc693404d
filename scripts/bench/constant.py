"""This server with a model that costs nothing: only nginx, HTTP, decoding, resizing and batching are measured."""

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from app.control.footprint import Footprint
from app.control.manifest import Entry, Manifest
from app.control.plan import make_plan
from app.control.planner import planner
from app.engines.engine import Choice, Gradients, Outputs
from app.models.bundle import find_bundle
from app.scoreboard import scoreboard
from app.serving.loader import Loader
from app.serving.model import Model
from app.serving.server import ModelServer
from app.settings import ROOT, Settings
from app.web.app import create_app
from scripts.bench import CONSTANT

NOTHING = Footprint(CONSTANT, "fp32", "cpu", "", 0)
BUNDLE = find_bundle(ROOT / "models")
NAMES = BUNDLE.class_names


class ConstantEngine:
    """Answers every image the same, after the copy that an engine makes."""

    device, precision, max_batch, lanes = "cpu", "fp32", 8, 1
    gradients: Gradients = None

    def forward(self, images: Sequence[np.ndarray], with_features: bool = False) -> Outputs:
        """Answer one batch."""
        return Outputs(np.ones((len(np.stack(images)), len(NAMES)), np.float32))

    def forward_in_lane(
        self, _lane: int, images: Sequence[np.ndarray], with_features: bool = False
    ) -> Outputs:
        """Answer one batch."""
        return self.forward(images)

    def close(self) -> None:
        """Do nothing."""


class ConstantLoader(Loader):
    """Loads the one model that there is."""

    def load(self, entry: Entry) -> Model:
        """Return the model."""
        bundle = replace(BUNDLE, name=entry.name, version=entry.version)
        return Model(bundle, Choice(CONSTANT, "fp32", "cpu", 1, 8), ConstantEngine(), "cpu")


settings = Settings.from_env(os.environ)
manifest = Manifest(CONSTANT, (Entry(CONSTANT, 1, "", "", NOTHING),))
plan = planner.plan or make_plan(settings, manifest)
server = ModelServer(
    settings, scoreboard, ConstantLoader(settings, scoreboard, plan), lambda: manifest
)
app = create_app(settings, server)
server.start()
