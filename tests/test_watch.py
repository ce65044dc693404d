"""The watcher survives every error: it logs it once and waits longer each time."""

import errno

import pytest

from app.commands import watch as program
from app.commands.watch import MAX_PAUSE_S, watch
from app.control.manifest import Manifest, ManifestFile, instance_id
from app.control.scanner import RepositoryScanner
from tests.helpers import make_entry, make_manifest

FULL = OSError(errno.ENOSPC, "No space left on device")
SERVED, NEW = make_manifest(make_entry("leaves", 1)), make_manifest(make_entry("leaves", 2))


class Over(BaseException):
    """The error that ends the watcher in a test."""


@pytest.fixture
def run(settings, run_folder, tmp_path, monkeypatch):
    """Return a runner of the watcher over a list of results or errors of its looks; it returns the pauses."""
    chosen = settings(run=str(run_folder), cache=str(tmp_path / "cache"), poll_s="2")
    ManifestFile(run_folder, instance_id()).write(SERVED)

    def start(looks, sleep=None):
        results, pauses = iter(looks), []

        def scan(_scanner):
            result = next(results, Over())
            if isinstance(result, BaseException):
                raise result
            return result() if callable(result) else result

        monkeypatch.setattr(RepositoryScanner, "scan", scan)
        monkeypatch.setattr(program.time, "sleep", sleep or pauses.append)
        with pytest.raises(Over):
            watch(chosen)
        return pauses, ManifestFile(run_folder).read()

    return start


def test_a_full_disk_is_logged_once_and_retried_with_growing_pauses(run, caplog):
    pauses, manifest = run([SERVED, *[FULL] * 12, NEW])
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, *[MAX_PAUSE_S] * 5, 2]
    assert [line for line in caplog.messages if "No space left" in line] == [
        "new versions cannot be taken over, what is served goes on; tried again at pauses of up to "
        "300 s: [Errno 28] No space left on device"
    ]
    assert manifest == NEW


def test_a_manifest_of_an_earlier_start_is_not_used(run, run_folder, monkeypatch):
    """The earlier models folder may have been another: nothing of it may be kept."""
    ManifestFile(run_folder, "4194305-77-an earlier start").write(SERVED)
    begun = []
    real = RepositoryScanner.__init__

    def begin(scanner, chosen, before):
        begun.append(before)
        real(scanner, chosen, before)

    monkeypatch.setattr(RepositoryScanner, "__init__", begin)
    waited = []

    def write(pause):
        waited.append(pause)
        ManifestFile(run_folder, instance_id()).write(NEW)

    run([NEW], write)
    assert waited[0] == 2
    assert begun == [NEW]


@pytest.mark.parametrize("how", ["removed", "damaged"])
def test_a_removed_manifest_is_written_again(run, run_folder, how):
    """Otherwise a replacement worker would serve the versions of the start."""

    def lose():
        (run_folder / "manifest.json").unlink()
        if how == "damaged":
            (run_folder / "manifest.json").write_text("{")
        return NEW

    _, manifest = run([NEW, lose, NEW])
    assert manifest == NEW


def test_a_manifest_that_cannot_be_written_is_retried(run, monkeypatch, caplog):
    real, rejected = ManifestFile.write, [FULL, FULL]

    def write(file, manifest):
        if rejected:
            raise rejected.pop()
        real(file, manifest)

    monkeypatch.setattr(ManifestFile, "write", write)
    caplog.set_level("INFO")
    pauses, manifest = run([NEW, NEW, NEW])
    assert pauses == [4, 8, 2]
    assert manifest == NEW
    assert sum("to be served: leaves, version 2" in line for line in caplog.messages) == 1


def test_an_unexpected_error_does_not_end_the_watcher(run, caplog):
    pauses, manifest = run([ValueError("odd"), ValueError("odd"), Manifest()])
    assert pauses == [4, 8, 2]
    assert manifest == Manifest()
    assert len([line for line in caplog.records if line.exc_info]) == 1
