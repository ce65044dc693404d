"""Derived files are beside the model, or in the cache if that is read-only."""

import dataclasses
import json
import os

import numpy as np
import pytest

from app.errors import BundleError
from app.models.artifacts import FORMAT, Artifacts
from app.models.bundle import MAX_WEIGHTS_BYTES, find_bundle
from app.models.checksums import find_damage, take_digest
from app.models.config import ModelConfig
from app.processing.decision import Decision
from app.processing.images import InputTransform
from tests.disks import on_small_disk


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "models" / "own"
    folder.mkdir(parents=True)
    (folder / "model.pth").write_bytes(b"weights")
    (folder / "class_name.json").write_text('{"0": "Ant"}')
    return find_bundle(tmp_path / "models")


ANSWERS = np.float32([[1, 2]])
DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "gone": lambda path: path.unlink(),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}
PARTS = ("network.xml", "network.bin", "gradients.npy", "answers.npy", "sums.json")


def save(path, numbers=b"numbers"):
    path.write_text("layers")
    path.with_suffix(".bin").write_bytes(numbers)
    return ANSWERS


def forbid_writing(bundle):
    """Make the folder beside the model unusable, for root too: a file is in its place."""
    (bundle.folder / "optimized").write_text("in the way")


def test_a_network_is_saved_beside_the_model_and_found_again(bundle, tmp_path):
    artifacts = Artifacts(bundle, tmp_path / "cache")
    assert artifacts.find_network("fp32") is None
    path = artifacts.add_network("fp32", save)
    assert path.parent.parent.parent == bundle.folder / "optimized"
    assert path.parent.name.startswith("fp32-")
    assert path.with_suffix(".bin").read_bytes() == b"numbers"
    assert Artifacts(bundle, tmp_path / "cache").find_network("fp32") == path
    assert not (tmp_path / "cache").exists()


def test_the_cache_is_used_if_the_model_folder_is_read_only(bundle, tmp_path):
    forbid_writing(bundle)
    artifacts = Artifacts(bundle, tmp_path / "cache")
    path = artifacts.add_network("fp32", save)
    assert path.is_relative_to(tmp_path / "cache")
    assert artifacts.find_network("fp32") == path


def test_the_error_names_the_setting_if_nothing_is_writable(bundle, tmp_path):
    forbid_writing(bundle)
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(BundleError, match="SERVING_CACHE"):
        Artifacts(bundle, tmp_path / "cache").add_network("fp32", save)


def test_other_weights_get_another_folder(bundle, tmp_path):
    before = Artifacts(bundle, tmp_path / "cache")
    before.add_network("fp32", save)
    bundle.weights.write_bytes(b"better weights")
    assert Artifacts(bundle, tmp_path / "cache").find_network("fp32") is None


def test_another_network_gets_another_folder_and_another_rule_only_another_report(bundle, tmp_path):
    before = Artifacts(bundle, tmp_path / "cache")
    path = before.add_network("fp32", save)
    digest = bundle.config.network_digest(before.weights_digest)
    assert path.parent.parent.name == f"{digest}-{FORMAT}"
    configs = {
        "top_k": ModelConfig(decision=Decision(top_k=1)),
        "crop": ModelConfig(transform=InputTransform(224, 256)),
    }
    for config in configs.values():
        same_network = Artifacts(dataclasses.replace(bundle, config=config), tmp_path / "cache")
        assert same_network.find_network("fp32") == path
        assert same_network.homes == before.homes
    other = dataclasses.replace(bundle, config=ModelConfig("resnet18"))
    assert Artifacts(other, tmp_path / "cache").find_network("fp32") is None


