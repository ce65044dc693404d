"""Every engine matches the independent reference, from pixels to logits."""

import copy
import functools
import io
import json

import numpy as np
import openvino
import pytest
import torch
from PIL import Image
from torchvision.models import get_model

from app.engines import openvino as vino
from app.engines.conversion import ConversionError, convert_bundle
from app.engines.cuda import batch_sizes, prepare_network
from app.engines.engine import Choice
from app.engines.loader import load_engine
from app.engines.network import build_network
from app.errors import BundleError
from app.models.artifacts import Artifacts
from app.models.bundle import find_bundle
from app.processing.images import InputTransform, decode_image
from tests import reference
from tests.helpers import ROOT, SAMPLES, encode

pytestmark = pytest.mark.slow

MAX_BATCH = 4  # the default on the CPU
SMALL = {"architecture": "squeezenet1_1", "input_size": 32}
# The GPU if there is one: in fp32 it has to agree as the others do.
GPU = [("cuda", "cuda:0")] if torch.cuda.is_available() else []
FP32_ENGINES = [("openvino", "cpu"), ("eager", "cpu"), *GPU]


def load(models, cache, engine="eager", device="cpu", precision="fp32", max_batch=1):
    """Load a bundle's engine, converted if the engine needs it."""
    artifacts = Artifacts(find_bundle(models), cache)
    if engine == "openvino":
        convert_bundle(artifacts)
    return load_engine(Choice(engine, precision, device, 2, max_batch), artifacts)


