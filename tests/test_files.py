"""Files appear complete or not at all; leftovers of killed processes are removed, files in use stay."""

import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from app.system.files import (
    BOOT,
    DAY_S,
    draft_folder,
    lock_file,
    move_folder,
    remove_leftovers,
    write_file,
)
from tests.disks import on_small_disk
from tests.helpers import ROOT, wait_until

HOLD = (
    "import sys, time; from pathlib import Path; from app.system.files import draft_folder\n"
    "with draft_folder(Path(sys.argv[1]), sys.argv[2]) as draft:\n"
    "    (draft / 'half').write_text('x'); print(flush=True); time.sleep(60)"
)


@pytest.fixture
def writer(tmp_path):
    """Return a factory of processes that hold a draft."""
    started = []

    def start(prefix):
        command = [sys.executable, "-c", HOLD, str(tmp_path), prefix]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        started.append(process)
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def set_age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_file_is_replaced_and_no_draft_is_left(tmp_path):
    write_file(tmp_path / "new" / "a.json", "first")
    write_file(tmp_path / "new" / "a.json", "second")
    assert (tmp_path / "new" / "a.json").read_text() == "second"
    assert os.listdir(tmp_path / "new") == ["a.json"]


def test_a_full_disk_keeps_the_previous_file(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "a.json").write_text("good")
    program = (
        "import os, sys; from pathlib import Path; from app.system.files import write_file\n"
        "path = Path(sys.argv[1], 'a.json')\n"
        "try: write_file(path, 'x' * 80_000)\n"
        "except OSError as error: print(error.strerror)\n"
        "print(path.read_text(), os.listdir(path.parent))"
    )
    done = on_small_disk(disk, 64, program)
    assert done.stdout.splitlines() == ["No space left on device", "good ['a.json']"], done.stderr


def test_data_is_on_the_disk_before_the_file_gets_its_name(tmp_path, monkeypatch):
    """The order of the calls shows it: a power cut cannot be simulated here."""
    calls, real = [], {name: getattr(os, name) for name in ("fsync", "replace", "rename")}

    def note(name):
        def call(*arguments):
            where = arguments[0]
            target = os.readlink(f"/proc/self/fd/{where}") if isinstance(where, int) else where
            calls.append((name, os.path.basename(target)))
            return real[name](*arguments)

        return call

    for name in real:
        monkeypatch.setattr(os, name, note(name))
    write_file(tmp_path / "a.json", "text")
    assert calls == [("fsync", "a.json"), ("replace", "a.json"), ("fsync", tmp_path.name)]
    calls.clear()
    with draft_folder(tmp_path) as draft:
        (draft / "network").mkdir()
        (draft / "network" / "part").write_text("text")
        move_folder(draft / "network", tmp_path / "place")
    assert calls == [
        ("fsync", "part"),
        ("fsync", "network"),
        ("rename", "network"),
        ("fsync", tmp_path.name),
    ]


@pytest.mark.parametrize("prefix", [".new-", ".publishing-"])
def test_the_draft_of_a_killed_process_is_removed_and_that_of_a_running_one_stays(
    tmp_path, writer, prefix
):
    process = writer(prefix)
    (draft,) = tmp_path.iterdir()
    set_age(draft, 10 * DAY_S)
    remove_leftovers(tmp_path)
    assert (draft / "half").exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: remove_leftovers(tmp_path) or not draft.exists())


def test_drafts_of_older_releases_and_other_machines_are_removed_after_a_day(tmp_path):
    old, young = tmp_path / ".new-abcd", tmp_path / ".publishing-00000000-abcd"
    for draft in (old, young, tmp_path / "new-abcd", tmp_path / f".other-{BOOT}-x"):
        draft.mkdir()
        set_age(draft, 2 * DAY_S)
    set_age(young, DAY_S / 2)
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        young.name,
        "new-abcd",
        f".other-{BOOT}-x",
    }
    remove_leftovers(tmp_path / "absent")


def test_waiting_for_a_lock_that_is_never_released_has_a_limit(tmp_path):
    path = tmp_path / "folder" / "lock"
    with lock_file(path, 5) as held:
        assert held
        began = time.monotonic()
        with lock_file(path, 0.2) as other:
            assert other is False
        assert 0.2 <= time.monotonic() - began < 5
    with lock_file(path, 0) as held:
        assert held, "it was given back"


def test_work_is_done_even_if_no_lock_can_be_held(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    with lock_file(tmp_path / "file" / "lock", 5) as held:
        assert held is None

    def refuse(*_):
        raise OSError(37, "No locks available")  # as some network file systems do

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock_file(tmp_path / "lock", 5) as held:
        assert held is None
