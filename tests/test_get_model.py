"""scripts/get-model publishes torchvision's weights as a model that answers as torchvision's own lines do."""

import hashlib
import io
import json
import os
import sys

import numpy as np
import pytest
import torch
import torchvision
from torchvision.models._api import Weights, WeightsEnum

from app.commands import get_model as program
from app.commands import publish as publish_module
from app.commands.get_model import describe_weights, find_weights, format_list, main
from app.control.footprint import Footprint
from app.engines.network import PixelNetwork, list_architectures
from app.errors import BundleError
from app.models.bundle import find_bundle
from app.models.config import Fields, read_config
from app.processing.images import decode_image
from tests import reference
from tests.download_host import serve_files
from tests.helpers import STREET
from tests.random_models import load, sample_images

NAME = "squeezenet1_1"
NEEDS = Footprint("openvino", "fp32", "cpu", "asked for", 10**8)


@pytest.fixture(scope="module")
def network():
    """Return a network with random weights, and the file that torchvision would offer."""
    prepare = reference.make_prepare(resize=256)
    network = reference.make_random(NAME, 1000, sample_images(prepare)[:4])
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return network, file.getvalue()


@pytest.fixture
def host(network, monkeypatch):
    """Return a download host with that file, which torchvision names as its own."""
    content = network[1]
    name = f"{NAME}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    real = torchvision.models.get_model_weights(NAME).IMAGENET1K_V1
    with serve_files() as host:
        host.files[name] = content

        class Own(WeightsEnum):
            IMAGENET1K_V1 = Weights(f"{host.url}/{name}", real.transforms, real.meta)
            DEFAULT = IMAGENET1K_V1

        monkeypatch.setattr(torchvision.models, "get_model_weights", lambda _: Own)
        yield host


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Return a function that runs the program and returns its last words; only the measurement is left out."""
    monkeypatch.setattr(publish_module, "find_footprint", lambda *_: NEEDS)
    for key in [key for key in os.environ if key.startswith("SERVING_")]:
        monkeypatch.delenv(key)
    for key in ("models", "cache", "run"):
        monkeypatch.setenv(f"SERVING_{key.upper()}", str(tmp_path / key))

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["get-model", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return str(stop)
        return capsys.readouterr().err

    return run


@pytest.mark.slow
def test_the_published_model_answers_as_torchvision_does(host, run, network, tmp_path):
    said = run(NAME)
    bundle = find_bundle(tmp_path / "models", f"{NAME}-imagenet")
    assert (bundle.version, len(bundle.class_names)) == (1, 1000)
    assert "it answers as squeezenet1_1-imagenet, version 1, and is the default" in said
    assert "license: torchvision: BSD-3-Clause" in said
    assert not list((tmp_path / "cache" / "downloads").iterdir())
    (file,) = host.files
    weights = torchvision.models.get_model_weights(NAME).DEFAULT
    image = reference.as_rgb(STREET.read_bytes())
    with torch.inference_mode():
        (expected,) = network[0](weights.transforms()(image)[None]).numpy()
    pixels = decode_image(io.BytesIO(STREET.read_bytes()), 10**9, transform=bundle.config.transform)
    (logits,) = load(bundle, tmp_path, "eager").forward([pixels]).logits
    assert np.abs(logits - expected).max() < 1e-3
    labels = [bundle.class_names[index] for index in bundle.config.decision.choose(logits)]
    best = np.argsort(expected)[-5:]
    assert labels == [weights.meta["categories"][index] for index in best]
    config = json.loads((bundle.folder / "model.json").read_text())
    assert config["source"] == f"{host.url}/{file}"
    assert config["scores"] == weights.meta["_metrics"]


def test_the_same_weights_are_not_downloaded_twice(host, run, tmp_path):
    run(NAME)
    assert "holds these weights already" in run(NAME)
    assert len(host.ranges) == 1
    assert [path.name for path in (tmp_path / "models" / f"{NAME}-imagenet").iterdir()] == ["1"]


def test_a_file_from_elsewhere_is_taken_if_it_is_torchvisions(host, run, network, tmp_path):
    (tmp_path / "weights.pt").write_bytes(network[1])
    host.statuses = [404]
    run(NAME, "--from", tmp_path / "weights.pt")
    assert (tmp_path / "weights.pt").exists()
    assert (tmp_path / "models" / f"{NAME}-imagenet" / "1" / "model.safetensors").exists()
    assert not host.ranges
    (tmp_path / "weights.pt").write_bytes(network[1] + b"?")
    (tmp_path / "models" / f"{NAME}-imagenet").rename(tmp_path / "old")
    said = run(NAME, "--from", tmp_path / "weights.pt")
    assert said.startswith(f"not published: {tmp_path}/weights.pt is not {NAME}-")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_mirror_can_be_named(host, run, network):
    (name,) = host.files
    host.files = {f"mirror/{name}": network[1]}
    assert "answers 404 Not Found; if you have the file from elsewhere: scripts/get-model" in run(
        NAME
    )
    assert "is the default" in run(NAME, "--url", f"{host.url}/mirror/")
    assert run(NAME, "--url", "ftp://mirror") == "2"


def test_without_internet_the_remedy_is_named(host, run):
    host.shutdown()
    host.server_close()
    said = run(NAME)
    assert "cannot be downloaded: the host cannot be reached (Connection refused)" in said
    assert said.endswith(
        f"if you have the file from elsewhere: scripts/get-model {NAME} --from FILE"
    )


def test_the_demo_that_is_not_served_any_more_is_told(host, run, tmp_path):
    (tmp_path / "models" / "demo").mkdir(parents=True)
    assert "the demo is not served beside other models (SERVING_MODEL=demo" in run(NAME)


def test_pictures_are_used_to_measure_reduced_precisions_of_the_new_model(
    host, run, tmp_path, monkeypatch
):
    seen = []

    def optimize(settings, pictures):
        seen.append((find_bundle(settings.models, settings.model).name, pictures))
        raise BundleError("there are too few")

    monkeypatch.setattr("app.commands.optimize.optimize", optimize)
    said = run(NAME, "--pictures", tmp_path / "photos")
    assert said == "published, but in fp32 only: there are too few"
    assert seen == [(f"{NAME}-imagenet", tmp_path / "photos")]


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet51", "", r"no classifier 'resnet51'; it has resnet50, .*--list"),
        ("resnet50", "V1", r"no weights 'V1'; it has IMAGENET1K_V2, IMAGENET1K_V1$"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(name, weights, message):
    with pytest.raises(BundleError, match=message):
        find_weights(name, weights)


def test_the_list_names_every_classifier_with_its_default_weights_first():
    rows = [line.split() for line in format_list().splitlines()[1:-1]]
    assert {row[0] for row in rows} == set(list_architectures())
    assert [row[1] for row in rows if row[0] == "resnet50"] == ["IMAGENET1K_V2", "IMAGENET1K_V1"]
    assert "IMAGENET1K_FEATURES" not in format_list()  # it has no classes


@pytest.mark.parametrize("architecture", list_architectures())
def test_every_models_config_is_valid_and_prepares_as_its_weights_do(architecture, tmp_path):
    for weights in {
        find_weights(architecture, each.name) for each in program.list_weights(architecture)
    }:
        described = describe_weights(architecture, weights)
        config = read_config(Fields(tmp_path, described), 1000)
        transform = weights.transforms()
        assert config.transform.interpolation == transform.interpolation.value
        assert (config.transform.side, config.transform.resize) == (
            transform.crop_size[0],
            transform.resize_size[0],
        )
        pixels = torch.randint(0, 256, (3, 2, 2), dtype=torch.uint8)
        ours = PixelNetwork(torch.nn.Identity(), 3, config)(pixels[None])[0]
        theirs = torchvision.transforms.functional.normalize(
            pixels / 255, transform.mean, transform.std
        )
        if architecture in ("googlenet", "inception_v3"):
            theirs = pixels / 127.5 - 1  # what their transform_input makes of it
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_weights_that_forbid_commercial_use_say_so():
    weights = find_weights("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")
    assert describe_weights("vit_b_16", weights)["license"].startswith("CC-BY-NC 4.0")