def write_model(folder, weights, class_count, config=SMALL):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / "model.pth")
    names = {str(index): f"class {index}" for index in range(class_count)}
    (folder / "class_name.json").write_text(json.dumps(names))
    if config:
        (folder / "model.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def own_weights():
    """Return the weights of a small network with three classes."""
    torch.manual_seed(1)
    return get_model(SMALL["architecture"], num_classes=3).state_dict()


@pytest.fixture(scope="module")
def load_demo(tmp_path_factory):
    """Return a function that loads the demo's engine, once each."""

    @functools.cache
    def load_once(engine, device):
        cache = tmp_path_factory.mktemp("cache")
        return load(ROOT / "models", cache, engine, device, max_batch=MAX_BATCH)

    return load_once


@pytest.fixture(params=FP32_ENGINES, ids=lambda param: param[0])
def demo(request, load_demo):
    return load_demo(*request.param)


def pixels(data, **options):
    return decode_image(io.BytesIO(data), 10**9, **options)


def test_samples_get_the_references_logits(demo, demo_network):
    for path in sorted(SAMPLES.glob("*.jpg")):
        data = path.read_bytes()
        ours = demo.forward([pixels(data)]).logits[0]
        assert np.abs(ours - reference.logits(demo_network, data)).max() < 1e-3, path.name


def test_photographs_get_the_references_logits(load_demo, demo_network, photos):
    """The engine that is served; the others differ from it by the network alone, which the samples compare."""
    demo = load_demo(*FP32_ENGINES[0])
    for start in range(0, len(photos), MAX_BATCH):
        files = [path.read_bytes() for path in photos[start : start + MAX_BATCH]]
        logits = demo.forward([pixels(data) for data in files]).logits
        for path, data, ours in zip(photos[start:], files, logits, strict=False):
            assert np.abs(ours - reference.logits(demo_network, data)).max() < 1e-3, path.name


def test_an_image_gets_the_same_logits_alone_and_in_a_batch_of_any_size(demo):
    files = sorted(SAMPLES.glob("*.jpg"))[:MAX_BATCH]
    images = [pixels(path.read_bytes()) for path in files]
    alone = np.concatenate([demo.forward([image]).logits for image in images])
    assert alone.dtype == np.float32
    for size in range(1, MAX_BATCH + 1):
        together = demo.forward(images[:size]).logits
        assert together.shape == (size, 20)
        assert np.abs(together - alone[:size]).max() < 1e-3


def test_a_lane_answers_as_the_whole_device_does(demo):
    images = [pixels(path.read_bytes()) for path in sorted(SAMPLES.glob("*.jpg"))[:2]]
    expected = demo.forward(images).logits
    for lane in range(demo.lanes):
        assert np.abs(demo.forward_in_lane(lane, images).logits - expected).max() < 1e-3


def test_an_answer_is_not_overwritten_by_the_next(demo):
    images = [np.full((3, 224, 224), level, np.uint8) for level in (0, 255)]
    first = demo.forward(images[:1]).logits
    before = first.copy()
    demo.forward(images[1:])
    assert (first == before).all()


def test_photographs_decoded_at_a_fraction_of_their_size_keep_their_label_sets(load_demo):
    """Calibration scenes are enlarged to the size of camera photographs; scripts/optimize measures hundreds.

    The mean deviation of their logits is 0.017; decoded at half of that size it would be 0.044.
    """
    engine = load_demo("openvino", "cpu")
    scenes = sorted((ROOT / "models/demo/1/calibration").glob("*.jpg"))[:25]
    deviations, kept = [], 0
    for path in scenes:
        scene = Image.open(path)
        data = encode(scene.resize((scene.width * 5, scene.height * 5)), "JPEG", quality=90)
        exact, fast = (pixels(data, fast=fast) for fast in (False, True))
        assert (exact != fast).any()
        logits = engine.forward([exact, fast]).logits
        deviations.append(np.abs(logits[0] - logits[1]).mean())
        kept += np.array_equal(*(logits > 0.5))
    assert np.mean(deviations) < 0.03
    assert kept >= len(scenes) - 1


def test_a_model_without_a_config_is_a_resnet50_of_any_class_count(tmp_path, demo_network):
    weights = demo_network.state_dict()
    for name in ("fc.weight", "fc.bias"):
        weights[name] = weights[name][:3].clone()
    own = load(write_model(tmp_path / "own", weights, 3, config=None), tmp_path / "cache")
    data = (SAMPLES / "farm.jpg").read_bytes()
    expected = reference.logits(demo_network, data)[:3]
    assert np.abs(own.forward([pixels(data)]).logits[0] - expected).max() < 1e-3


def test_a_converted_model_serves_any_class_count(tmp_path, own_weights):
    own = load(write_model(tmp_path / "own", own_weights, 3), tmp_path / "cache", "openvino")
    network = get_model(SMALL["architecture"], num_classes=3).eval()
    network.load_state_dict(own_weights)
    data = (SAMPLES / "farm.jpg").read_bytes()
    prepare = reference.make_prepare(SMALL["input_size"])
    (found,) = own.forward([pixels(data, transform=InputTransform(32))]).logits
    assert np.abs(found - reference.logits(network, data, prepare)).max() < 1e-3


def test_bf16_gives_nearly_the_same(tmp_path, demo_network):
    """It runs on every x86 processor, by emulation without bf16."""
    engine = load(ROOT / "models", tmp_path, "openvino", precision="bf16")
    for path in sorted(SAMPLES.glob("*.jpg"))[:4]:
        expected = reference.logits(demo_network, path.read_bytes())
        found = engine.forward([pixels(path.read_bytes())]).logits[0]
        assert np.abs(found - expected).max() < 0.5


@pytest.mark.parametrize("engine", ["openvino", "eager"])
def test_a_wrong_class_count_is_refused_with_both_numbers(tmp_path, own_weights, engine):
    write_model(tmp_path / "own", own_weights, 4)
    with pytest.raises(BundleError, match=r"3 outputs, but class_name.json names 4 classes"):
        load(tmp_path, tmp_path / "cache", engine)


def test_weights_of_another_network_are_refused(tmp_path):
    write_model(tmp_path / "own", {"conv.weight": torch.zeros(1)}, 3, config=None)
    with pytest.raises(BundleError, match=r'resnet50: .*"architecture".*missing \(conv1\.weight'):
        load(tmp_path, tmp_path)


@pytest.mark.parametrize("engine", ["openvino", "eager"])
def test_weights_that_answer_nan_are_refused(tmp_path, own_weights, engine):
    broken = {name: tensor.clone() for name, tensor in own_weights.items()}
    broken["classifier.1.bias"][1] = float("nan")
    write_model(tmp_path / "own", broken, 3)
    with pytest.raises(BundleError, match="NaN"):
        load(tmp_path, tmp_path / "cache", engine)


def test_a_bundle_is_converted_once_and_again_for_other_weights(tmp_path, own_weights):
    bundle = find_bundle(write_model(tmp_path / "own", own_weights, 3))
    first = convert_bundle(Artifacts(bundle, tmp_path / "cache"))
    written = first.stat().st_mtime_ns
    assert convert_bundle(Artifacts(bundle, tmp_path / "cache")) == first
    assert first.stat().st_mtime_ns == written
    write_model(tmp_path / "own", {**own_weights, "classifier.1.bias": torch.ones(3)}, 3)
    assert convert_bundle(Artifacts(bundle, tmp_path / "cache")) != first


def test_a_network_with_other_answers_after_conversion_is_refused(
    tmp_path, own_weights, monkeypatch
):
    real = openvino.convert_model

    def convert_another(network, **how):
        another = copy.deepcopy(network)
        another.network.classifier.get_parameter("classifier.1.bias").data += 1000
        return real(another, **how)

    monkeypatch.setattr("openvino.convert_model", convert_another)
    bundle = find_bundle(write_model(tmp_path / "own", own_weights, 3))
    with pytest.raises(ConversionError, match=r"answers otherwise: by 1e\+03, the limit is "):
        convert_bundle(Artifacts(bundle, tmp_path / "cache"))
    assert Artifacts(bundle, tmp_path / "cache").find_network("fp32") is None


def test_a_network_that_openvino_cannot_convert_is_reported_as_such(
    tmp_path, own_weights, monkeypatch
):
    def refuse(*_, **__):
        raise RuntimeError("No translator found for aten::unheard_of\nand more")

    monkeypatch.setattr("openvino.convert_model", refuse)
    bundle = find_bundle(write_model(tmp_path / "own", own_weights, 3))
    with pytest.raises(ConversionError, match=r"OpenVINO cannot convert .*aten::unheard_of$"):
        convert_bundle(Artifacts(bundle, tmp_path / "cache"))


def test_a_damaged_network_is_refused(tmp_path, own_weights):
    bundle = find_bundle(write_model(tmp_path / "own", own_weights, 3))
    artifacts = Artifacts(bundle, tmp_path / "cache")

    def save(path):
        for part in (path, path.with_suffix(".bin")):
            part.write_text("no network")
        return np.zeros((3, 3), np.float32)

    artifacts.add_network("fp32", save)
    with pytest.raises(BundleError, match="OpenVINO cannot read"):
        load_engine(Choice("openvino", "fp32", "cpu", 1, 1), artifacts)


def test_a_missing_network_is_refused(tmp_path, own_weights):
    bundle = find_bundle(write_model(tmp_path / "own", own_weights, 3))
    with pytest.raises(BundleError, match="there is no int8 network"):
        load_engine(Choice("openvino", "int8", "cpu", 1, 1), Artifacts(bundle, tmp_path / "cache"))


def test_missing_processor_instructions_are_named(tmp_path, own_weights, monkeypatch):
    monkeypatch.setattr(vino, "INSTRUCTIONS", {"fp32": (), "bf16": ("amx_x",), "int8": ()})
    bundle = find_bundle(write_model(tmp_path / "own", own_weights, 3))
    usable = vino.cpu_precisions(Artifacts(bundle, tmp_path / "cache"))
    assert usable["fp32"] == ""
    assert usable["bf16"] == "the processor has none of amx_x"
    assert "there is no int8 network" in usable["int8"]


def test_folding_the_batch_norms_changes_nothing_but_rounding():
    bundle = find_bundle(ROOT / "models")
    plain, folded = build_network(bundle), prepare_network(build_network(bundle), torch.float32)
    assert not [part for part in folded.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.allclose(plain(images), folded(images), atol=1e-3)


@pytest.mark.parametrize("most", [1, 2, 7, 16, 20, 64, 100, 256])
def test_a_batch_of_any_size_has_a_graph_that_is_at_most_half_empty(most):
    sizes = batch_sizes(most)
    assert sizes[0] == 1
    assert sizes[-1] == most
    for count in range(1, most + 1):
        assert min(size for size in sizes if size >= count) < 2 * count
