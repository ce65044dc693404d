"""The follower goes on, whatever goes wrong: it says so once, and waits longer each time."""

import errno

import pytest

from app.commands import watch as program
from app.commands.watch import MAX_PAUSE_S, follow
from app.control.manifest import LINEUP_FILE, LineupFile, instance_id
from app.control.scanner import Curator, Lineup
from tests.helpers import make_entry, make_lineup

FULL = OSError(errno.ENOSPC, "No space left on device")
SERVED, NEW = make_lineup(make_entry("leaves", 1)), make_lineup(make_entry("leaves", 2))


class Over(BaseException):
    """The test has seen enough."""


@pytest.fixture
def run(settings, tmp_path, monkeypatch):
    """Return a runner of the follower over a list of what its looks find or raise; it returns the pauses between."""
    chosen = settings(cache=str(tmp_path / "cache"), poll_s="2")
    monkeypatch.chdir(tmp_path)
    LineupFile(instance_id()).write(SERVED)

    def start(looks, sleep=None):
        found, pauses = iter(looks), []

        def look(_curator):
            result = next(found, Over())
            if isinstance(result, BaseException):
                raise result
            return result() if callable(result) else result

        monkeypatch.setattr(Curator, "look", look)
        monkeypatch.setattr(program.time, "sleep", sleep or pauses.append)
        with pytest.raises(Over):
            follow(chosen)
        return pauses, LineupFile().read()

    return start


def test_a_full_disk_is_told_once_and_tried_again_at_growing_pauses(run, caplog):
    pauses, lineup = run([SERVED, *[FULL] * 12, NEW])
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, *[MAX_PAUSE_S] * 5, 2]
    assert [line for line in caplog.messages if "No space left" in line] == [
        "new versions cannot be taken over, what is served goes on; tried again at pauses of up to "
        "300 s: [Errno 28] No space left on device"
    ]
    assert lineup == NEW


def test_what_an_earlier_start_left_is_not_taken_for_what_is_served(run, monkeypatch):
    """Its models folder may have been another: nothing of it may be kept."""
    LineupFile("4194305-77-an earlier start").write(SERVED)
    begun = []
    real = Curator.__init__

    def begin(curator, chosen, before):
        begun.append(before)
        real(curator, chosen, before)

    monkeypatch.setattr(Curator, "__init__", begin)
    waited = []

    def write(pause):
        waited.append(pause)
        LineupFile(instance_id()).write(NEW)

    run([NEW], write)
    assert waited[0] == 2
    assert begun == [NEW]


@pytest.mark.parametrize("how", ["removed", "damaged"])
def test_a_lineup_that_somebody_removed_is_written_again(run, how):
    """Else a worker that replaces another would serve what was served at the start."""

    def lose():
        LINEUP_FILE.unlink()
        if how == "damaged":
            LINEUP_FILE.write_text("{")
        return NEW

    _, lineup = run([NEW, lose, NEW])
    assert lineup == NEW


def test_a_lineup_that_cannot_be_written_is_written_later(run, monkeypatch, caplog):
    real, refusals = LineupFile.write, [FULL, FULL]

    def write(file, lineup):
        if refusals:
            raise refusals.pop()
        real(file, lineup)

    monkeypatch.setattr(LineupFile, "write", write)
    caplog.set_level("INFO")
    pauses, lineup = run([NEW, NEW, NEW])
    assert pauses == [4, 8, 2]
    assert lineup == NEW
    assert sum("to be served: leaves, version 2" in line for line in caplog.messages) == 1


def test_what_nobody_expected_does_not_end_it_either(run, caplog):
    pauses, lineup = run([ValueError("odd"), ValueError("odd"), Lineup()])
    assert pauses == [4, 8, 2]
    assert lineup == Lineup()
    assert len([line for line in caplog.records if line.exc_info]) == 1
