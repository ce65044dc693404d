"""Versions are loaded and retired while requests wait, with models that the test controls."""

import gc
import logging
import time
import weakref
from _queue import SimpleQueue
from itertools import pairwise

import gevent
import numpy as np
import pytest
from gevent.hub import get_hub

from app.errors import BundleError
from app.scoreboard import Scoreboard
from app.serving import registry as versions_module
from app.serving.handoff import Handoff
from app.serving.in_flight import InFlight
from app.serving.model import Servable
from app.serving.registry import ModelRegistry
from app.settings import Settings
from tests import helpers
from tests.helpers import StubLoader, as_forward, make_entry, make_manifest, wait_until

PIXELS = np.zeros((3, 224, 224), np.uint8)


def make_model(entry, forward=None):
    """Return a model that answers its own version."""

    def answer(images):
        return np.full((len(images), 1), entry.version, np.float32)

    return helpers.make_model(entry, ("N",), as_forward(forward or answer), max_batch=4)


class Stage:
    """Versions with a manifest that the test changes."""

    def __init__(self, cache, load=make_model, lacking_memory=""):
        """Start following it."""
        self.handoff = Handoff()
        self.manifest = make_manifest(make_entry("a", 1))
        self.changes = 0
        scoreboard = Scoreboard()
        settings = Settings.from_env({"SERVING_CACHE": str(cache)})
        loader = StubLoader(settings, scoreboard, lambda _settings, _slot, entry: load(entry))
        loader.lacking_memory = lambda entry, is_start: lacking_memory
        self.versions = ModelRegistry(self.handoff, loader, InFlight(scoreboard), self.serve)
        self.versions.start(lambda: self.manifest, 0.01, self.count)

    def count(self):
        self.changes += 1

    def serve(self, model):
        return Servable(
            model, self.handoff, max_wait_s=0, max_queue=64, on_death=lambda reason: None
        )

    def show(self, *entries):
        """Change the manifest and wait until it is applied."""
        before = self.changes
        self.manifest = make_manifest(*entries)
        wait_until(lambda: self.changes > before)

    def live(self):
        return sorted((key[0], key[1]) for key in self.versions.live)

    def ask(self, name="a"):
        """Return the version that answers."""
        live = self.versions.of_model(name)
        batcher = live[max(live)].batcher
        with batcher.slot():
            return int(batcher.submit(PIXELS).logits[0])


@pytest.fixture
def stage(tmp_path):
    """Return a factory of stages, ready with version 1 of model a; all are stopped afterwards."""
    made = []

    def make(**how):
        made.append(Stage(tmp_path, **how))
        wait_until(lambda: made[-1].changes)
        return made[-1]

    yield make
    for each in made:
        each.versions.stop(2)


def test_a_new_version_replaces_the_old_one(stage):
    here = stage()
    assert (here.live(), here.ask()) == ([("a", 1)], 1)
    here.show(make_entry("a", 2))
    assert (here.live(), here.ask()) == ([("a", 2)], 2)


def test_several_models_and_versions_live_beside_each_other(stage):
    here = stage()
    here.show(make_entry("a", 1), make_entry("a", 2), make_entry("b", 7))
    assert here.live() == [("a", 1), ("a", 2), ("b", 7)]
    assert (here.ask("a"), here.ask("b")) == (2, 7)
    here.show(make_entry("a", 1))
    assert here.live() == [("a", 1)]


def test_the_status_of_each_version_is_reported(stage):
    gate = SimpleQueue()

    def load(entry):
        if entry.version == 2:
            gate.get()
        if entry.version == 3:
            raise BundleError("/secret is damaged")
        return make_model(entry)

    def states():
        return {status.version: status.state for status in here.versions.statuses()}

    here = stage(load=load)
    assert states() == {1: "AVAILABLE"}
    here.manifest = make_manifest(make_entry("a", 1), make_entry("a", 2), make_entry("a", 3))
    wait_until(lambda: states() == {1: "AVAILABLE", 2: "LOADING", 3: "LOADING"})
    gate.put(None)
    wait_until(lambda: states() == {1: "AVAILABLE", 2: "AVAILABLE", 3: "END"})
    assert not any("/secret" in status.problem for status in here.versions.statuses())
    here.show(make_entry("a", 1, "other weights"))
    assert states() == {1: "AVAILABLE"}


