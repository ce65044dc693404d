"""Messages to operators and clients name the reason if nothing can be served."""

import sys
import time
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

import pytest

from app.control.manifest import Manifest, RejectedVersion
from app.control.plan import fit_workers
from app.serving.diagnosis import explain_failure
from app.serving.status import VersionStatus
from app.system.gpus import Gpu
from app.system.machine import GIB
from tests.helpers import ROOT


def status(version: int, problem: str = "it was refused: model.pth is damaged") -> VersionStatus:
    return VersionStatus("leaves", version, "END", problem)


def test_the_file_and_the_cure_are_named():
    assert explain_failure([status(2)], "", follows=True) == (
        "the model cannot be served: leaves, version 2: it was refused: model.pth is damaged."
        " Fix that, and it is loaded automatically"
    )
    message = explain_failure([status(2)], "", follows=False)
    assert message.endswith("Fix that, then send Gunicorn a HUP")


def test_the_newest_of_many_versions_are_named():
    message = explain_failure([status(number) for number in range(1, 40)], "", follows=True)
    assert [f"version {number}:" in message for number in (39, 38, 37, 36)] == [True] * 3 + [False]
    assert "and 36 more" in message


def test_a_problem_of_the_whole_folder_is_reported_without_its_path():
    message = explain_failure([], "/srv/secret/models holds a, b: set SERVING_MODEL", follows=True)
    assert message.startswith("the model cannot be served: models holds a, b: set SERVING_MODEL.")


def test_the_status_without_a_problem_is_waiting_for_a_new_version():
    assert explain_failure([VersionStatus("leaves", 2, "LOADING")], "", follows=True) == (
        "the model cannot be served yet: new versions are being checked"
    )


def test_the_plan_counts_nothing_if_nothing_can_be_served(settings):
    manifest = Manifest(rejected=(RejectedVersion("leaves", 1, "it is damaged"),))
    gpu = Gpu(0, "A GPU", "1", 20 * GIB, 24 * GIB)
    plan = fit_workers(settings(), manifest, [gpu])
    assert plan.lines == (("plan", "1 worker: 1 on cuda:0; nothing can be served yet"),)


@pytest.mark.parametrize(
    ("reason", "after_s"),
    [("the model is loading", 20), ("the model cannot be served: model.pth is damaged.", 2)],
)
def test_the_terminal_shows_a_lasting_problem_once(monkeypatch, capsys, reason, after_s):
    """scripts/serve waits with scripts/ready; a load of a few seconds is not reported."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = SourceFileLoader("ready", str(ROOT / "scripts" / "ready"))
    ready = module_from_spec(spec_from_loader("ready", loader))
    loader.exec_module(ready)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    patience = ready.Patience()
    outputs = []
    for _ in range(100):
        patience.note(reason)
        outputs.append(capsys.readouterr().out)
        now += 0.5
    assert [number / 2 for number, text in enumerate(outputs) if text] == [after_s]
    assert f"not ready: {reason}" in "".join(outputs)
