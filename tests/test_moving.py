"""Labels, shares and the default move under load, and every request is answered 200."""

import dataclasses
import io
from _queue import SimpleQueue

import gevent
import pytest

from app.errors import BundleError, NotReady, ServingError, UnknownModel
from app.scoreboard import Scoreboard, State
from app.serving.routing import Target
from app.serving.server import ModelServer
from tests.helpers import (
    StubLoader,
    gray,
    make_entry,
    make_light,
    make_manifest,
    predict_one,
    wait_until,
)


class Stage:
    """A server that follows a manifest, whose loads wait until the test releases them."""

    def __init__(self, settings, manifest, **plan):
        """Serve a manifest; from now on loads wait."""
        self.manifest, self.gate, self.broken = manifest, SimpleQueue(), set()
        self.answers = []
        self.scoreboard = Scoreboard()
        self.scoreboard.enter(self.scoreboard.claim())
        self.slow = False
        chosen = settings(poll_s="0.01")
        loader = StubLoader(chosen, self.scoreboard, self.load, **plan)
        self.server = ModelServer(chosen, self.scoreboard, loader, lambda: self.manifest)
        self.server.start()
        wait_until(lambda: self.server.state is State.READY)
        self.slow = True

    def load(self, _settings, _slot, entry):
        if self.slow:
            self.gate.get()
        if (entry.name, entry.version) in self.broken:
            raise BundleError("damaged")
        return make_light(entry)

    def ask(self, **target):
        """Return the name of the version that answers, or the error."""
        try:
            model = predict_one(self.server, io.BytesIO(gray(200)), **target).model
        except ServingError as error:
            return error.code
        return model.name, model.version

    def keep_asking(self, **target):
        """Send requests without a pause and record every answer."""
        while True:
            self.answers.append(self.ask(**target))
            gevent.sleep(0.002)

    def states(self):
        return {(s.name, s.version): s.state for s in self.server.statuses()}


@pytest.fixture
def stage(settings):
    stages = []

    def make(manifest, **plan):
        stages.append(Stage(settings, manifest, **plan))
        return stages[-1]

    yield make
    for each in stages:
        each.slow = False
        for _ in range(10):
            each.gate.put(None)
        each.server.stop(2)


def labeled_manifest(version):
    return make_manifest(make_entry("voc", version), labels={"voc": {"stable": version}})


def custom_model():
    return make_manifest(make_entry("leaves", 5))


@pytest.mark.parametrize(
    ("before", "after", "target", "answers"),
    [
        (labeled_manifest(3), labeled_manifest(4), {"label": "stable"}, (("voc", 3), ("voc", 4))),
        (make_manifest(make_entry("demo", 1)), custom_model(), {}, (("demo", 1), ("leaves", 5))),
        (
            make_manifest(make_entry("a", 1), make_entry("b", 1)),
            make_manifest(make_entry("b", 2), make_entry("a", 1)),
            {},
            (("a", 1), ("b", 2)),
        ),
        (
            make_manifest(make_entry("voc", 3), make_entry("voc", 5), traffic={"voc": {"3": 1}}),
            make_manifest(make_entry("voc", 4), make_entry("voc", 5), traffic={"voc": {"4": 1}}),
            {},
            (("voc", 3), ("voc", 4)),
        ),
    ],
    ids=["a label", "the first own model", "the default", "the traffic"],
)
def test_requests_are_answered_by_the_old_version_until_the_new_one_is_live(
    stage, before, after, target, answers
):
    here = stage(before)
    client = gevent.spawn(here.keep_asking, **target)
    wait_until(lambda: here.answers)
    here.manifest = after
    if after.default == "b":  # its new version is loaded first
        wait_until(lambda: ("b", 2) in here.states())
    wait_until(lambda: "LOADING" in here.states().values())
    gevent.sleep(0.1)
    assert set(here.answers) <= {answers[0], ("b", 1)}
    here.gate.put(None)
    wait_until(lambda: here.answers[-1] == answers[1])
    gevent.sleep(0.05)
    client.kill()
    assert set(here.answers) <= {*answers, ("b", 1)}


def test_a_version_that_is_being_loaded_is_not_unknown(stage):
    here = stage(labeled_manifest(3))
    here.manifest = labeled_manifest(4)
    wait_until(lambda: ("voc", 4) in here.states())
    with pytest.raises(NotReady, match="voc, version 4 is being loaded") as error:
        here.server.find(Target("voc", 4))
    assert error.value.retry_after_s
    with pytest.raises(UnknownModel):
        here.server.find(Target("voc", 7))


def test_a_label_does_not_move_while_its_new_version_fails(stage, caplog):
    here = stage(labeled_manifest(3))
    here.broken.add(("voc", 4))
    here.manifest = labeled_manifest(4)
    here.gate.put(None)
    wait_until(lambda: "the label stable stays at version 3" in caplog.text)
    assert here.ask(label="stable") == ("voc", 3)
    assert here.states() == {("voc", 3): "AVAILABLE", ("voc", 4): "END"}
    with pytest.raises(NotReady, match="voc, version 4 cannot be served"):
        here.server.find(Target("voc", 4))