def test_requests_inside_the_old_version_are_answered_by_it(stage):
    gate = SimpleQueue()

    def load(entry):
        def held(images):
            gate.get()
            return np.full((len(images), 1), 1, np.float32)

        return make_model(entry, held if entry.version == 1 else None)

    here = stage(load=load)
    inside = gevent.spawn(here.ask)
    gevent.sleep(0.05)
    here.manifest = make_manifest(make_entry("a", 2))
    wait_until(lambda: here.live() == [("a", 2)])  # new requests have moved on already
    assert here.ask() == 2
    assert not inside.ready()
    gate.put(None)
    assert inside.get(timeout=5) == 1


def test_every_request_under_load_is_answered_by_one_of_the_two_versions(stage):
    here = stage()
    answers, ended = [], []

    def client():
        while not ended:
            answers.append(here.ask())

    clients = [gevent.spawn(client) for _ in range(16)]
    for version in range(2, 6):
        here.show(make_entry("a", version))
    gevent.sleep(0.05)
    ended.append(True)
    gevent.joinall(clients, raise_error=True, timeout=30)
    assert set(answers) == {1, 2, 3, 4, 5}
    assert answers[-1] == 5


def test_a_version_that_fails_to_load_leaves_the_old_one_and_is_tried_again(
    stage, caplog, monkeypatch
):
    monkeypatch.setattr(versions_module, "RETRY_S", 0.05)
    failures = [BundleError("it is damaged"), ZeroDivisionError("surprise")]

    def load(entry):
        if entry.version == 2 and failures:
            raise failures.pop(0)
        return make_model(entry)

    here = stage(load=load)
    here.show(make_entry("a", 2))
    assert here.live() == [("a", 1)]
    assert list(here.versions.failed.values()) == ["it is damaged"]
    wait_until(lambda: here.live() == [("a", 2)])
    assert not here.versions.failed
    errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert errors[0] == "the model cannot be served: it is damaged"
    assert "surprise" in caplog.text


def test_the_old_version_is_unloaded_first_if_memory_cannot_hold_both(stage, caplog):
    seen = []

    def load(entry):
        seen.append((entry.version, here.live() if entry.version > 1 else []))
        return make_model(entry)

    here = stage(load=load, lacking_memory="host: 0 bytes free")
    with caplog.at_level(logging.WARNING, "app.serving.registry"):
        here.show(make_entry("a", 2))
    assert seen == [(1, []), (2, [])]
    assert here.ask() == 2
    assert "memory does not hold both: a, version 1 leaves before version 2" in caplog.text


def test_the_memory_of_the_old_version_is_freed_before_the_new_one_is_loaded(stage):
    seen = []

    def load(entry):
        seen.append(f"load {entry.version}")
        model = make_model(entry)
        model.engine.close = lambda: seen.append(f"close {entry.version}")
        return model

    here = stage(load=load, lacking_memory="host: no room")
    here.show(make_entry("a", 2))
    assert seen == ["load 1", "close 1", "load 2"]


def test_the_last_version_stays_while_the_new_one_cannot_be_loaded(stage):
    def load(entry):
        if entry.version > 1:
            raise BundleError("damaged")
        return make_model(entry)

    here = stage(load=load)
    here.show(make_entry("a", 2), make_entry("a", 3))
    assert here.live() == [("a", 1)]
    here.show(make_entry("b", 1))  # not in the manifest any more
    assert here.live() == [("b", 1)]


