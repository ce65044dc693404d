"""Heat maps of every engine and many architectures match autograd's own Grad-CAM."""

import io
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import (
    ConvNeXt,
    DenseNet,
    EfficientNet,
    MobileNetV2,
    MobileNetV3,
    ResNet,
    ShuffleNetV2,
    SqueezeNet,
    VisionTransformer,
    get_model,
)
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.resnet import BasicBlock

from app.engines import head_conversion
from app.engines import network as networks
from app.engines.conversion import convert_bundle
from app.engines.cuda import prepare_network
from app.engines.engine import Choice
from app.engines.gradcam import find_ending, find_gradients, give_features
from app.engines.loader import load_engine
from app.engines.network import build_network
from app.errors import BundleError
from app.models.artifacts import Artifacts, copy_network
from app.models.bundle import find_bundle
from app.processing.heatmap import make_heat_map
from app.processing.images import decode_image
from app.serving.model import WITHOUT_MAP
from tests import reference
from tests.helpers import ROOT, SAMPLES, STREET
from tests.random_models import CLASSES, load, sample_images, write_model

pytestmark = pytest.mark.slow

SIDE = 96
# The smallest network of each family: name → how torchvision's class builds it.
SMALLEST = {
    "resnet": partial(ResNet, BasicBlock, [1, 1, 1, 1]),
    "mobilenet_v2": partial(
        MobileNetV2, width_mult=0.25, inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2]]
    ),
    "densenet": partial(DenseNet, 8, (2, 2), 16),
    "shufflenet_v2": partial(ShuffleNetV2, [1, 1, 1], [8, 16, 24, 32, 64]),
    "efficientnet": partial(EfficientNet, [MBConvConfig(4, 3, 2, 32, 16, 2)], 0.2),
    "squeezenet": partial(SqueezeNet, "1_1"),
    "mobilenet_v3": partial(
        MobileNetV3, [InvertedResidualConfig(16, 3, 64, 24, True, "HS", 2, 1, 1)], 32
    ),
    "convnext": partial(ConvNeXt, [CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 1)]),
}
# Where the last feature map of each is, as the reference finds it.
CONSTANT = {
    "resnet": "avgpool.input",
    "mobilenet_v2": "features.output",
    "densenet": "features.output",
    "shufflenet_v2": "conv5.output",
    "efficientnet": "avgpool.input",
    "squeezenet": "classifier.3.input",
}
COMPUTED = {"mobilenet_v3": "avgpool.input", "convnext": "avgpool.input"}


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Return a factory of bundles with random weights, each with its reference and images prepared for that."""

    def make(family):
        images = sample_images(reference.make_prepare(SIDE))
        expected = reference.make_random(SMALLEST[family], CLASSES, images)
        monkeypatch.setattr(
            networks, "build_classifier", lambda _, outputs: SMALLEST[family](num_classes=outputs)
        )
        bundle = write_model(tmp_path / "own", expected.state_dict(), {"input_size": SIDE})
        return bundle, expected, images

    return make


def decode_samples(bundle):
    files = [path.read_bytes() for path in sorted(SAMPLES.glob("*.jpg"))[:3]]
    return [
        decode_image(io.BytesIO(data), 10**9, transform=bundle.config.transform) for data in files
    ]


def draw(engine, features, label):
    """Return an engine's map of an image, in logits."""
    gradients = engine.gradients
    gradient = gradients(features, label) if callable(gradients) else gradients[label]
    heat_map = make_heat_map(features, gradient)
    return heat_map.values * heat_map.peak


def check_maps(engine, bundle, expected, images, place):
    """Compare an engine's maps of three images with the reference."""
    logits, features = engine.forward(decode_samples(bundle), True)
    labels = range(CLASSES)
    reference_maps = np.stack(
        [reference.grad_cam(expected, place, images[:3], label) for label in labels]
    )
    maps = np.stack([[draw(engine, own, label) for own in features] for label in labels])
    assert reference_maps.max() > 0
    assert np.abs(maps - reference_maps).max() < 1e-3 * reference_maps.max()
    return logits


