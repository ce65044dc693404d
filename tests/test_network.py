"""From pixels to logits, held against the independent reference."""

import io
import json

import numpy as np
import pytest
import torch
from torchvision.models import resnet50

from app.bundle import find_bundle
from app.errors import BundleError
from app.images import decode_image
from app.network import choose_device, load_network
from tests import reference
from tests.helpers import ROOT, SAMPLES


def load(models, **options):
    options = {"wanted_device": "cpu", "slot": 0, "threads": 2, "max_batch": 2} | options
    return load_network(find_bundle(models), **options)


def write_model(folder, weights, class_count):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / "model.pth")
    names = {str(index): f"class {index}" for index in range(class_count)}
    (folder / "class_name.json").write_text(json.dumps(names))
    return folder


@pytest.fixture(scope="module")
def own_weights():
    torch.manual_seed(1)
    return resnet50(num_classes=3).state_dict()


@pytest.fixture(scope="module")
def demo():
    return load(ROOT / "models")


def pixels(data):
    return decode_image(io.BytesIO(data), 10**9)


def test_samples_and_photographs_get_the_references_logits(demo, demo_network, photos):
    for path in [*sorted(SAMPLES.glob("*.jpg")), *photos]:
        data = path.read_bytes()
        ours = demo.forward(pixels(data)[None])[0]
        assert np.abs(ours - reference.logits(demo_network, data)).max() < 1e-3, path.name


def test_a_picture_gets_the_same_logits_alone_and_in_a_batch(demo):
    batch = np.stack([pixels(path.read_bytes()) for path in sorted(SAMPLES.glob("*.jpg"))])
    together = demo.forward(batch)
    assert together.shape == (len(batch), 20)
    assert together.dtype == np.float32
    alone = np.concatenate([demo.forward(image[None]) for image in batch])
    assert np.abs(together - alone).max() < 1e-3


def test_a_model_of_ones_own_serves_with_any_class_count(tmp_path, own_weights):
    network = load(write_model(tmp_path / "own", own_weights, 3))
    data = (SAMPLES / "farm.jpg").read_bytes()
    expected = reference.logits(reference.load(own_weights), data)
    assert np.abs(network.forward(pixels(data)[None])[0] - expected).max() < 1e-3


def test_a_wrong_class_count_is_told_with_both_numbers(tmp_path, own_weights):
    write_model(tmp_path / "own", own_weights, 4)
    with pytest.raises(BundleError, match=r"3 outputs, but class_name.json names 4 classes"):
        load(tmp_path)


def test_weights_of_another_network_are_told(tmp_path):
    write_model(tmp_path / "own", {"conv.weight": torch.zeros(1)}, 3)
    with pytest.raises(BundleError, match=r"does not fit ResNet-50: .*Missing key.*conv1\.weight"):
        load(tmp_path)


def test_weights_that_answer_nan_are_told(tmp_path, own_weights):
    broken = {name: tensor.clone() for name, tensor in own_weights.items()}
    broken["fc.bias"][1] = float("nan")
    write_model(tmp_path / "own", broken, 3)
    with pytest.raises(BundleError, match="NaN"):
        load(tmp_path)


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device("auto", 0) == torch.device("cpu")
    assert choose_device("cpu", 0) == torch.device("cpu")
    with pytest.raises(BundleError, match="SERVING_DEVICE=cuda: there are 0 usable GPUs"):
        choose_device("cuda", 0)


def test_several_gpus_get_workers_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [choose_device("auto", slot).index for slot in range(4)] == [0, 1, 0, 1]
    assert choose_device("cuda:1", 0) == torch.device("cuda", 1)
    with pytest.raises(BundleError, match="there are 2 usable GPUs"):
        choose_device("cuda:2", 0)
