"""The input that model.json describes is the one that torchvision's own transforms make."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference_of

from app.engines.cuda import CudaEngine
from app.engines.network import PixelNetwork
from app.models.bundle import open_bundle
from app.models.config import DEFAULT
from app.processing.images import (
    FILTERS,
    MAX_UNCUT,
    InputTransform,
    decode_image,
    needed_size,
    prepare_pixels,
)
from tests import reference
from tests.cuda_stand_in import FakeCuda
from tests.helpers import STREET, encode, photo_like
from tests.random_models import CLASSES, load, sample_images, write_model

SIZES = [(300, 200), (97, 640), (40, 40)]
SMOOTH = {size: photo_like(*size) for size in SIZES}
CAFFE = {
    "channels": "BGR",
    "input_range": [0, 255],
    "mean": [103.939, 116.779, 123.68],
    "deviation": None,
}


def prepare(image, transform, fast=False):
    return prepare_pixels(np.asarray(image), 10**9, fast, transform).astype(int)


def torchvisions(image, transform):
    """Return torchvision's resize and crop, of an image or a tensor: (3, side, side) int."""
    mode = InterpolationMode(transform.interpolation)
    size = [transform.resize] if transform.resize else [transform.side] * 2
    if not transform.antialias:
        image = reference_of.pil_to_tensor(image)
    resized = reference_of.resize(image, size, mode, antialias=transform.antialias)
    cropped = reference_of.center_crop(resized, transform.side)
    pixels = cropped if isinstance(cropped, torch.Tensor) else reference_of.pil_to_tensor(cropped)
    return pixels.numpy().astype(int)


def test_all_of_torchvisions_interpolations_are_known():
    assert set(FILTERS) == {mode.value for mode in InterpolationMode}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resize", [None, 70])
@pytest.mark.parametrize("interpolation", FILTERS)
def test_an_interpolation_equals_torchvisions_exactly_and_the_fast_path_nearly(
    interpolation, resize, size
):
    transform = InputTransform(64, resize, interpolation)
    expected = torchvisions(SMOOTH[size], transform)
    assert np.array_equal(prepare(SMOOTH[size], transform), expected)
    assert np.abs(prepare(SMOOTH[size], transform, fast=True) - expected).max() <= 2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resize", [None, 70])
def test_without_antialiasing_pixels_are_those_that_torchvision_makes_of_a_tensor(resize, size):
    noise = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), np.uint8)
    transform = InputTransform(64, resize, antialias=False)
    image = Image.fromarray(noise)
    for fast in (False, True):
        assert np.abs(prepare(image, transform, fast) - torchvisions(image, transform)).max() <= 1
    smooth = prepare(image, InputTransform(64, resize))
    assert size == (40, 40) or np.abs(smooth - prepare(image, transform)).mean() > 5


@pytest.mark.parametrize("options", [{"interpolation": "bicubic"}, {"antialias": False}])
def test_only_the_center_of_a_very_long_image_is_resized(options):
    transform = InputTransform(224, 256, **options)
    long = photo_like(1, 100_000)
    assert np.prod(transform.uncut(*long.size)) > MAX_UNCUT
    expected = torchvisions(long.crop((0, 49_900, 1, 50_100)), transform)
    assert np.abs(prepare(long, transform) - expected).max() <= 3


def test_a_jpeg_is_not_decoded_at_a_fraction_of_its_size_if_only_the_nearest_pixels_count():
    assert needed_size(InputTransform(), fast=True) == (448, 448)
    for transform in (InputTransform(antialias=False), InputTransform(interpolation="nearest")):
        assert needed_size(transform, fast=True) is None
        data = encode(photo_like(2000, 1500), "JPEG")
        exact, fast = (
            decode_image(io.BytesIO(data), 10**9, fast=fast, transform=transform)
            for fast in (False, True)
        )
        assert np.array_equal(exact, fast)


@pytest.fixture
def config_of(tmp_path):
    """Return a function that reads a model.json."""
    (tmp_path / "model.pth").write_bytes(b"weights")
    (tmp_path / "class_name.json").write_text('["a", "b"]')

    def read(content):
        (tmp_path / "model.json").write_text(json.dumps(content))
        return open_bundle(tmp_path, "leaves", 1).config

    return read


