"""Other networks than ResNet-50 answer as torchvision does, from an image to its labels."""

import io

import numpy as np
import pytest
import torch
from torch.fx.proxy import TraceError
from torchvision.models import VisionTransformer, get_model
from torchvision.transforms.functional import normalize

from app.engines import cuda as gpu
from app.engines import network
from app.engines.engine import Choice
from app.engines.likeness import find_remedy
from app.engines.network import build_network
from app.errors import BundleError
from app.processing.images import decode_image
from app.serving.model import Model
from app.serving.server import Prediction
from app.serving.ticket import Timing
from tests import reference
from tests.helpers import SAMPLES
from tests.random_models import CLASSES, load, sample_images, with_grain, write_model

pytestmark = pytest.mark.slow

CONFIGS = {
    "resnet18": {"crop": {"resize": 256}, "activation": "softmax", "top_k": 3},
    "mobilenet_v3_small": {"input_size": 96, "mean": [0.5] * 3, "deviation": [0.5] * 3},
    "efficientnet_b0": {"input_size": 64, "crop": {"resize": 70}, "threshold": [-1, 0, 1, 0, 0]},
}


@pytest.fixture(scope="module", params=CONFIGS)
def classifier(request, tmp_path_factory):
    """Return a bundle of an architecture, its reference, and the reference's image transform."""
    config = {"architecture": request.param, **CONFIGS[request.param]}
    prepare = reference.make_prepare(
        config.get("input_size", 224),
        config.get("crop", {}).get("resize"),
        config.get("mean", (0.485, 0.456, 0.406)),
        config.get("deviation", (0.229, 0.224, 0.225)),
    )
    expected = reference.make_random(request.param, CLASSES, with_grain(sample_images(prepare)))
    folder = tmp_path_factory.mktemp("model")
    return write_model(folder, expected.state_dict(), config), expected, prepare


@pytest.mark.parametrize("engine", ["openvino", "eager"])
def test_an_architecture_gets_the_references_logits(classifier, tmp_path, engine):
    bundle, expected, prepare = classifier
    loaded = load(bundle, tmp_path, engine)
    files = [path.read_bytes() for path in sorted(SAMPLES.glob("*.jpg"))[:3]]
    images = [
        decode_image(io.BytesIO(data), 10**9, transform=bundle.config.transform) for data in files
    ]
    reference_logits = np.stack([reference.logits(expected, data, prepare) for data in files])
    assert reference_logits.std(axis=0).max() > 0.1  # the images differ
    assert np.abs(loaded.forward(images).logits - reference_logits).max() < 1e-3
    assert np.abs(loaded.forward_in_lane(0, images[:1]).logits - reference_logits[:1]).max() < 1e-3


def test_a_softmax_model_answers_its_top_k_with_their_scores(tmp_path):
    prepare = reference.make_prepare(resize=256)
    expected = reference.make_random("resnet18", CLASSES, with_grain(sample_images(prepare)))
    config = {"architecture": "resnet18", **CONFIGS["resnet18"]}
    bundle = write_model(tmp_path / "own", expected.state_dict(), config)
    data = (SAMPLES / "farm.jpg").read_bytes()
    logits = torch.from_numpy(reference.logits(expected, data, prepare))
    scores, best = logits.softmax(0).topk(3)
    engine = load(bundle, tmp_path, "eager")
    image = decode_image(io.BytesIO(data), 10**9, transform=bundle.config.transform)
    (ours,) = engine.forward([image]).logits
    model = Model(bundle, Choice("eager", "fp32", "cpu", 1, 1), engine, "cpu")
    prediction = Prediction(ours, model, Timing(0.0, 0.0, 1, True), 0.0, (1, 1))
    assert prediction.labels() == [f"class {index}" for index in reversed(best.tolist())]
    assert np.allclose(np.sort(prediction.scores())[-3:], scores.numpy()[::-1], atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "side", "options"),
    [
        ("googlenet", 224, {"init_weights": False}),
        ("inception_v3", 128, {"init_weights": False}),
        ("mnasnet0_5", 64, {}),
        ("squeezenet1_1", 64, {}),
        ("swin_t", 65, {}),
    ],
)
def test_unusual_architectures_are_built_as_torchvision_builds_them(
    tmp_path, architecture, side, options
):
    """These have outputs for training only, a named version, a convolution as last layer, or windows."""
    torch.manual_seed(7)
    expected = get_model(architecture, num_classes=CLASSES, **options).eval()
    config = {"architecture": architecture, "input_size": side}
    built = build_network(write_model(tmp_path, expected.state_dict(), config))
    pixels = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    images = normalize(pixels / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.inference_mode():
        assert torch.allclose(built(pixels), expected(images), rtol=1e-3)


def test_inceptions_weights_expect_a_mean_and_deviation_of_a_half(tmp_path):
    torch.manual_seed(7)
    options = {"init_weights": False, "transform_input": True}
    expected = get_model("googlenet", num_classes=CLASSES, **options).eval()
    config = {"architecture": "googlenet", "mean": [0.5] * 3, "deviation": [0.5] * 3}
    built = build_network(write_model(tmp_path, expected.state_dict(), config))
    pixels = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    images = normalize(pixels / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.inference_mode():
        assert torch.allclose(built(pixels), expected(images), rtol=1e-3)


def test_a_transformer_is_converted_despite_torchs_attention_fast_path(tmp_path, monkeypatch):
    torch.manual_seed(7)
    small = VisionTransformer(32, 16, 1, 2, 32, 64, num_classes=CLASSES).eval()
    torch.nn.init.normal_(small.heads.head.weight)
    monkeypatch.setattr(network, "build_classifier", lambda *_: small)
    bundle = write_model(tmp_path / "own", small.state_dict(), {"input_size": 32})
    images = list(np.random.default_rng(7).integers(0, 256, (3, 3, 32, 32), np.uint8))
    converted = load(bundle, tmp_path, "openvino").forward(images).logits
    expected = load(bundle, tmp_path, "eager").forward(images).logits
    assert expected.std(axis=0).max() > 0.1
    assert np.abs(converted - expected).max() < 1e-3


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "squeezenet1_1"])
def test_a_wrong_class_count_is_reported_regardless_of_the_last_layers_name(tmp_path, architecture):
    weights = get_model(architecture, num_classes=CLASSES + 2).state_dict()
    bundle = write_model(tmp_path / "own", weights, {"architecture": architecture})
    message = "7 outputs, but class_name.json names 5 classes"
    with pytest.raises(BundleError, match=message):
        load(bundle, tmp_path, "eager")