@pytest.mark.slow
def test_a_retired_version_leaves_nothing_behind(stage):
    engines = []

    class Engine:
        def forward(self, images):
            return np.zeros((len(images), 1), np.float32)

    def load(entry):
        engine = Engine()
        engines.append(weakref.ref(engine))
        return make_model(entry, engine.forward)

    here = stage(load=load)
    for version in range(2, 6):
        here.show(make_entry("a", version))
        here.ask()

    def left():
        gc.collect()
        return sum(engine() is not None for engine in engines)

    wait_until(lambda: left() == 1, 5)


def test_stopping_while_a_version_loads_installs_nothing(stage):
    gate = SimpleQueue()

    def load(entry):
        if entry.version == 2:
            gate.get()
        return make_model(entry)

    here = stage(load=load)
    here.manifest = make_manifest(make_entry("a", 2))
    gevent.sleep(0.05)
    assert here.versions.stop(2)
    gate.put(None)
    gevent.sleep(0.05)
    assert here.live() == [("a", 1)]


def test_only_the_newest_manifest_is_loaded(stage):
    gate, loaded = SimpleQueue(), []

    def load(entry):
        if entry.version > 1:
            gate.get()
        loaded.append(entry.version)
        return make_model(entry)

    here = stage(load=load)
    for version in range(2, 7):
        here.manifest = make_manifest(make_entry("a", version), make_entry("b", version))
        gevent.sleep(0.05)
    for _ in range(12):
        gate.put(None)
    wait_until(lambda: here.live() == [("a", 6), ("b", 6)])
    assert loaded == [1, 2, 6, 6]


def test_failed_loads_are_tried_again_after_growing_pauses(stage, monkeypatch):
    monkeypatch.setattr(versions_module, "RETRY_S", 0.1)
    tried = []

    def load(entry):
        if entry.version > 1:
            tried.append(time.monotonic())
            raise BundleError("damaged")
        return make_model(entry)

    here = stage(load=load)
    here.manifest = make_manifest(make_entry("a", 2))
    wait_until(lambda: len(tried) == 4)
    first, *_, last = [after - before for before, after in pairwise(tried)]
    assert last > 2.5 * first


def test_a_version_whose_load_cannot_start_has_failed_and_is_tried_again(
    stage, monkeypatch, caplog
):
    monkeypatch.setattr(versions_module, "RETRY_S", 0.05)
    failures = [RuntimeError("can't start new thread")]
    begin = Servable.start

    def start(servable):
        if servable.model.version == 2 and failures:
            raise failures.pop()
        begin(servable)

    monkeypatch.setattr(Servable, "start", start)
    here = stage()
    here.show(make_entry("a", 2))
    assert list(here.versions.failed.values()) == ['RuntimeError("can\'t start new thread")']
    assert here.ask() == 1
    wait_until(lambda: here.live() == [("a", 2)])
    assert "can't start new thread" in caplog.text


def test_no_error_on_the_hub_ends_the_loader(stage, caplog):
    here = stage()
    really, surprises = here.versions._on_change, [ZeroDivisionError("surprise")]

    def on_change():
        if surprises:
            raise surprises.pop()
        really()

    here.versions._on_change = on_change
    here.show(make_entry("a", 2))
    assert "surprise" in caplog.text
    here.show(make_entry("a", 3))
    assert here.live() == [("a", 3)]


def test_calls_queued_behind_a_call_that_raises_are_made(monkeypatch):
    handoff, called = Handoff(), []
    monkeypatch.setattr(get_hub(), "handle_error", lambda *error: called.append(error[1]))
    handoff.call(lambda: 1 / 0)
    handoff.call(lambda: called.append("second"))
    wait_until(lambda: called == [ZeroDivisionError, "second"], 2)
    handoff.close()


def test_an_unreadable_manifest_does_not_end_the_watcher(stage, caplog):
    here = stage()
    del here.manifest
    wait_until(lambda: "what is served goes on" in caplog.text)
    here.show(make_entry("a", 2))
    assert here.live() == [("a", 2)]
