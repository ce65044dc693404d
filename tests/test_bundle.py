"""Models on disk are found, checked and read, and every fault in them is reported."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from app.engines.weights import load_weights
from app.errors import BundleError
from app.models.bundle import find_bundle, open_bundle, put_in_place
from tests.helpers import ROOT

NAMES = {"0": "Rust", "1": "Scab"}


def make_bundle(folder, names=NAMES, weights=b"weights"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.pth").write_bytes(weights)
    (folder / "class_name.json").write_text(json.dumps(names))
    return folder


def test_the_only_model_is_found(tmp_path):
    make_bundle(tmp_path / "leaves" / "1")
    bundle = find_bundle(tmp_path)
    assert (bundle.name, bundle.version, bundle.class_names) == ("leaves", 1, ("Rust", "Scab"))


def test_the_highest_version_is_chosen_by_number_not_by_name(tmp_path):
    for version in ("1", "9", "10", "draft", ".tmp-11"):
        make_bundle(tmp_path / "leaves" / version)
    assert find_bundle(tmp_path).version == 10


def test_a_bare_folder_is_version_one(tmp_path):
    make_bundle(tmp_path / "leaves")
    assert find_bundle(tmp_path).version == 1
    assert find_bundle(tmp_path / "leaves").name == "leaves"


def test_a_bare_folder_may_have_later_versions_beside_it(tmp_path):
    make_bundle(tmp_path / "leaves")
    make_bundle(tmp_path / "leaves" / "2")
    assert find_bundle(tmp_path).version == 2


def test_the_next_version_follows_the_highest_number_in_use(tmp_path):
    model = make_bundle(tmp_path / "leaves")
    assert put_in_place(make_bundle(tmp_path / "a"), model) == model / "2"
    (model / "0007").mkdir()  # empty, but taken
    assert put_in_place(make_bundle(tmp_path / "b"), model) == model / "8"
    assert find_bundle(tmp_path, "leaves").version == 8


def test_two_concurrent_publishers_get_two_versions(tmp_path, monkeypatch):
    model = tmp_path / "leaves"
    model.mkdir()
    real = type(model).rename

    def rename_later(folder, target):
        make_bundle(target)  # the other one was faster
        monkeypatch.setattr(type(model), "rename", real)
        return real(folder, target)

    monkeypatch.setattr(type(model), "rename", rename_later)
    assert put_in_place(make_bundle(tmp_path / "a"), model) == model / "2"


def test_a_custom_model_takes_precedence_over_the_demo(tmp_path):
    make_bundle(tmp_path / "demo" / "1")
    assert find_bundle(tmp_path).name == "demo"
    make_bundle(tmp_path / "leaves" / "1")
    assert find_bundle(tmp_path).name == "leaves"
    assert find_bundle(tmp_path, "demo").name == "demo"


def test_several_models_require_a_choice(tmp_path):
    make_bundle(tmp_path / "leaves" / "1")
    make_bundle(tmp_path / "birds" / "1")
    with pytest.raises(
        BundleError, match=r"holds (birds, leaves|leaves, birds): set SERVING_MODEL"
    ):
        find_bundle(tmp_path)
    assert find_bundle(tmp_path, "birds").name == "birds"


def test_a_missing_model_is_reported_with_the_existing_ones(tmp_path):
    make_bundle(tmp_path / "leaves" / "1")
    with pytest.raises(BundleError, match="no model 'voc'; it holds leaves"):
        find_bundle(tmp_path, "voc")


def test_an_empty_or_missing_folder_is_refused(tmp_path):
    with pytest.raises(BundleError, match="holds no model"):
        find_bundle(tmp_path)
    with pytest.raises(BundleError, match="cannot be read"):
        find_bundle(tmp_path / "absent")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"0": "a", "2": "c"}, "without a gap"),
        ({"1": "a", "2": "b"}, "without a gap"),
        ({}, "without a gap"),
        ({"0": "a", "1": ""}, "must be a text"),
        ({"0": "a", "1": 7}, "must be a text"),
        ("ab", "expected a JSON object or a list of names, found 'ab'"),
    ],
)
def test_wrong_class_names_are_refused(tmp_path, names, message):
    make_bundle(tmp_path, names)
    with pytest.raises(BundleError, match=message):
        open_bundle(tmp_path, "leaves", 1)


def test_missing_or_broken_class_names_are_refused(tmp_path):
    make_bundle(tmp_path)
    (tmp_path / "class_name.json").write_text("{")
    with pytest.raises(BundleError, match=r"class_name\.json"):
        open_bundle(tmp_path, "leaves", 1)
    (tmp_path / "class_name.json").unlink()
    with pytest.raises(BundleError, match=r"class_name\.json"):
        open_bundle(tmp_path, "leaves", 1)


def test_the_config_holds_a_description_and_unknown_keys_are_refused(tmp_path):
    make_bundle(tmp_path)
    config = tmp_path / "model.json"
    config.write_text('{"description": "Leaves of apple trees."}')
    assert open_bundle(tmp_path, "leaves", 1).description == "Leaves of apple trees."
    config.write_text('{"descripton": "x"}')
    with pytest.raises(BundleError, match="descripton"):
        open_bundle(tmp_path, "leaves", 1)


WEIGHTS = {"fc.weight": torch.randn(2, 4), "steps": torch.tensor(7)}


def write_weights(path, weights=WEIGHTS):
    if path.suffix == ".npz":
        np.savez_compressed(path, **{name: tensor.numpy() for name, tensor in weights.items()})
    elif path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    return path


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "model.npz"])
def test_weights_of_every_format_are_read_back_unchanged(tmp_path, name):
    weights = load_weights(write_weights(tmp_path / name))
    assert torch.equal(weights["fc.weight"], WEIGHTS["fc.weight"])
    assert weights["steps"].dtype == torch.int64


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "model.npz"])
def test_half_precision_weights_become_single_precision(tmp_path, name):
    halves = {"fc.weight": WEIGHTS["fc.weight"].half()}
    assert load_weights(write_weights(tmp_path / name, halves))["fc.weight"].dtype == torch.float32


def test_a_checkpoint_around_the_state_dict_and_the_data_parallel_prefix_are_accepted(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in WEIGHTS.items()}}, path)
    assert set(load_weights(path)) == set(WEIGHTS)


class Bomb:
    """A pickle that would run a command while it is read."""

    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/a-pickle-ran-this",)


@pytest.mark.parametrize("name", ["model.pth", "model.npz"])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save({"fc.weight": Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BundleError, match="state_dict"):
        load_weights(path)
    from pathlib import Path

    assert not Path("/tmp/a-pickle-ran-this").exists()


def test_a_whole_pickled_module_is_refused_with_advice(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(BundleError, match=r"torch.save\(model.state_dict\(\)"):
        load_weights(tmp_path / "model.pth")


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "model.npz"])
def test_a_truncated_or_empty_file_is_refused(tmp_path, name):
    path = write_weights(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BundleError, match=name):
        load_weights(path)
    path.write_bytes(b"")
    with pytest.raises(BundleError, match=name):
        load_weights(path)


def test_the_shipped_demo_can_be_opened():
    bundle = find_bundle(ROOT / "models")
    assert (bundle.name, len(bundle.class_names)) == ("demo", 20)
    assert "not photographs" in bundle.description