@pytest.mark.parametrize("family", CONSTANT)
def test_a_pooled_network_gives_its_heat_maps_on_every_engine(family, make, tmp_path):
    bundle, expected, images = make(family)
    for name in ("eager", "openvino"):
        engine = load(bundle, tmp_path, name)
        assert isinstance(engine.gradients, np.ndarray)
        check_maps(engine, bundle, expected, images, CONSTANT[family])


@pytest.mark.parametrize("family", COMPUTED)
def test_computing_another_networks_gradients_leaves_nothing_on_it(family, make, tmp_path):
    bundle, expected, images = make(family)
    engine = load(bundle, tmp_path, "eager")
    before = engine.forward(decode_samples(bundle)).logits
    logits = check_maps(engine, bundle, expected, images, COMPUTED[family])
    assert (logits == before).all()
    for parameter in engine._network.parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad
    for part in engine._network.modules():
        assert not part._forward_hooks
        assert not part._backward_hooks


@pytest.mark.parametrize("family", COMPUTED)
def test_openvino_computes_the_same_heat_maps_with_a_converted_gradient(family, make, tmp_path):
    bundle, expected, images = make(family)
    engine = load(bundle, tmp_path, "openvino")
    assert callable(engine.gradients)
    check_maps(engine, bundle, expected, images, COMPUTED[family])
    artifacts = Artifacts(bundle, tmp_path / "cache")

    def save(path):
        copy_network(artifacts.find_network("fp32"), path)
        return artifacts.read_answers()

    artifacts.add_network("int8", save)
    assert artifacts.find_head("int8").read_bytes() == artifacts.find_head("fp32").read_bytes()


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("MAX_NUMBERS", "the last layers have .* numbers; the limit is 0"),
        ("MAX_DEVIATION", "the converted gradient differs by .*; the limit is 0"),
    ],
)
def test_a_gradient_that_is_too_large_or_wrong_is_not_converted(limit, message, monkeypatch):
    opened = give_features(SMALLEST["mobilenet_v3"](num_classes=CLASSES).eval())
    with torch.no_grad():
        _, features = opened(torch.randn(1, 3, SIDE, SIDE))
    monkeypatch.setattr(head_conversion, limit, 0)
    with pytest.raises(BundleError, match=message):
        head_conversion.convert_head(find_gradients(opened, CLASSES), features, CLASSES)


@pytest.mark.parametrize("architecture", ["vit_b_16", "alexnet", "vgg11", "mnasnet0_5"])
def test_only_vision_transformers_have_no_last_feature_map(architecture):
    with torch.device("meta"):
        ending = find_ending(get_model(architecture))
    assert (ending is None) == architecture.startswith(WITHOUT_MAP)


@pytest.mark.parametrize("family", ["resnet", "mobilenet_v3"])
def test_a_network_folded_for_the_gpu_gives_the_same_maps(family, make):
    bundle, _, _ = make(family)
    plain = build_network(bundle)
    folded = prepare_network(build_network(bundle), torch.float32)
    assert not [part for part in folded.modules() if isinstance(part, nn.BatchNorm2d)]
    pixels = torch.from_numpy(np.stack(decode_samples(bundle)))
    maps = []
    with torch.inference_mode():
        answers = [network.run(pixels) for network in (plain, folded)]
    for network, (_, features) in zip((plain, folded), answers, strict=True):
        gradients = network.gradients()
        own = features[0].numpy()
        gradient = gradients(own, 1) if callable(gradients) else gradients[1]
        maps.append(make_heat_map(own, gradient))
    assert np.abs(maps[0].values - maps[1].values).max() < 1e-3
    assert maps[0].peak == pytest.approx(maps[1].peak, rel=1e-3)


def test_a_network_without_a_pooled_map_is_served_without_heat_maps(tmp_path, monkeypatch):
    torch.manual_seed(7)
    small = VisionTransformer(32, 16, 1, 2, 32, 64, num_classes=CLASSES).eval()
    monkeypatch.setattr(networks, "build_classifier", lambda *_: small)
    bundle = write_model(tmp_path / "own", small.state_dict(), {"input_size": 32})
    for name in ("eager", "openvino"):
        engine = load(bundle, tmp_path, name)
        assert engine.gradients is None
        logits, features = engine.forward(decode_samples(bundle), True)
        assert logits.shape == (3, CLASSES)
        assert features is None


