"""Training runs on a drawn VOCdevkit, with the real network and the real program."""

import json
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torchvision.models import ResNet, resnet50
from torchvision.models.resnet import Bottleneck

from app.engines.network import build_network
from app.models.bundle import find_bundle
from scripts.demo_scenes import CLASS_NAMES
from scripts.training import start as training_start
from scripts.training.__main__ import main, make_plan, open_run, train
from scripts.training.errors import Interrupted
from scripts.training.loop import Trainer
from scripts.training.measure import predict, score
from scripts.training.options import make_parser, parse_options
from scripts.training.output import write_bundle
from scripts.training.pictures import Reader
from scripts.training.run import lock_folder
from scripts.training.start import build_classifier
from scripts.training.voc import read_voc
from tests.drawn_voc import TRAINING, error_of
from tests.helpers import ROOT

pytestmark = pytest.mark.slow

READER = Reader(max_pixels=10_000_000, exif_rotate=False)


# The training itself


@pytest.fixture(scope="module", autouse=True)
def shallow():
    """Replace ResNet-50 by its first block of each layer; the program, in its own process, trains all of it."""

    def build(weights, **options):
        assert weights is None
        return ResNet(Bottleneck, [1, 1, 1, 1], **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_start, "resnet50", build)
        yield


def start(examples, folder, *words, stop_before=None):
    """Train with a command line, on one thread; stop before a step; return the run."""
    base = ["--data", "-", "--out", str(folder), "--side", "64", "--batch", "4", "--epochs", "2"]
    options = parse_options([*base, "--weights", "none", *words])
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    checkpoint = folder / "checkpoint.pth"
    run = open_run(make_plan(options, examples, False), examples, "cpu", checkpoint)

    def check():
        if run.step == stop_before:
            raise Interrupted

    Trainer(run, examples, READER, "cpu", 1, checkpoint, check).train()
    return run


def weights_of(run):
    return {name: tensor.clone() for name, tensor in run.network.classifier.state_dict().items()}


def same_weights(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def uninterrupted(examples, tmp_path_factory):
    """Return a finished run of six steps."""
    return start(examples, tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.parametrize("step", [2, 3])
def test_a_resumed_training_ends_with_exactly_the_same_weights(
    examples, uninterrupted, tmp_path, step
):
    """The run is interrupted within an epoch (2), and while the epoch that step 3 ended is measured."""
    with pytest.raises(Interrupted):
        start(examples, tmp_path, stop_before=step)
    resumed = start(examples, tmp_path)
    assert same_weights(weights_of(resumed), weights_of(uninterrupted))
    assert resumed.history == uninterrupted.history
    assert resumed.scores == uninterrupted.scores


def test_the_same_seed_gives_the_same_result(examples, uninterrupted, tmp_path):
    again = start(examples, tmp_path)
    assert same_weights(weights_of(again), weights_of(uninterrupted))


def test_another_seed_gives_another_head(trained_file):
    one, other = (build_classifier(str(trained_file), 3, seed).fc.weight for seed in (0, 1))
    assert not torch.equal(one, other)


def test_a_checkpoint_of_another_plan_or_a_damaged_one_is_refused(examples, tmp_path):
    with pytest.raises(Interrupted):
        start(examples, tmp_path, stop_before=0)
    message = error_of(start, examples, tmp_path, "--batch", "3")
    assert "batch was 4, is 3" in message
    assert "--restart" in message
    (tmp_path / "checkpoint.pth").write_bytes(b"PK\x03\x04")
    assert "checkpoint.pth cannot be read" in error_of(start, examples, tmp_path)


@pytest.fixture(scope="module")
def trained_file(uninterrupted, tmp_path_factory):
    """Return a weights file."""
    path = tmp_path_factory.mktemp("weights") / "start.pth"
    torch.save(weights_of(uninterrupted), path)
    return path


def test_head_only_training_leaves_the_trunk_unchanged(examples, trained_file, tmp_path):
    before = torch.load(trained_file, weights_only=True)
    run = start(examples, tmp_path, "--weights", str(trained_file), "--head-only")
    after = weights_of(run)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"fc.weight", "fc.bias"}
    assert any("running_mean" in name for name in after)


def test_a_head_of_another_size_is_replaced_and_the_trunk_kept(trained_file):
    kept = torch.load(trained_file, weights_only=True)
    same = build_classifier(str(trained_file), 20, seed=0).state_dict()
    assert torch.equal(same["fc.weight"], kept["fc.weight"])
    other = build_classifier(str(trained_file), 3, seed=0).state_dict()
    assert other["fc.weight"].shape == (3, 2048)
    assert torch.equal(other["layer4.0.conv3.weight"], kept["layer4.0.conv3.weight"])


def test_training_can_start_from_the_demos_weights(monkeypatch):
    monkeypatch.setattr(training_start, "resnet50", resnet50)
    built = build_classifier(str(ROOT / "models/demo/1/model.npz"), 20, seed=0).eval()
    served = build_network(find_bundle(ROOT / "models", "demo")).classifier
    assert same_weights(built.state_dict(), served.state_dict())


def test_unusable_initial_weights_are_named(tmp_path, trained_file):
    assert "there is no such file" in error_of(build_classifier, "V1", 20, 0)
    file = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(1)}, file)
    assert "other.pth does not fit ResNet-50" in error_of(build_classifier, str(file), 20, 0)
    file.write_bytes(b"nothing")
    assert "other.pth cannot be read as weights" in error_of(build_classifier, str(file), 20, 0)