def test_the_default_stays_while_the_new_one_fails(stage, caplog):
    here = stage(make_manifest(make_entry("demo", 1)))
    here.broken.add(("leaves", 5))
    here.manifest = custom_model()
    here.gate.put(None)
    wait_until(lambda: "the default stays demo: leaves is not live" in caplog.text)
    assert here.ask() == ("demo", 1)
    assert here.ask(name="leaves") == "not_ready"


def test_a_moved_label_retires_its_old_version_only_after_the_move(stage):
    """A version that is not in the manifest any more stays while a label still points to it."""
    both = (make_entry("voc", 4), make_entry("voc", 5))
    here = stage(make_manifest(make_entry("voc", 3), both[0], labels={"voc": {"stable": 3}}))
    here.manifest = make_manifest(*both, labels={"voc": {"stable": 5}})
    wait_until(lambda: ("voc", 5) in here.states())
    gevent.sleep(0.05)
    assert here.ask(label="stable") == ("voc", 3)
    assert here.ask() == ("voc", 4)
    here.gate.put(None)
    wait_until(lambda: here.ask(label="stable") == ("voc", 5))
    wait_until(lambda: ("voc", 3) not in here.states())


def test_a_changed_version_that_cannot_be_loaded_keeps_its_old_weights(stage):
    here = stage(make_manifest(make_entry("voc", 3), make_entry("voc", 4)))
    here.broken.add(("voc", 4))
    here.manifest = make_manifest(make_entry("voc", 3), make_entry("voc", 4, "other weights"))
    here.gate.put(None)
    wait_until(lambda: here.server._registry.failed)
    assert here.ask() == ("voc", 4)


def test_a_worker_that_must_unload_its_version_leaves_requests_to_others(stage, monkeypatch):
    here = stage(make_manifest(make_entry("voc", 3)))
    neighbour = Scoreboard.__new__(Scoreboard)
    neighbour.__dict__.update(here.scoreboard.__dict__)
    neighbour.enter(here.scoreboard.claim())
    neighbour.mark(State.READY)
    monkeypatch.setattr("app.serving.loader.lacking_memory", lambda *_: "host: 0.1 GiB free")
    here.manifest = make_manifest(make_entry("voc", 4))
    wait_until(lambda: here.scoreboard.state(0) is State.LOADING)
    assert here.scoreboard.has_substitute()
    assert here.ask() == ("voc", 3)  # requests inside are still answered
    here.gate.put(None)
    wait_until(lambda: here.ask() == ("voc", 4))
    wait_until(lambda: here.scoreboard.state(0) is State.READY)


@pytest.mark.parametrize("is_tight", [False, True])
def test_a_start_loads_the_default_and_the_others_if_they_fit_into_memory(
    stage, monkeypatch, is_tight
):
    monkeypatch.setattr("app.serving.loader.lacking_memory", lambda *_: "host: 0.1 of 2.0 GiB free")
    manifest = make_manifest(make_entry("voc", 3), make_entry("leaves", 1))
    here = stage(dataclasses.replace(manifest, default="leaves"), is_tight=is_tight)
    assert here.ask() == ("leaves", 1)
    assert here.ask(name="voc") == ("not_ready" if is_tight else ("voc", 3))


def test_a_load_waits_for_the_memory_of_draining_workers(stage, monkeypatch):
    here = stage(make_manifest(make_entry("voc", 3)))
    other = here.scoreboard.claim()
    here.scoreboard._states[other] = State.DRAINING
    monkeypatch.setattr(
        "app.serving.loader.lacking_memory",
        lambda *_: "" if here.scoreboard.state(other) is State.ABSENT else "host: 0.1 GiB free",
    )
    here.slow = False
    here.manifest = make_manifest(make_entry("voc", 3), make_entry("leaves", 1))
    gevent.sleep(0.5)
    assert here.states()["leaves", 1] == "LOADING"
    here.scoreboard.cancel_claim(other)
    wait_until(lambda: here.states().get(("leaves", 1)) == "AVAILABLE")


def test_a_manifest_that_does_not_fit_into_memory_is_refused_with_the_sum(
    stage, monkeypatch, caplog
):
    here = stage(make_manifest(make_entry("voc", 3)))
    monkeypatch.setattr("app.serving.loader.lacking_memory", lambda *_: "host: 0.1 of 2.0 GiB free")
    here.manifest = make_manifest(make_entry("voc", 3), make_entry("leaves", 1))
    wait_until(lambda: here.states().get(("leaves", 1)) == "END")
    message = "leaves, version 1 does not fit beside voc, version 3: host: 0.1 of 2.0 GiB free"
    assert message in caplog.text
    assert here.ask() == ("voc", 3)