def test_weights_of_another_architecture_than_the_configs_are_refused(tmp_path):
    weights = get_model("resnet34", num_classes=CLASSES).state_dict()
    bundle = write_model(tmp_path / "own", weights, {"architecture": "resnet18"})
    with pytest.raises(
        BundleError,
        match=r"own/model\.pth does not fit resnet18: these look like resnet34: write",
    ):
        load(bundle, tmp_path, "eager")


def test_a_transformer_of_another_input_size_is_named_with_it(tmp_path):
    with torch.device("meta"):
        weights = get_model("vit_b_32", num_classes=CLASSES, image_size=384).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for config in ({}, {"architecture": "vit_b_32"}):
        bundle = write_model(tmp_path / "own", {}, config)
        remedy = find_remedy(bundle, shapes, network.list_architectures(), network.find_shapes)
        keys = '{"architecture": "vit_b_32", "input_size": 384}'
        assert remedy == f"these look like vit_b_32: write {keys} into model.json"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ResNet18", r'architecture is "ResNet18"; .* such as resnet18, '),
        ("mobilenetv3_small", "mobilenet_v3_small"),
        ("fasterrcnn_resnet50_fpn", "expected a torchvision classifier, such as"),
        ("x", "such as resnet50, mobilenet_v3_small$"),
    ],
)
def test_an_unknown_architecture_is_reported_with_the_closest_names(tmp_path, name, message):
    bundle = write_model(tmp_path / "own", {}, {"architecture": name})
    with pytest.raises(BundleError, match=rf"^{tmp_path}/own/model\.json: .*{message}"):
        build_network(bundle)


@pytest.mark.parametrize(
    ("architecture", "side", "reason"),
    [
        ("vit_b_32", 100, "Input shape indivisible by patch size"),
        ("squeezenet1_1", 8, ".+"),
        ("maxvit_t", 100, ".+"),
    ],
)
def test_an_input_size_that_the_architecture_cannot_take_is_reported(
    tmp_path, architecture, side, reason
):
    weights = {}
    if architecture == "squeezenet1_1":
        weights = get_model(architecture, num_classes=CLASSES).state_dict()
    config = {"architecture": architecture, "input_size": side}
    bundle = write_model(tmp_path / "own", weights, config)
    message = rf"model\.json: input_size is {side}; {architecture} cannot take that: {reason}"
    with pytest.raises(BundleError, match=message):
        build_network(bundle)


def test_folding_keeps_the_outputs_of_a_network_with_batch_norms_before_and_after_convolutions(
    tmp_path,
):
    images = torch.rand(4, 3, 64, 64)
    expected = reference.make_random("densenet121", CLASSES, images)
    config = {"architecture": "densenet121", "input_size": 64}
    bundle = write_model(tmp_path, expected.state_dict(), config)
    plain = build_network(bundle)
    folded = gpu.prepare_network(build_network(bundle), torch.float32)
    assert count_norms(folded) < count_norms(plain)
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.allclose(plain(pixels), folded(pixels), atol=1e-3)


def test_an_architecture_that_cannot_be_traced_is_served_unfolded(tmp_path, monkeypatch):
    def refuse(_):
        raise TraceError("symbolically traced variables cannot be used as inputs to control flow")

    monkeypatch.setattr(gpu, "fuse", refuse)
    weights = get_model("resnet18", num_classes=CLASSES).state_dict()
    bundle = write_model(tmp_path, weights, {"architecture": "resnet18"})
    prepared = gpu.prepare_network(build_network(bundle), torch.float32)
    assert count_norms(prepared) == count_norms(build_network(bundle))


def count_norms(network: torch.nn.Module) -> int:
    return sum(isinstance(part, torch.nn.BatchNorm2d) for part in network.modules())