def test_the_error_without_a_network_names_the_address_of_imagenets_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no server listens there
    message = error_of(build_classifier, "imagenet", 20, 0)
    assert "https://download.pytorch.org/models/resnet50-" in message
    assert "--weights FILE" in message


def test_a_loss_of_nan_ends_the_training(examples, trained_file, tmp_path):
    weights = torch.load(trained_file, weights_only=True)
    weights["fc.bias"] += float("nan")
    torch.save(weights, tmp_path / "nan.pth")
    message = error_of(start, examples, tmp_path, "--weights", str(tmp_path / "nan.pth"))
    assert "the loss is nan at step 1" in message


# The bundle


def test_the_next_version_is_after_the_highest_and_nothing_is_overwritten(
    examples, uninterrupted, tmp_path
):
    model = tmp_path / "voc"
    (model / "7").mkdir(parents=True)
    (model / "notes").mkdir()
    classifier = uninterrupted.network.classifier
    folder = write_bundle(model, classifier, examples, uninterrupted.scores)
    assert folder == model / "8"
    assert folder.stat().st_mode & 0o055 == 0o055, "the container's user may read it"


def test_a_bundle_is_never_seen_half_written(examples, uninterrupted, tmp_path):
    """Another thread looks all the time; every version that it sees is complete."""
    model, looks, ended = tmp_path / "voc", [], threading.Event()
    model.mkdir()

    def look():
        while not ended.is_set():
            if (model / "1").exists():
                looks.append({path.name for path in (model / "1").iterdir()})
            time.sleep(0.0005)

    watcher = threading.Thread(target=look)
    watcher.start()
    write_bundle(model, uninterrupted.network.classifier, examples, uninterrupted.scores)
    time.sleep(0.01)
    ended.set()
    watcher.join()
    assert looks
    assert all(
        look == {"model.pth", "class_name.json", "model.json", "SHA256SUMS"} for look in looks
    )


def options_for(devkit, out, *words):
    return parse_options(["--data", str(devkit), "--out", str(out), "--weights", "none", *words])


