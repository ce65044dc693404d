"""A converted network is checked before it serves: damaged, mixed or truncated ones are refused."""

import json
import shutil

import numpy as np
import pytest
import torch
import torchvision

from app.engines.conversion import convert_bundle
from app.engines.engine import Choice
from app.engines.loader import load_engine
from app.engines.openvino import cpu_precisions
from app.engines.self_check import make_noise
from app.errors import BundleError
from app.models.artifacts import Artifacts
from tests.disks import on_small_disk
from tests.random_models import write_model

pytestmark = pytest.mark.slow

SIDE = 32
CONFIG = {"architecture": "squeezenet1_1", "input_size": SIDE}
SUMS = [19171626, 19069376, 18284544]  # of each image
CPU = Choice("openvino", "fp32", "cpu", 1, 1)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Return a small converted model."""
    torch.manual_seed(3)
    weights = torchvision.models.get_model(CONFIG["architecture"], num_classes=5).state_dict()
    weights = {name: 3 * tensor for name, tensor in weights.items()}  # answers that are not near 0
    bundle = write_model(tmp_path_factory.mktemp("model") / "own", weights, CONFIG)
    convert_bundle(Artifacts(bundle, bundle.folder / "cache"))
    return bundle


@pytest.fixture
def artifacts(converted, tmp_path):
    """Return a copy of it."""
    shutil.copytree(converted.folder, tmp_path / "own")
    return Artifacts(
        write_model(tmp_path / "own", torch.load(converted.weights), CONFIG), tmp_path / "c"
    )


def replace_network(artifacts, save):
    """Replace the fp32 network by another, with right checksums and the answers of the first."""
    answers = artifacts.read_answers()

    def write(path):
        save(path)
        return answers

    artifacts.add_network("fp32", write)


def test_noise_is_the_same_everywhere():
    noise = make_noise(224)
    assert noise.shape == (3, 3, 224, 224)
    assert noise.dtype == np.uint8
    assert [int(each.sum()) for each in noise] == SUMS


def test_a_converted_network_answers_as_torch_in_every_precision(artifacts):
    for precision, reason in cpu_precisions(artifacts).items():
        if not reason:
            load_engine(Choice("openvino", precision, "cpu", 2, 2), artifacts)
    assert (np.abs(artifacts.read_answers()) > 0.2).any()


def test_a_network_of_zeros_is_detected_before_it_serves(artifacts):
    """The checksums are right: the file was zeros before they were computed."""
    network = artifacts.find_network("fp32")

    def save(path):
        shutil.copyfile(network, path)
        numbers = network.with_suffix(".bin").stat().st_size
        path.with_suffix(".bin").write_bytes(bytes(numbers))

    replace_network(artifacts, save)
    with pytest.raises(
        BundleError, match=r"answers images of noise differently .*: by .*, the limit is"
    ):
        load_engine(CPU, artifacts)


def test_a_network_of_other_weights_is_detected_before_it_serves(artifacts, converted):
    """The files are a mix of two networks."""
    network = artifacts.find_network("fp32")

    def save(path):
        shutil.copyfile(network, path)
        numbers = np.fromfile(network.with_suffix(".bin"), np.float32)
        numbers[: len(numbers) // 2] = numbers[: len(numbers) // 2][::-1]
        numbers.tofile(path.with_suffix(".bin"))

    replace_network(artifacts, save)
    with pytest.raises(BundleError, match="answers"):
        load_engine(CPU, artifacts)


@pytest.mark.parametrize("how", ["half", "exchanged"])
def test_an_eager_worker_loads_only_the_checked_weights(artifacts, how):
    load_engine(Choice("eager", "fp32", "cpu", 1, 1), artifacts)
    weights = artifacts.bundle.weights
    if how == "half":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    else:
        tensors = {name: 2 * tensor for name, tensor in torch.load(weights).items()}
        torch.save(tensors, weights)
    with pytest.raises(BundleError, match=r"model\.pth (has changed since|cannot be read as)"):
        load_engine(Choice("eager", "fp32", "cpu", 1, 1), artifacts)
    assert load_engine(CPU, artifacts)  # it reads the network converted from the checked ones


def test_a_full_disk_while_converting_is_one_line_and_leaves_nothing(converted, tmp_path):
    """4 MiB for a network of 3, where 3 are taken by the weights."""
    disk = tmp_path / "disk"
    shutil.copytree(converted.folder, disk, ignore=shutil.ignore_patterns("optimized", "cache"))
    program = (
        "import sys; from pathlib import Path; from app.models.bundle import open_bundle;"
        "from app.engines.conversion import convert_bundle; from app.models.artifacts import Artifacts\n"
        "folder = Path(sys.argv[1])\n"
        "try: convert_bundle(Artifacts(open_bundle(folder, 'own', 1), folder / 'cache'))\n"
        "except Exception as error: print(type(error).__name__, str(error).replace(str(folder), ''))\n"
        "print([path.name for path in folder.rglob('*') if path.is_file()])"
    )
    size = sum(path.stat().st_size for path in disk.iterdir()) // 1024
    done = on_small_disk(disk, size + 1000, program)
    message, left = done.stdout.splitlines()
    assert message.startswith("TransientError the fp32 network cannot be written (/optimized/")
    assert "is the disk full?" in message
    assert message.endswith("set SERVING_CACHE to a folder that can")
    assert sorted(json.loads(left.replace("'", '"'))) == [
        "class_name.json",
        "model.json",
        "model.pth",
    ]
