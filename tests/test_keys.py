"""API keys are made, listed, replaced and removed in one private file, which holds no secret."""

import os
import re
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from app import keys
from app.commands import keys as command
from app.errors import KeyFileError
from app.keys import CLIENT_SCOPES, KeyFile, make_key, read_keys
from tests.helpers import ROOT

DIGEST, ID = "ab" * 32, "0123456789abcdef01234567"
LINE = f"bob: {DIGEST} id={ID} scopes=predict,read"


@pytest.fixture
def path(tmp_path):
    """Return the path of a file of keys, which is not there yet."""
    return tmp_path / "keys"


@pytest.fixture
def at_once(monkeypatch):
    """Let the file be looked at whenever a key is."""
    monkeypatch.setattr(keys, "CHECK_S", 0)


def write(path, *lines: str) -> None:
    """Write a private file of keys."""
    path.write_text("\n".join(lines))
    path.chmod(0o600)


def run(path, *arguments: str) -> subprocess.CompletedProcess:
    """Run scripts/keys' program."""
    return subprocess.run(
        [sys.executable, "-m", "app.commands.keys", *arguments],
        cwd=ROOT,
        env=os.environ | {"SERVING_KEYS": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_key_is_printed_once_and_the_file_has_only_its_digest(path):
    added = run(path, "add", "bob", "--expires", "2099-01-01")
    assert re.fullmatch(r"[0-9a-f]{24}\.[\w-]{43}\n", added.stdout), added.stderr
    text = added.stdout.strip()
    assert text.partition(".")[2] not in path.read_text() + added.stderr
    (key,) = read_keys(path).values()
    assert key == keys.Key(
        "bob",
        text.partition(".")[0],
        keys.hash_key(text),
        CLIENT_SCOPES,
        datetime(2099, 1, 1, tzinfo=UTC),
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listed = run(path, "list").stdout
    assert listed.splitlines()[1].split() == [
        "bob",
        key.id,
        "predict,read",
        "2099-01-01T00:00:00Z",
    ]
    assert key.digest not in listed


def test_comments_owner_and_mode_survive_a_change(path):
    write(path, "# the archive's", LINE, "")
    path.chmod(0o640)
    command.add(path, "eve", CLIENT_SCOPES, None)
    assert path.read_text().startswith(f"# the archive's\n{LINE}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert command.remove(path, "eve") == 1
    assert path.read_text().split("\n")[:2] == ["# the archive's", LINE]


def test_a_rotated_key_stays_valid_for_the_overlap_only(path):
    old = command.add(path, "bob", frozenset({"metrics"}), None)
    command.add(path, "eve", CLIENT_SCOPES, None)
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=7)
    new = command.rotate(path, "bob", until, None)
    file = KeyFile(path)
    assert file.find(old).expires == until
    assert (file.find(new).expires, file.find(new).scopes) == (None, {"metrics"})
    assert [key.expires for key in read_keys(path).values() if key.name == "eve"] == [None]
    command.rotate(path, "bob", until + timedelta(days=7), None)
    assert KeyFile(path).find(old).expires == until, "an earlier end is kept"


def test_one_key_of_a_name_can_be_removed_by_its_id(path):
    first, second = (command.add(path, "bob", CLIENT_SCOPES, None) for _ in range(2))
    assert command.remove(path, "bob", first.partition(".")[0]) == 1
    file = KeyFile(path)
    assert file.find(first) is None
    assert file.find(second).name == "bob"


def test_removing_what_is_not_there_is_an_error_and_changes_nothing(path):
    write(path, LINE)
    with pytest.raises(KeyFileError, match="no key of 'eve'"):
        command.remove(path, "eve")
    assert path.read_text() == LINE


def test_keys_added_at_the_same_time_are_all_kept(path):
    names = [f"client-{number}" for number in range(8)]
    threads = [
        threading.Thread(target=command.add, args=(path, name, CLIENT_SCOPES, None))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.name for key in read_keys(path).values()) == names


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("bob: secret id=1 scopes=read", "expected NAME: SHA256"),
        (f"{LINE} expires=tomorrow", "expected a time in UTC"),
        (f"bob: {DIGEST} id={ID} scopes=write", "'write' is no scope; there are predict"),
        (f"b*b: {DIGEST} id={ID} scopes=read", "is no name"),
        (f"{LINE}\n{LINE}", "line 3: the id 0123456789abcdef01234567 is there twice"),
    ],
)
def test_a_malformed_line_is_named_and_not_repeated(path, line, reason):
    write(path, "# a comment", line)
    with pytest.raises(KeyFileError, match=rf"keys, line \d: .*{reason}|{reason}") as caught:
        read_keys(path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604])