def test_a_folder_that_cannot_take_versions_is_refused_before_training(devkit, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file" in error_of(train, options_for(devkit, tmp_path / "file"))


def test_missing_data_is_named(tmp_path):
    message = error_of(train, options_for(tmp_path / "nowhere", tmp_path / "out"))
    assert "nowhere: there is nothing" in message
    assert not (tmp_path / "out").exists()


def test_two_trainings_do_not_write_to_one_folder(devkit, tmp_path):
    with lock_folder(tmp_path / "out" / ".training"):
        assert "another training" in error_of(train, options_for(devkit, tmp_path / "out"))


def test_a_missing_gpu_is_named(devkit, tmp_path):
    words = options_for(devkit, tmp_path / "out", "--device", "cuda:99")
    assert "--device cuda:99: this machine has" in error_of(train, words)


if torch.cuda.is_available():

    def test_training_on_a_gpu_uses_mixed_precision(devkit, tmp_path):
        words = ["--side", "64", "--batch", "4", "--epochs", "2", "--device", "cuda"]
        folder, scores = train(options_for(devkit, tmp_path / "out", *words))
        assert 0 < scores["mean_average_precision"] <= 1
        weights = torch.load(folder / "model.pth", weights_only=True)
        assert weights["fc.weight"].dtype == torch.float32
        assert all(tensor.isfinite().all() for tensor in weights.values())


# The program


def program(devkit, out):
    words = [ROOT / "scripts" / "train.py", "--data", devkit, "--out", out, "--weights", "none"]
    words += ["--side", "64", "--batch", "4", "--epochs", "2", "--threads", "1", "--device", "cpu"]
    return [str(word) for word in words]


def test_the_program_can_be_interrupted_and_its_bundle_is_served(devkit, tmp_path):
    """From a shell in another folder: overwrite old files, Ctrl-C, the same command again, serve the result."""
    words = program("VOCdevkit", "models/voc")
    rest_of_another = tmp_path / "models" / "voc" / ".training" / "checkpoint.pth"
    rest_of_another.parent.mkdir(parents=True)
    rest_of_another.write_bytes(b"nothing to go on from")
    with subprocess.Popen(
        [*words, "--restart"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as first:
        for line in first.stderr:
            if "epoch 1" in line or " 4/6 " in line:
                break
        first.send_signal(signal.SIGINT)
        rest = first.stderr.read()
    assert first.returncode == 130, rest
    assert "the same command goes on" in rest
    assert [path.name for path in (tmp_path / "models" / "voc").iterdir()] == [".training"]

    second = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert "going on from models/voc/.training/checkpoint.pth" in second.stderr
    assert "written to models/voc/1" in second.stdout
    assert "Dining Table" in second.stdout
    assert [path.name for path in (tmp_path / "models" / "voc").iterdir()] == ["1"]

    bundle = find_bundle(tmp_path / "models", "voc")
    assert list(bundle.class_names) == CLASS_NAMES
    assert bundle.description == "ResNet-50, trained on 12 pictures of VOC2007."
    scores = json.loads((bundle.folder / "model.json").read_text())["scores"]
    assert scores["training_pictures"] == TRAINING
    assert scores["average_precision"]["TV Monitor"] is None
    held_out = read_voc(devkit).validation
    network = build_network(bundle)
    logits = predict(network, held_out, READER, 1, lambda: None)
    assert np.isfinite(logits).all()
    again = score(logits, held_out, CLASS_NAMES)
    assert again["average_precision"] == scores["average_precision"]
    assert again["thresholds"] == pytest.approx(list(bundle.config.decision.threshold), abs=1e-3)


def test_errors_are_one_line_and_not_a_traceback(devkit, tmp_path, monkeypatch):
    (devkit / "VOC2007" / "JPEGImages" / "000005.jpg").unlink()
    monkeypatch.setattr(sys, "argv", program(devkit, tmp_path / "out"))
    with pytest.raises(SystemExit) as end:
        main()
    assert "000005.jpg is missing" in end.value.code
    assert "\n" not in end.value.code
    assert not (tmp_path / "out").exists()


def test_every_option_is_in_the_documentation():
    text = (ROOT / "docs" / "training.md").read_text()
    shown = {
        word
        for row in text.splitlines()
        if row.startswith("| `--")
        for word in row.split("|")[1].strip(" `").split()[:1]
    }
    real = {action.option_strings[-1] for action in make_parser()._actions if action.dest != "help"}
    assert shown == real