def test_a_failed_save_leaves_nothing_behind(bundle, tmp_path):
    artifacts = Artifacts(bundle, tmp_path / "cache")

    def fail(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(
        BundleError, match=r"fp32 network cannot be written \(.*disk full.*SERVING_CACHE"
    ):
        artifacts.add_network("fp32", fail)
    assert artifacts.find_network("fp32") is None
    assert not [
        path for path in bundle.folder.rglob("*") if path.is_file() and "half" in path.read_text()
    ]


def test_footprints_are_stored_by_their_conditions_and_survive_damage(bundle, tmp_path):
    artifacts = Artifacts(bundle, tmp_path / "cache")
    assert artifacts.read_footprints() == {}
    artifacts.add_footprint("at batch 8", {"host_bytes": 1})
    artifacts.add_footprint("at batch 16", {"host_bytes": 2})
    assert artifacts.read_footprints()["at batch 8"] == {"host_bytes": 1}
    (path,) = bundle.folder.rglob("footprints.json")
    assert set(json.loads(path.read_text())) == {"at batch 8", "at batch 16"}
    path.write_text("{")
    assert artifacts.read_footprints() == {}


def test_a_report_goes_to_the_cache_if_the_bundle_is_read_only_and_a_newer_one_replaces_it(
    bundle, tmp_path
):
    artifacts = Artifacts(bundle, tmp_path / "cache")
    in_the_way = bundle.folder / "precision.json"
    in_the_way.mkdir()
    cached = artifacts.add_report("older")
    assert cached == artifacts.report_path()
    assert cached.is_relative_to(tmp_path / "cache")
    in_the_way.rmdir()
    assert artifacts.add_report("newer") == in_the_way == artifacts.report_path()
    assert in_the_way.read_text() == "newer"


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_network_is_removed_with_a_warning_before_it_is_read(
    bundle, tmp_path, caplog, part, damage
):
    path = Artifacts(bundle, tmp_path / "cache").add_network("fp32", save, np.float32([[1]]))
    assert Artifacts(bundle, tmp_path / "cache").find_network("fp32") == path
    DAMAGES[damage](path.with_name(part))
    after = Artifacts(bundle, tmp_path / "cache")
    assert after.find_network("fp32") is None
    (line,) = caplog.messages
    assert line.startswith(f"{path.parent} is damaged and is made again: ")
    assert part in line
    assert not path.parent.exists()
    assert after.add_network("fp32", save, np.float32([[1]])) == path  # the same again
    assert Artifacts(bundle, tmp_path / "cache").find_network("fp32") == path


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 10_000, '{"network": "../../other"}'])
def test_a_malformed_pointer_to_a_network_is_ignored(bundle, tmp_path, text):
    artifacts = Artifacts(bundle, tmp_path / "cache")
    path = artifacts.add_network("fp32", save)
    (path.parent.parent / "fp32.json").write_text(text)
    assert Artifacts(bundle, tmp_path / "cache").find_network("fp32") is None
    Artifacts(bundle, tmp_path / "cache").add_network("fp32", save)
    assert Artifacts(bundle, tmp_path / "cache").find_network("fp32") == path


def test_a_network_stores_its_own_gradients_and_answers(bundle, tmp_path):
    artifacts = Artifacts(bundle, tmp_path / "cache")
    artifacts.add_network("fp32", save, np.float32([[3]]))
    artifacts.add_network("int8", lambda path: save(path, b"small"))
    for kind in ("fp32", "int8"):
        assert artifacts.read_gradients(kind) == np.float32([[3]])
        assert (artifacts.read_answers(kind) == ANSWERS).all()


def test_int8_is_served_only_with_the_report_that_was_measured_with_it(bundle, tmp_path):
    """A kill between conversion and measurement leaves no unmeasured network."""
    first = Artifacts(bundle, tmp_path / "cache")
    old = first.add_network("int8", save)
    assert first.find_network("int8") == old  # to be measured
    assert Artifacts(bundle, tmp_path / "cache").find_network("int8") is None
    first.add_report("old")
    assert Artifacts(bundle, tmp_path / "cache").find_network("int8") == old
    second = Artifacts(bundle, tmp_path / "cache")
    new = second.add_network("int8", lambda path: save(path, b"better"))
    assert Artifacts(bundle, tmp_path / "cache").find_network("int8") == old
    second.add_report("new")
    assert Artifacts(bundle, tmp_path / "cache").find_network("int8") == new != old
    (bundle.folder / "precision.json").write_text("put back by somebody: old")
    assert Artifacts(bundle, tmp_path / "cache").find_network("int8") is None


def test_a_replacement_worker_gets_the_network_that_the_others_have(bundle, tmp_path):
    first = Artifacts(bundle, tmp_path / "cache")
    old = first.add_network("int8", save)
    first.add_report("old")
    second = Artifacts(bundle, tmp_path / "cache")
    second.add_network("int8", lambda path: save(path, b"better"))
    second.add_report("new")
    pinned = Artifacts(bundle, tmp_path / "cache", network=old.parent.name)
    assert pinned.find_network("int8") == old