def test_a_file_that_others_can_read_or_change_is_refused(path, mode):
    write(path, LINE)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=rf"has mode {mode:04o}; expected 0600"):
        read_keys(path)


def test_a_folder_a_fifo_and_a_huge_file_are_refused(tmp_path, path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    write(path, "#" * (keys.MAX_FILE_BYTES + 1))
    for place, reason in (
        (tmp_path, "no plain file|cannot be read"),
        (tmp_path / "fifo", "no plain file"),
        (path, "the limit is 1,048,576"),
        (tmp_path / "none", "cannot be read: No such file"),
    ):
        with pytest.raises(KeyFileError, match=reason):
            read_keys(place)


def test_a_change_is_taken_over_and_a_broken_file_keeps_the_last_good_one(path, at_once, caplog):
    first = command.add(path, "bob", CLIENT_SCOPES, None)
    file = KeyFile(path)
    second = command.add(path, "eve", CLIENT_SCOPES, None)
    assert file.find(second).name == "eve"
    good = path.read_text()
    write(path, good, "what is this")
    for _ in range(3):
        assert file.find(first).name == "bob"
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1, "a broken file is told once"
    assert f"{path}, line 5: expected NAME" in errors[0]
    write(path, *good.splitlines()[:-1])
    assert file.find(second) is None
    assert file.find(first).name == "bob"


def test_a_file_that_this_process_could_not_read_is_read_again(path, at_once, monkeypatch, caplog):
    text = command.add(path, "bob", CLIENT_SCOPES, None)
    file = KeyFile(path)
    with monkeypatch.context() as patch:
        patch.setattr(keys, "read_keys", fail)
        command.remove(path, "bob")
        assert [file.find(text).name for _ in range(3)] == ["bob"] * 3
    assert file.find(text) is None
    assert [each.levelname for each in caplog.records].count("ERROR") == 1


def fail(path):
    raise KeyFileError(f"{path} cannot be read: Too many open files")


def test_the_file_is_looked_at_once_a_second(path, monkeypatch):
    looks = []
    monkeypatch.setattr(keys, "read_version", lambda path: looks.append(path) or ())
    file = KeyFile(path)
    for _ in range(100):
        file.find("x.y")
    assert len(looks) == 1


def test_only_the_whole_key_is_found(path):
    text = command.add(path, "bob", CLIENT_SCOPES, None)
    file, (_, other) = KeyFile(path), make_key("eve", CLIENT_SCOPES)
    id_, _, secret = text.partition(".")
    for wrong in ("", ".", id_, f"{id_}.", secret, f"{id_}.{secret}x", text.upper(), other, "é.ü"):
        assert file.find(wrong) is None, wrong
    assert file.find(text).name == "bob"


def test_no_file_means_no_keys(path):
    assert KeyFile(path).find(f"{ID}.x") is None


def test_arguments_that_cannot_be_meant_are_refused_with_a_sentence(path, monkeypatch, capsys):
    monkeypatch.setenv("SERVING_KEYS", str(path))
    for arguments, reason in (
        ("add b:b", "'b:b' is no name"),
        ("add bob --scopes all", "'all' is no scope; there are predict"),
        ("add bob --expires soon", "'soon' is no time; expected 90d"),
        ("add bob --expires 99999d", "over the limit of 36500d"),
    ):
        monkeypatch.setattr(sys, "argv", ["keys", *arguments.split()])
        with pytest.raises(SystemExit):
            command.main()
        assert reason in capsys.readouterr().err
    monkeypatch.delenv("SERVING_KEYS")
    monkeypatch.setattr(sys, "argv", ["keys", "list"])
    with pytest.raises(SystemExit, match="SERVING_KEYS names no file"):
        command.main()
    assert not path.exists()
