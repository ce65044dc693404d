"""Provide fixtures: settings, photographs, the demo network, and the whole server as an operator runs it."""

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.scoreboard import Scoreboard, State
from app.serving.server import ModelServer
from app.settings import Settings
from app.web.app import create_app
from tests.helpers import (
    DEMO,
    ROOT,
    StubLoader,
    make_entry,
    make_light,
    make_manifest,
    wait_until,
)
from tests.server import Server

if "PYTEST_XDIST_WORKER" in os.environ:
    # Two processes share the cores: OpenMP's threads would take as long again by spinning while they wait.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported

TYPICAL_S = 3  # of tests that are marked; the mark ``slow`` may have other seconds
STARTS_SERVERS = {"server", "tiny_server", "start_server", "new_server"}


@pytest.fixture(scope="session", autouse=True)
def separate_runtime_folder(tmp_path_factory):
    """Give programs that tests start a runtime folder, so that they disturb no server of this checkout."""
    os.environ["SERVING_RUN"] = str(tmp_path_factory.mktemp("run"))
    yield
    del os.environ["SERVING_RUN"]


def pytest_collection_modifyitems(items):
    """Mark the tests by the fixtures that they use; sort the files, which xdist spreads, with the longest first."""
    weights = Counter()
    for item in items:
        if STARTS_SERVERS & set(item.fixturenames):
            item.add_marker("live")
        if "chromium" in item.fixturenames:
            item.add_marker("browser")
        if mark := next(
            filter(None, map(item.get_closest_marker, ("slow", "live", "browser"))), None
        ):
            weights[item.path] += mark.args[0] if mark.args else TYPICAL_S
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: -weights[item.path])


@pytest.fixture
def settings(run_folder):
    """Return a factory of settings: defaults, a runtime folder of its own, and overrides as in the environment."""

    def make(**rows: str) -> Settings:
        rows = {"run": str(run_folder)} | rows
        return Settings.from_env({f"SERVING_{name.upper()}": text for name, text in rows.items()})

    return make


@pytest.fixture
def run_folder(tmp_path) -> Path:
    """Return the runtime folder of an instance; it need not exist yet."""
    return tmp_path / "run"


@pytest.fixture(scope="session")
def demo_network():
    """Return the demo model as the independent reference has it."""
    from tests import reference

    return reference.load_npz(DEMO / "model.npz")


@pytest.fixture(scope="session")
def class_names() -> list[str]:
    """Return the demo model's class names, in the order of its outputs."""
    return list(json.loads((DEMO / "class_name.json").read_text()).values())


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """Return real photographs from the folder named by PHOTOS, or ../shared/photos.

    They are not part of the project; a developer may have none, CI has them.
    """
    folder = Path(os.environ.get("PHOTOS", ROOT.parent / "shared" / "photos"))
    found = sorted(folder.glob("*.jpg"))
    if not found and not os.environ.get("CI"):
        pytest.skip(f"no photographs in {folder}; set PHOTOS to a folder of JPEG files")
    assert found, f"CI needs photographs in {folder}"
    return found


@pytest.fixture
def client_of(settings):
    """Return a factory of clients whose server has "light", version 4, ready (or failed if its load raises)."""
    servers = []

    def make(load=None, manifest=None, **rows):
        chosen = settings(**rows)
        scoreboard = Scoreboard()
        scoreboard.enter(scoreboard.claim())
        manifest = manifest or make_manifest(make_entry("light", 4))
        read_manifest = manifest if callable(manifest) else lambda: manifest
        load = load or (lambda _settings, _slot, entry: make_light(entry))
        server = ModelServer(
            chosen, scoreboard, StubLoader(chosen, scoreboard, load), read_manifest
        )
        servers.append(server)
        server.start()
        wait_until(lambda: server.state is not State.LOADING)
        return create_app(chosen, server).test_client()

    yield make
    for server in servers:
        server.stop(timeout_s=2)


@pytest.fixture
def client(client_of):
    """Return Flask's client of a server whose model distinguishes bright from dark."""
    return client_of()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """Return a folder shared by all processes of this run of pytest."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Make a folder, unless another process of the run has made it; return it."""
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            draft = folder.with_suffix(".draft")
            make(draft)
            draft.rename(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_models(shared_folder) -> Path:
    """Return a folder of models with the tiny one as "demo", converted; tests that change it take a copy."""

    def make(folder: Path) -> None:
        from tests.tiny import make_tiny

        make_tiny(folder / "demo" / "1")

    return make_once(shared_folder / "tiny", make)


@pytest.fixture(scope="session")
def new_server(tmp_path_factory, tiny_models):
    """Return a factory of servers, with the tiny model by default; they are not started yet."""
    made = []

    def make(wsgi_app: str = "", **rows: str) -> Server:
        if not {"models", "models_file"} & rows.keys():
            rows["models"] = str(tiny_models)
        made.append(Server(tmp_path_factory.mktemp("server"), wsgi_app, **rows))
        return made[-1]

    yield make
    for live in made:
        live.remove()


@pytest.fixture(scope="session")
def server(new_server):
    """Return the whole server with the demo model in fp32, ready; tests that disturb it start their own."""
    return new_server(models=str(ROOT / "models"), precision="fp32").start().wait_ready()


@pytest.fixture(scope="session")
def tiny_server(new_server):
    """Return the whole server with the tiny model, ready; tests that disturb it start their own."""
    return new_server().start().wait_ready()


@pytest.fixture
def lay_out_server(new_server):
    """Return a factory of servers with their own settings, not started yet; all are stopped afterwards."""
    made = []

    def make(**rows: str) -> Server:
        made.append(new_server(**rows))
        return made[-1]

    yield make
    for live in made:
        live.remove()


@pytest.fixture
def start_server(lay_out_server):
    """Return a factory of servers with their own settings, started; all are stopped afterwards."""
    return lambda **rows: lay_out_server(**rows).start()


@pytest.fixture(scope="module")
def chromium():
    """Return Debian's Chromium without a window system: it takes a third less of the processor."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium-headless-shell")
    if path is None and not os.environ.get("CI"):
        pytest.skip("no chromium-headless-shell; scripts/setup test installs it")
    assert path, "CI needs chromium-headless-shell"
    with sync_playwright() as playwright:
        args = [
            "--no-sandbox",
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
        ]  # a camera that films a clock
        browser = playwright.chromium.launch(executable_path=path, args=args)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, server):
    """Return a factory of visits to the page; each must end without a complaint."""
    from tests.browser import Visit

    visits = []

    def make(url: str = server.url, **options: object) -> Visit:
        visits.append(Visit(chromium, url, **options))
        return visits[-1]

    yield make
    for each in visits:
        each.close()


@pytest.fixture
def devkit(tmp_path):
    """Return a drawn VOCdevkit of its own."""
    from tests.drawn_voc import draw_devkit

    draw_devkit(tmp_path / "VOCdevkit")
    return tmp_path / "VOCdevkit"


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Return the examples of a drawn VOCdevkit."""
    from scripts.training.voc import read_voc
    from tests.drawn_voc import draw_devkit

    devkit = tmp_path_factory.mktemp("shared") / "VOCdevkit"
    draw_devkit(devkit)
    return read_voc(devkit)


@pytest.fixture
def client_and_seen(client_of):
    """Return a client and the list of arrays that reach the network behind it."""
    seen = []

    def load(_settings, _slot, entry):
        def look(images):
            seen.extend(images)
            return np.zeros((len(images), 2), np.float32)

        return make_light(entry, look)

    return client_of(load), seen