def test_footprints_beside_a_model_that_became_read_only_are_merged_with_newer_ones(
    bundle, tmp_path
):
    artifacts = Artifacts(bundle, tmp_path / "cache")
    for home, when in zip(artifacts.homes, ("earlier", "newer"), strict=True):
        home.mkdir(parents=True)
        (home / "footprints.json").write_text(json.dumps({when: {"host_bytes": 1}}))
    assert set(artifacts.read_footprints()) == {"earlier", "newer"}


def test_the_report_is_written_even_if_the_cache_is_a_file(bundle, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    artifacts = Artifacts(bundle, tmp_path / "cache")
    assert artifacts.add_report("text") == bundle.folder / "precision.json"


@pytest.mark.parametrize("target", ["cache", "x" * 300])
def test_the_report_beside_the_model_is_used_if_the_cache_cannot_be_entered(
    bundle, tmp_path, target
):
    (tmp_path / "cache").symlink_to(target)
    artifacts = Artifacts(bundle, tmp_path / "cache")
    assert artifacts.add_report("text") == bundle.folder / "precision.json"
    assert artifacts.report_path() == bundle.folder / "precision.json"


def test_a_folder_in_place_of_a_hint_is_logged_once_and_leaks_no_handle(bundle, tmp_path, caplog):
    artifacts = Artifacts(bundle, tmp_path / "cache")
    (artifacts.homes[0] / "footprints.json").mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert artifacts.read_footprints() == {}
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "../..", "x" * 10_000])
def test_a_hostile_pointer_names_no_network_in_use(bundle, tmp_path, name):
    artifacts = Artifacts(bundle, tmp_path / "cache")
    home = artifacts.add_network("fp32", save).parent.parent
    (home / "fp32.json").write_text(json.dumps({"network": name}))
    assert artifacts.latest_name("fp32") == ""


@pytest.mark.parametrize("sums", ['["network.xml", "network.bin", "answers.npy"]', "7", "null"])
def test_invalid_checksums_count_as_damage_regardless_of_the_folders_name(bundle, tmp_path, sums):
    home = Artifacts(bundle, tmp_path / "cache").add_network("fp32", save).parent.parent
    place = home / f"fp32-{take_digest(sums.encode())}"
    place.mkdir()
    (place / "sums.json").write_text(sums)
    (home / "fp32.json").write_text(json.dumps({"network": place.name}))
    assert Artifacts(bundle, tmp_path / "cache").find_network("fp32") is None


def test_a_part_that_claims_terabytes_is_not_read(bundle, tmp_path):
    folder = Artifacts(bundle, tmp_path / "cache").add_network("fp32", save).parent
    os.truncate(folder / "network.bin", 1 << 43)
    sums = json.loads((folder / "sums.json").read_text())
    text = json.dumps(sums | {"network.bin": [1 << 43, "0" * 64]})
    (folder / "sums.json").write_text(text)
    place = folder.rename(folder.with_name(f"fp32-{take_digest(text.encode())}"))
    assert f"at most {MAX_WEIGHTS_BYTES} are read" in find_damage(place)


def test_a_full_disk_keeps_the_previous_report(bundle, tmp_path):
    """The file system has 64 KiB, in its own namespace, and the report needs 80."""
    disk = tmp_path / "models" / "own"
    program = (
        "import sys; from pathlib import Path; from app.models.bundle import open_bundle;"
        "from app.models.artifacts import Artifacts;"
        "o = Artifacts(open_bundle(Path(sys.argv[1]), 'own', 1), Path(sys.argv[1], 'cache'));"
        "o.add_report('good')\n"
        "try: o.add_report('x' * 80_000)\n"
        "except Exception as error: print(repr(error))\n"
        "print(o.report_path().read_text())"
    )
    done = on_small_disk(disk, 64, program)
    error, report = done.stdout.splitlines()
    assert report == "good"
    assert "TransientError" in error
    assert "No space left on device" in error


def test_an_unreadable_report_is_ignored_with_a_warning(bundle, tmp_path, caplog):
    artifacts = Artifacts(bundle, tmp_path / "cache")
    for text in ("", '{"weights": "x"', "[" * 10_000, "[]", '{"weights": 1, "measurements": [{}]}'):
        (bundle.folder / "precision.json").write_text(text)
        assert artifacts.read_report() is None
        assert (
            "is left out, so fp32 is served; scripts/optimize makes it anew" in caplog.messages[-1]
        )
