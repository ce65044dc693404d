"""Fixtures: settings, photographs, the demo network, and the whole server as an operator runs it."""

import json
import os
from pathlib import Path

import pytest

from app.settings import Settings
from tests import reference
from tests.helpers import ROOT
from tests.server import Server

DEMO = ROOT / "models" / "demo" / "1"


@pytest.fixture
def settings(tmp_path):
    """Return a maker of settings: defaults but what is given, in the environment's own words."""

    def make(**rows: str) -> Settings:
        return Settings.from_env({f"SERVING_{name.upper()}": text for name, text in rows.items()})

    return make


@pytest.fixture(scope="session")
def demo_network():
    """Return the demo model as the independent reference has it."""
    return reference.load_npz(DEMO / "model.npz")


@pytest.fixture(scope="session")
def class_names() -> list[str]:
    """Return the demo model's class names, in the order of its outputs."""
    return list(json.loads((DEMO / "class_name.json").read_text()).values())


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """Return real photographs: a folder named by PHOTOS, or ../shared/photos.

    They are not part of the project; a developer may have none, CI has them.
    """
    folder = Path(os.environ.get("PHOTOS", ROOT.parent / "shared" / "photos"))
    found = sorted(folder.glob("*.jpg"))
    if not found and not os.environ.get("CI"):
        pytest.skip(f"no photographs in {folder}; set PHOTOS to a folder of JPEG files")
    assert found, f"CI needs photographs in {folder}"
    return found


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Return the whole server with the demo model in fp32, ready; tests that disturb it start their own."""
    live = Server(tmp_path_factory.mktemp("server"), precision="fp32").start().wait_ready()
    yield live
    live.remove()


@pytest.fixture
def start_server(tmp_path_factory):
    """Return a maker of servers with settings of their own; all are stopped afterwards."""
    started = []

    def start(**rows: str) -> Server:
        live = Server(tmp_path_factory.mktemp("server"), **rows)
        started.append(live)
        return live.start()

    yield start
    for live in started:
        live.remove()