@pytest.mark.parametrize(
    ("architecture", "constant"),
    [
        ("resnet18", True),
        ("mobilenet_v2", True),
        ("densenet121", True),
        ("shufflenet_v2_x0_5", True),
        ("efficientnet_b0", True),
        ("squeezenet1_1", True),
        ("mobilenet_v3_small", False),
        ("convnext_tiny", False),
        ("resnext50_32x4d", True),
        ("regnet_x_400mf", True),
        ("mnasnet0_5", True),
        ("swin_t", True),
        ("alexnet", False),
    ],
)
def test_the_last_feature_map_is_found_in_other_architectures(architecture, constant):
    classifier = get_model(architecture, num_classes=CLASSES).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = classifier(images)
        opened = give_features(classifier)
        logits, features = opened(images)
    assert (logits == expected).all()
    gradients = find_gradients(opened, CLASSES)
    assert isinstance(gradients, np.ndarray) == constant
    gradient = gradients[0] if constant else gradients(features[0].numpy(), 0)
    assert gradient.shape == features.shape[1:2]


@pytest.mark.parametrize("kind", ["weighted twice", "used again", "counted"])
def test_an_ending_that_only_looks_pooled_is_recognized(kind):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)
            self.pool = nn.AdaptiveAvgPool2d(2 if kind == "counted" else 1)
            self.first = nn.Linear(16 if kind == "counted" else 4, 4)
            self.last = nn.Linear(4, CLASSES)

        def forward(self, images):
            features = self.body(images)
            pooled = self.first(torch.flatten(self.pool(features), 1))
            if kind == "used again":
                pooled = pooled + features.relu_().amax(dim=(2, 3))
            return self.last(pooled)

    opened = give_features(Network().eval())
    gradients = find_gradients(opened, CLASSES)
    assert gradients is None if kind == "used again" else callable(gradients)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Return the demo, converted."""
    artifacts = Artifacts(find_bundle(ROOT / "models"), tmp_path_factory.mktemp("cache"))
    convert_bundle(artifacts)
    return artifacts


@pytest.fixture(scope="module")
def demos_maps(demo_network):
    """Return the reference's maps of three labels that are in the street: a bus, a car and a person."""
    images = reference.PREPARE(reference.as_rgb(STREET.read_bytes())).unsqueeze(0)
    return {
        label: reference.grad_cam(demo_network, "layer4.output", images, label)[0]
        for label in (5, 6, 14)
    }


@pytest.mark.parametrize(
    ("how", "apart"),
    [(("eager", "fp32"), 1e-3), (("openvino", "fp32"), 1e-3), (("openvino", "bf16"), 0.05)],
)
def test_the_demos_heat_maps_match_the_reference(demo, demos_maps, how, apart):
    """In bf16 on 32 scenes they differ by 1 % of the peak at most."""
    loaded = load_engine(Choice(*how, "cpu", 2, 2), demo)
    pixels = decode_image(io.BytesIO(STREET.read_bytes()), 10**9)
    for lane in range(loaded.lanes):
        _, features = loaded.forward_in_lane(lane, [pixels, pixels[:, ::-1]], True)
        for label, expected in demos_maps.items():
            maps = draw(loaded, features[0], label)
            assert np.abs(maps - expected).max() < apart * expected.max()


def test_features_come_only_on_request_and_change_no_logit(demo):
    engine = load_engine(Choice("openvino", "fp32", "cpu", 2, 1), demo)
    pixels = decode_image(io.BytesIO(STREET.read_bytes()), 10**9)
    without, again = engine.forward([pixels]), engine.forward([pixels], True)
    assert without.features is None
    assert again.features.shape == (1, 2048, 7, 7)
    assert (without.logits == again.logits).all()
    kept = again.features.copy()
    engine.forward([np.zeros_like(pixels)], True)
    assert (again.features == kept).all()  # they are the caller's own