PIXELS = torch.randint(
    0, 256, (1, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(7)
)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (CAFFE, PIXELS.flip(1) - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)),
        ({"mean": None, "deviation": None}, PIXELS / 255),
        ({"mean": None, "deviation": None, "input_range": [0, 255]}, PIXELS.float()),
        ({"mean": [0.5] * 3, "deviation": None}, PIXELS / 255 - 0.5),
        ({"mean": [127.5] * 3, "deviation": [127.5] * 3, "input_range": [0, 255]}, PIXELS / 127.5 - 1),
        ({"input_range": [0, 255]}, reference_of.normalize(PIXELS / 255, DEFAULT.mean, DEFAULT.deviation)),
        (
            {"channels": "BGR"},
            reference_of.normalize(PIXELS / 255, DEFAULT.mean, DEFAULT.deviation).flip(1),
        ),
    ],
)  # fmt: skip
def test_channels_range_mean_and_deviation_make_the_networks_input(config_of, written, expected):
    network = PixelNetwork(torch.nn.Identity(), 3, config_of(written))
    assert torch.allclose(network(PIXELS), expected, atol=1e-4)


def test_the_caffe_style_is_the_same_written_in_either_range(config_of):
    in_bytes = config_of(CAFFE)
    in_units = config_of(
        {
            "channels": "BGR",
            "mean": [value / 255 for value in CAFFE["mean"]],
            "deviation": [1 / 255] * 3,
        }
    )
    assert in_bytes == in_units


def test_a_key_that_changes_the_network_makes_new_artifacts_and_any_key_a_new_report(config_of):
    changes = [
        {"interpolation": "bicubic"},
        {"antialias": False},
        {"channels": "BGR"},
        {"mean": None},
        {"input_range": [0, 255], "deviation": None},
    ]
    configs = [DEFAULT, *map(config_of, changes)]
    assert len({config.digest() for config in configs}) == len(configs)
    networks = [config.network_digest("a") for config in configs]
    assert networks[0] == networks[1] == networks[2]
    assert len(set(networks)) == 4


def test_digests_of_models_without_the_newer_keys_are_those_of_earlier_releases():
    """Otherwise every measured precision would have to be measured again after an update."""
    assert DEFAULT.digest() == "e5ba5111eb14b97d"
    assert DEFAULT.network_digest("a") == "2debc9c5131cbb97"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "eager"])
def test_an_image_gets_the_logits_of_a_network_that_was_trained_on_bgr(tmp_path, engine):
    side, mean = 64, torch.tensor(CAFFE["mean"]).view(3, 1, 1)

    def as_caffe(image):
        small = image.resize((side, side), Image.Resampling.BICUBIC)
        return reference_of.pil_to_tensor(small).flip(0) - mean

    expected = reference.make_random("shufflenet_v2_x0_5", CLASSES, sample_images(as_caffe))
    config = {
        "architecture": "shufflenet_v2_x0_5",
        "input_size": side,
        "interpolation": "bicubic",
        **CAFFE,
    }
    bundle = write_model(tmp_path / "own", expected.state_dict(), config)
    file = io.BytesIO(STREET.read_bytes())
    image = decode_image(file, 10**9, transform=bundle.config.transform)
    with torch.inference_mode():
        logits = expected(as_caffe(reference.as_rgb(STREET.read_bytes()))[None]).numpy()
        rgb = expected((torch.from_numpy(image) - mean)[None]).numpy()
    assert np.abs(load(bundle, tmp_path, engine).forward([image]).logits - logits).max() < 1e-3
    assert np.abs(rgb - logits).max() > 0.1  # the order of the channels matters


@pytest.mark.slow
def test_the_gpu_engine_takes_the_channels_in_the_models_order(tmp_path, monkeypatch):
    """It compares its answers with the CPU's, too; a stand-in replaces the GPU."""
    FakeCuda(monkeypatch)
    expected = get_model("shufflenet_v2_x0_5", num_classes=CLASSES).eval()
    config = {"architecture": "shufflenet_v2_x0_5", "input_size": 64, **CAFFE}
    bundle = write_model(tmp_path, expected.state_dict(), config)
    pixels = np.random.default_rng(5).integers(0, 256, (2, 3, 64, 64), np.uint8)
    images = torch.from_numpy(pixels).flip(1) - torch.tensor(CAFFE["mean"]).view(3, 1, 1)
    with torch.inference_mode():
        logits = expected(images).numpy()
    answers = CudaEngine(bundle, "cpu", "fp32", 2).forward(list(pixels)).logits
    assert np.allclose(answers, logits, rtol=1e-3, atol=1e-4)
