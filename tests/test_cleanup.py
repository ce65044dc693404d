"""Unused derived files are removed after a day; files in use stay."""

import dataclasses
import os
import time

import numpy as np
import pytest

from app.control.cleanup import MARK, clean_up
from app.control.footprint import Footprint
from app.control.manifest import Entry, Manifest
from app.models.artifacts import FORMAT, Artifacts
from app.models.bundle import open_bundle
from app.system.files import DAY_S
from tests.test_untrusted_files import without_root

NEEDS = Footprint("openvino", "fp32", "cpu", "asked for", 10**8)


class Place:
    """A served model with one version, its cache and its derived files."""

    def __init__(self, tmp_path, settings):
        """Make them."""
        self.folder = tmp_path / "models" / "leaves" / "1"
        self.folder.mkdir(parents=True)
        (self.folder / "model.pth").write_bytes(b"weights")
        (self.folder / "class_name.json").write_text('{"0": "Rust"}')
        self.settings = settings(models=str(tmp_path / "models"), cache=str(tmp_path / "cache"))
        self.cache = self.settings.cache
        self.cache.mkdir()
        self.network = self.derive(b"numbers")
        self.manifest = self.serve(self.network)

    def open(self, **how):
        return Artifacts(open_bundle(self.folder, "leaves", 1), self.cache, **how)

    def derive(self, numbers, kind="fp32", **how):
        """Add a network and return its folder."""

        def save(path):
            path.write_text("layers")
            path.with_suffix(".bin").write_bytes(numbers)
            return np.float32([[1]])

        return self.open(**how).add_network(kind, save).parent

    def serve(self, network):
        artifacts = self.open()
        entry = Entry(
            "leaves",
            1,
            str(self.folder),
            artifacts.weights_digest,
            NEEDS,
            str(network),
            artifacts.bundle.config.digest(),
        )
        return Manifest("leaves", (entry,))

    def tidy(self):
        clean_up(self.settings, self.manifest)


@pytest.fixture
def served_model(tmp_path, settings):
    return Place(tmp_path, settings)


def make_old(*paths):
    for path in paths:
        os.utime(path, (time.time() - 2 * DAY_S,) * 2)


def test_served_files_stay_at_any_age_and_are_marked_as_used(served_model):
    make_old(served_model.network, served_model.network.parent)
    served_model.tidy()
    assert served_model.network.exists()
    assert time.time() - served_model.network.stat().st_mtime < 60
    assert time.time() - served_model.network.parent.stat().st_mtime < 60


def test_cache_files_of_no_served_version_are_removed_after_a_day(served_model):
    old, young = (served_model.cache / f"{digit * 16}-{FORMAT}" for digit in "ab")
    for home in (old, young, served_model.cache / "somebody's", served_model.cache / f"{'a' * 16}"):
        (home / "fp32-0123456789abcdef").mkdir(parents=True)
    make_old(old, *[path for path in served_model.cache.iterdir() if path != young])
    served_model.tidy()
    assert {path.name for path in served_model.cache.iterdir()} == {
        young.name,
        "somebody's",
        "a" * 16,
    }


def test_files_of_other_weights_beside_the_model_are_removed_after_a_day(served_model):
    old = served_model.derive(b"numbers", weights_digest="c" * 16).parent
    served_model.tidy()
    assert old.exists()
    make_old(old)
    served_model.tidy()
    assert not old.exists()
    assert served_model.network.exists()


def test_a_replaced_network_is_removed_after_a_day_unless_it_is_served(served_model):
    newer = served_model.derive(b"others")
    make_old(served_model.network, newer)
    served_model.tidy()
    assert served_model.network.exists()
    assert newer.exists()
    served_model.manifest = served_model.serve(newer)
    make_old(served_model.network)
    served_model.tidy()
    assert not served_model.network.exists()
    assert newer.exists()


def test_a_network_loaded_by_a_worker_stays(served_model):
    """The network of another server is unknown to this one."""
    worker = served_model.open(network=served_model.network.name)
    assert worker.find_network("fp32")
    served_model.manifest = served_model.serve(served_model.derive(b"others"))
    make_old(served_model.network)
    served_model.tidy()
    assert served_model.network.exists()
    del worker
    served_model.tidy()
    assert not served_model.network.exists()


def test_files_of_another_release_stay_for_a_day_after_they_are_first_seen(served_model):
    """The other release may still be serving, and marks nothing."""
    old = served_model.folder / "optimized" / f"{'b' * 16}-{FORMAT - 1}"
    old.mkdir()
    make_old(old)
    served_model.tidy()
    assert old.exists()
    make_old(old / MARK)
    served_model.tidy()
    assert not old.exists()


def test_files_of_a_version_that_is_not_served_stay_beside_it(served_model, tmp_path):
    other = tmp_path / "models" / "leaves" / "2" / "optimized" / f"{'d' * 16}-{FORMAT}"
    other.mkdir(parents=True)
    make_old(other)
    served_model.tidy()
    assert other.exists()


def test_drafts_of_killed_processes_are_removed_from_every_folder(served_model, tmp_path):
    homes = (
        served_model.folder,
        served_model.folder.parent,
        served_model.cache,
        served_model.network.parent,
    )
    drafts = [home / name for home in homes for name in (".new-abcd", ".publishing-abcd")]
    for draft in drafts:
        draft.mkdir()
    served_model.tidy()
    assert all(draft.exists() for draft in drafts)
    make_old(*drafts)
    served_model.tidy()
    assert not any(draft.exists() for draft in drafts)


def test_a_folder_closed_by_another_user_stays_and_stops_nothing(served_model, tmp_path):
    old, closed = (
        served_model.cache / f"{'a' * 16}-{FORMAT}",
        served_model.cache / f"{'b' * 16}-{FORMAT + 1}",
    )
    for folder in (old, closed):
        folder.mkdir()
    make_old(old, closed)
    served_model.cache.chmod(0o777)
    closed.chmod(0o700)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder.name:
            folder.chmod(folder.stat().st_mode | 0o055)
        if folder.name.startswith("pytest-of-"):
            break
    assert without_root(lambda: served_model.tidy() or "done") == "done"
    assert closed.exists()
    assert not old.exists()


def test_nothing_is_removed_if_the_served_versions_are_unknown(served_model):
    old = served_model.cache / f"{'a' * 16}-{FORMAT}"
    old.mkdir()
    make_old(old)
    (entry,) = served_model.manifest.entries
    for manifest in (Manifest(), Manifest("x", (dataclasses.replace(entry, folder="nowhere"),))):
        served_model.manifest = manifest
        served_model.tidy()
        assert old.exists()
