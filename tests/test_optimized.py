"""Where derived files lie: beside the model, or in the cache where that cannot be written."""

import dataclasses
import json

import pytest

from app.bundle import find_bundle
from app.card import Card
from app.decision import Decision
from app.errors import BundleError
from app.images import Frame
from app.optimized import FORMAT, Optimized


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "models" / "own"
    folder.mkdir(parents=True)
    (folder / "model.pth").write_bytes(b"weights")
    (folder / "class_name.json").write_text('{"0": "Ant"}')
    return find_bundle(tmp_path / "models")


def save(path):
    path.write_text("layers")
    path.with_suffix(".bin").write_bytes(b"numbers")


def forbid_writing(bundle):
    """Make the place beside the model unusable, for root too: a file stands where the folder would."""
    (bundle.folder / "optimized").write_text("in the way")


def test_a_network_lies_beside_the_model_and_is_found_again(bundle, tmp_path):
    optimized = Optimized(bundle, tmp_path / "cache")
    assert optimized.find_network("fp32") is None
    path = optimized.add_network("fp32", save)
    assert path.parent.parent == bundle.folder / "optimized"
    assert path.with_suffix(".bin").read_bytes() == b"numbers"
    assert Optimized(bundle, tmp_path / "cache").find_network("fp32") == path
    assert not (tmp_path / "cache").exists()


def test_where_the_model_cannot_be_written_the_cache_serves(bundle, tmp_path):
    forbid_writing(bundle)
    optimized = Optimized(bundle, tmp_path / "cache")
    path = optimized.add_network("fp32", save)
    assert path.is_relative_to(tmp_path / "cache")
    assert optimized.find_network("fp32") == path


def test_where_nothing_can_be_written_the_setting_is_named(bundle, tmp_path):
    forbid_writing(bundle)
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(BundleError, match="SERVING_CACHE"):
        Optimized(bundle, tmp_path / "cache").add_network("fp32", save)


def test_other_weights_have_another_place(bundle, tmp_path):
    before = Optimized(bundle, tmp_path / "cache")
    before.add_network("fp32", save)
    bundle.weights.write_bytes(b"better weights")
    assert Optimized(bundle, tmp_path / "cache").find_network("fp32") is None


def test_another_network_has_another_place_and_another_rule_only_another_report(bundle, tmp_path):
    before = Optimized(bundle, tmp_path / "cache")
    path = before.add_network("fp32", save)
    assert path.parent.name == f"{before.weights_hash}-{FORMAT}"
    cards = {"top_k": Card(decision=Decision(top_k=1)), "crop": Card(frame=Frame(224, 256))}
    for card in cards.values():
        same_network = Optimized(dataclasses.replace(bundle, card=card), tmp_path / "cache")
        assert same_network.find_network("fp32") == path
        assert same_network.weights_hash != before.weights_hash
    other = dataclasses.replace(bundle, card=Card("resnet18"))
    assert Optimized(other, tmp_path / "cache").find_network("fp32") is None
    assert Optimized(other, tmp_path / "cache").weights_hash != before.weights_hash


def test_a_save_that_fails_leaves_nothing_behind(bundle, tmp_path):
    optimized = Optimized(bundle, tmp_path / "cache")

    def fail(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        optimized.add_network("fp32", fail)
    assert optimized.find_network("fp32") is None
    assert not [
        path for path in bundle.folder.rglob("*") if path.is_file() and "half" in path.read_text()
    ]


def test_footprints_are_kept_by_their_conditions_and_survive_damage(bundle, tmp_path):
    optimized = Optimized(bundle, tmp_path / "cache")
    assert optimized.read_footprints() == {}
    optimized.add_footprint("at batch 8", {"host_bytes": 1})
    optimized.add_footprint("at batch 16", {"host_bytes": 2})
    assert optimized.read_footprints()["at batch 8"] == {"host_bytes": 1}
    (path,) = bundle.folder.rglob("footprints.json")
    assert set(json.loads(path.read_text())) == {"at batch 8", "at batch 16"}
    path.write_text("{")
    assert optimized.read_footprints() == {}


def test_a_report_goes_to_the_cache_where_the_bundle_cannot_be_written_and_a_newer_one_replaces_it(
    bundle, tmp_path
):
    optimized = Optimized(bundle, tmp_path / "cache")
    in_the_way = bundle.folder / "precision.json"
    in_the_way.mkdir()
    cached = optimized.add_report("older")
    assert cached == optimized.report_path()
    assert cached.is_relative_to(tmp_path / "cache")
    in_the_way.rmdir()
    assert optimized.add_report("newer") == in_the_way == optimized.report_path()
    assert in_the_way.read_text() == "newer"
