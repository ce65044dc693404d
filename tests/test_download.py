"""Downloads survive what networks do, and only the expected file is kept."""

import fcntl
import hashlib

import numpy as np
import pytest

from app.commands import download as module
from app.commands.download import DownloadError, download
from tests.download_host import serve_files

CONTENT = np.random.default_rng(7).bytes(1_000_000)
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    with serve_files() as host:
        host.files[NAME] = CONTENT
        yield host


def get(host, folder):
    return download(f"{host.url}/{NAME}", folder)


def test_a_file_is_downloaded_whole_and_its_progress_is_shown(host, tmp_path, capsys):
    path = get(host, tmp_path / "new")
    assert path == tmp_path / "new" / NAME
    assert path.read_bytes() == CONTENT
    assert [child.name for child in path.parent.iterdir()] == [NAME]
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"{NAME}: 1.0 of 1.0 MB, 100 %"
    assert len(lines) <= 11


def test_cut_connections_are_continued_where_they_ended(host, tmp_path):
    host.cut_after = [300_000, 400_000]
    assert get(host, tmp_path).read_bytes() == CONTENT
    assert host.ranges == ["", "bytes=300000-", "bytes=700000-"]


def test_a_partial_file_of_an_earlier_run_is_continued(host, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:123_456])
    assert get(host, tmp_path).read_bytes() == CONTENT
    assert host.ranges == ["bytes=123456-"]


def test_a_host_that_knows_no_ranges_sends_the_whole_file_again(host, tmp_path):
    host.has_ranges = False
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:123_456])
    assert get(host, tmp_path).read_bytes() == CONTENT


def test_a_complete_partial_file_is_only_verified(host, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    assert get(host, tmp_path).read_bytes() == CONTENT


def test_a_temporary_error_is_tried_again(host, tmp_path):
    host.statuses = [503, 429]
    assert get(host, tmp_path).read_bytes() == CONTENT


def test_a_host_that_keeps_failing_is_given_up_and_the_bytes_are_kept(host, tmp_path):
    host.cut_after = [1000] + [0] * 10
    with pytest.raises(DownloadError, match="1,000 bytes are kept, and the same command continues"):
        get(host, tmp_path)
    assert (tmp_path / f"{NAME}.part").read_bytes() == CONTENT[:1000]


def test_wrong_bytes_are_refused_and_removed(host, tmp_path):
    host.files[NAME] = CONTENT[:-1] + b"?"
    with pytest.raises(
        DownloadError, match=rf"is not {NAME}: its SHA-256 begins with \w+, expected"
    ):
        get(host, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_reported_at_once(host, tmp_path):
    host.files.clear()
    with pytest.raises(DownloadError, match=f"{host.url}/{NAME} answers 404 Not Found"):
        get(host, tmp_path)
    assert len(host.ranges) == 1


@pytest.mark.parametrize("kept", [b"", CONTENT[:10]])
def test_a_host_that_cannot_be_reached_is_reported_at_once(tmp_path, kept):
    with serve_files() as gone:
        pass
    (tmp_path / f"{NAME}.part").write_bytes(kept)
    with pytest.raises(
        DownloadError,
        match=r"cannot be downloaded: the host cannot be reached \(Connection refused",
    ):
        get(gone, tmp_path)


def test_two_downloads_of_one_file_do_not_mix(host, tmp_path):
    with (tmp_path / f"{NAME}.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="is being written by another download"):
            get(host, tmp_path)


def test_a_name_without_a_checksum_is_refused(host, tmp_path):
    host.files["net.pth"] = CONTENT
    with pytest.raises(DownloadError, match=r"net\.pth holds no digits of a SHA-256"):
        download(f"{host.url}/net.pth", tmp_path)
