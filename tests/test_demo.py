"""The demo model's documented figures are measured again on freshly drawn scenes."""

import json
import math
from contextlib import ExitStack

import numpy as np
import pytest
import torch

from app.engines.eager import EagerEngine
from app.models.bundle import find_bundle
from app.processing.decision import LOGIT_THRESHOLD
from app.processing.images import decode_image
from scripts.demo_bundle import SAMPLES as SAMPLE_SCENES
from scripts.demo_bundle import measure_bundle, write_bundle
from scripts.demo_pruning import Pruning, lamp_scores
from scripts.demo_scenes import (
    CLASS_NAMES,
    GLYPHS,
    OTHERS,
    draw_scene,
    load_pictogram,
    write_scenes,
)
from scripts.make_demo import HELD_OUT_SEED, SIDE, draw_prepared
from scripts.scores import average_precision, exact_share, mean_average_precision
from tests.conftest import DEMO
from tests.helpers import ROOT, SAMPLES

HELD_OUT = 80
VOC = [
    "Aeroplane",
    "Bicycle",
    "Bird",
    "Boat",
    "Bottle",
    "Bus",
    "Car",
    "Cat",
    "Chair",
    "Cow",
    "Dining Table",
    "Dog",
    "Horse",
    "Motorbike",
    "Person",
    "Potted Plant",
    "Sheep",
    "Sofa",
    "Train",
    "TV Monitor",
]


@pytest.fixture(scope="module")
def held_out():
    """Return the first held-out scenes: images and targets."""
    drawn = [draw_prepared((HELD_OUT_SEED, index)) for index in range(HELD_OUT)]
    return np.stack([image for image, _ in drawn]), np.stack([target for _, target in drawn])


def test_the_classes_are_vocs_twenty_in_their_order():
    assert CLASS_NAMES == VOC
    assert list(find_bundle(ROOT / "models").class_names) == VOC


def test_the_model_config_meets_the_projects_goals():
    scores = json.loads((DEMO / "model.json").read_text())["scores"]
    assert scores["held_out_scenes"] == 2000
    assert scores["mean_average_precision"] >= 0.97
    assert scores["exact_label_sets"] >= 0.85


@pytest.mark.slow
def test_the_model_configs_figures_are_true(held_out):
    promised = json.loads((DEMO / "model.json").read_text())["scores"]
    measured = measure_bundle(ROOT / "models", *held_out)
    assert measured["mean_average_precision"] >= 0.97
    assert measured["exact_label_sets"] >= 0.85
    for name in ("mean_average_precision", "exact_label_sets"):
        standard_error = math.sqrt(promised[name] * (1 - promised[name]) / HELD_OUT)
        assert measured[name] == pytest.approx(promised[name], abs=2 * standard_error)
    assert measured["zero_share_of_kernels"] == promised["zero_share_of_kernels"]


def test_the_demo_fits_into_git():
    assert sum(path.stat().st_size for path in DEMO.iterdir()) <= 12 * 2**20


def test_a_seed_determines_a_scene():
    first, again = (draw_scene(np.random.default_rng([7, 7])) for _ in range(2))
    assert first.labels == again.labels
    assert np.array_equal(np.asarray(first.image), np.asarray(again.image))
    assert draw_scene(np.random.default_rng([7, 8])).image.size != first.image.size


def test_the_calibration_scenes_are_the_first_of_any_number(tmp_path):
    write_scenes(tmp_path / "more", 3)
    names = ["000.jpg", "001.jpg", "002.jpg"]
    assert sorted(path.name for path in (tmp_path / "more").iterdir()) == names
    for name in names:
        assert (tmp_path / "more" / name).read_bytes() == (DEMO / "calibration" / name).read_bytes()


def test_a_scene_shows_up_to_four_classes_or_none_and_its_target_says_which():
    scenes = [draw_scene(np.random.default_rng([9, index])) for index in range(60)]
    assert {len(scene.labels) for scene in scenes} == {0, 1, 2, 3, 4}
    assert 0.2 < np.mean([not scene.labels for scene in scenes]) < 0.6
    for scene in scenes:
        assert list(np.flatnonzero(scene.target())) == list(scene.labels)


def test_the_pictograms_of_no_class_are_in_the_font_and_none_is_a_class():
    assert not {*OTHERS} & {*GLYPHS.values()}
    assert all(load_pictogram(glyph).size > (20, 10) for glyph in OTHERS)


@pytest.mark.slow
def test_most_photographs_get_no_label(photos):
    """Two thirds of any that show no drawings, to whose classes the demo was never trained."""
    engine = EagerEngine(find_bundle(ROOT / "models"), threads=2)
    with ExitStack() as opened:
        files = [opened.enter_context(path.open("rb")) for path in photos]
        logits = [engine.forward([decode_image(file, 10**9)]).logits[0] for file in files]
    assert np.mean([any(each > LOGIT_THRESHOLD) for each in logits]) <= 1 / 3


def test_eight_samples_exist_with_their_labels():
    rows = (SAMPLES / "labels.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == {f"{name}.jpg" for name in SAMPLE_SCENES}
    assert all((SAMPLES / row.split(",")[0]).exists() for row in rows)
    assert len(rows) == 8


def test_average_precision_agrees_with_a_ranking_worked_out_by_hand():
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    targets = np.array([1, 0, 1, 0])
    assert average_precision(scores, targets) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(scores, np.array([0, 0, 0, 1])) == pytest.approx(1 / 4)
    assert np.isnan(average_precision(scores, np.zeros(4)))
    both = np.stack([targets, np.zeros(4)], axis=1)
    assert mean_average_precision(np.stack([scores, scores], axis=1), both) == pytest.approx(5 / 6)


def test_a_label_set_counts_only_if_it_is_exactly_right():
    logits = np.array([[0.6, 0.4], [0.6, 0.6], [0.5, 0.6]])
    assert exact_share(logits, np.array([[1, 0], [1, 0], [0, 1]])) == pytest.approx(2 / 3)


def test_pruning_reaches_its_share_and_keeps_the_largest_weights():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3), torch.nn.Conv2d(8, 16, 3))
    pruning = Pruning(first=10, last=100)
    pruning.select(network, step=100)
    pruning.apply(network)
    weights = torch.cat([module.weight.flatten() for module in network])
    assert (weights == 0).float().mean() == pytest.approx(0.95, abs=0.001)
    scores = lamp_scores(torch.tensor([3.0, -1.0, 2.0]))
    assert scores.tolist() == pytest.approx([1.0, 1 / 14, 4 / 13])


@pytest.mark.slow
def test_a_written_bundle_answers_the_same(tmp_path):
    from torchvision.models import resnet50

    torch.manual_seed(0)
    network = resnet50(num_classes=len(CLASS_NAMES)).eval()
    write_bundle(tmp_path / "demo" / "1", network.state_dict())
    served = EagerEngine(find_bundle(tmp_path), threads=2)
    black = served.forward(np.zeros((1, 3, SIDE, SIDE), np.uint8)).logits[0]
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = network(-mean / deviation * torch.ones(1, 3, SIDE, SIDE))[0].numpy()
    assert np.abs(black - expected).max() < 0.05 * np.abs(expected).max(), "half precision on disk"
