"""scripts/optimize measures a precision on images outside of the calibration, and a server then uses it."""

import io
import json
import logging
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from app.commands import optimize as program
from app.commands.optimize import decode_distinct, optimize, print_report, read_images
from app.control.scanner import RepositoryScanner
from app.engines import openvino as vino
from app.engines.engine import Choice
from app.engines.loader import load_engine
from app.errors import BundleError
from app.models.artifacts import Artifacts
from app.models.bundle import find_bundle
from app.models.precision import choose_precision, parse_report, read_report
from app.processing.heatmap import make_heat_map
from app.processing.images import WHOLE, InputTransform, decode_image
from scripts.demo_scenes import draw_scene
from tests import reference
from tests.conftest import DEMO
from tests.helpers import ROOT, SAMPLES, STREET
from tests.test_precision import report as made_up_report
from tests.test_precision import row

SIDE = 128  # px
NOISE = InputTransform(32)  # of images whose content does not matter


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return a folder of models with the demo, nothing derived from it yet, at a small size.

    It was trained at several sizes, so its label sets are as stable as at its usual one.
    """
    folder = tmp_path_factory.mktemp("models")
    left_out = shutil.ignore_patterns("optimized", "precision.json", "calibration")
    shutil.copytree(DEMO, folder / "demo" / "1", ignore=left_out)
    (folder / "demo" / "1" / "model.json").write_text(json.dumps({"input_size": SIDE}))
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Return a folder of scenes, some 100 of which are measured on."""
    folder = tmp_path_factory.mktemp("scenes")
    for index in range(150):
        draw_scene(np.random.default_rng([13, index])).image.save(folder / f"{index:03}.jpg")
    return folder


def draw_noise(*seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def many_images(tmp_path_factory):
    """Return a folder of images, some 300 of which are measured on, and of some copies."""
    folder = tmp_path_factory.mktemp("many")
    for index in range(440):
        draw_noise(13, index).save(folder / f"{index:03}.jpg")
    (folder / "more").mkdir()
    for index in range(20):
        shutil.copy(folder / f"{index:03}.jpg", folder / "more" / f"{index:03}.jpg")
        Image.open(folder / f"{index:03}.jpg").save(folder / "more" / f"{index:03}.png")
    return folder


@pytest.fixture
def log_levels():
    """Restore the levels of the log's handlers: quantizing raises them all to ERROR."""
    levels = {handler: handler.level for handler in logging.getLogger().handlers}
    yield
    for handler, level in levels.items():
        handler.setLevel(level)


@pytest.mark.slow
def test_no_image_is_used_for_both_calibration_and_measurement_and_copies_count_once(
    many_images, settings
):
    images = read_images(many_images, settings(), NOISE)
    assert len(images.exact) == len(images.fast) >= 299
    assert len(images.calibrating) + len(images.exact) == 440
    assert 0.17 < len(images.calibrating) / 440 < 0.33
    assert not {image.tobytes() for image in images.calibrating} & {
        image.tobytes() for image in images.fast
    }


@pytest.mark.slow
def test_an_image_keeps_its_part_regardless_of_the_other_files(many_images, settings, tmp_path):
    before = read_images(many_images, settings(), NOISE)
    shutil.copytree(many_images, tmp_path / "scenes")
    for index in range(5):
        (tmp_path / "scenes" / f"{index:03}.jpg").rename(tmp_path / "scenes" / f"zz{index}.jpg")
        draw_noise(14, index).save(tmp_path / "scenes" / f"a{index}.jpg")
    after = read_images(tmp_path / "scenes", settings(), NOISE)
    for one, other in ((before.calibrating, after.exact), (before.exact, after.calibrating)):
        assert not {image.tobytes() for image in one} & {image.tobytes() for image in other}
    assert len(after.exact) + len(after.calibrating) == 445


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("log_levels")
def test_reduced_precisions_are_made_measured_and_then_served(
    models, scenes, settings, demo_network, monkeypatch
):
    """Fewer images than needed are used here; the container image is built with enough, and its tests check that."""
    monkeypatch.setattr(program, "MIN_AGREEMENT", 0.97)
    monkeypatch.setattr(program, "SPEED_ROUNDS", 1)
    chosen = settings(models=str(models), device="cpu")
    report, path = optimize(chosen, scenes)
    assert path == models / "demo" / "1" / "precision.json"
    artifacts = Artifacts(find_bundle(models), chosen.cache)
    network = artifacts.find_network("int8")
    assert report.weights == artifacts.weights_digest
    assert report.config == artifacts.bundle.config.digest()
    assert read_report(path, report.weights, report.config, network) == report
    rows = {row.precision: row for row in report.measurements}
    usable = vino.cpu_precisions(artifacts)
    assert set(rows) == {name for name, reason in usable.items() if not reason}
    assert report.measured >= 99
    assert report.measured + report.calibrated == 150
    assert rows["fp32"].agreement.everywhere.differing == 0
    assert rows["fp32"].max_deviation < 1e-3
    for each in report.measurements:
        found = each.agreement
        assert found.everywhere.images == report.measured
        assert found.everywhere.share >= 0.98, each
        assert (found.classes, found.classes_seen) == (20, 20)
        assert each.images_per_s > 0
    assert network.with_suffix(".bin").stat().st_size < 40e6
    (entry,) = RepositoryScanner(chosen).scan().entries
    expected, reason = choose_precision(report, "cpu", usable, "auto", insist=False)
    assert (entry.footprint.precision, entry.footprint.reason) == (expected, reason)
    insisting = settings(models=str(models), device="cpu", precision="int8", insist="on")
    (entry,) = RepositoryScanner(insisting).scan().entries
    assert entry.footprint.precision == "int8"
    check_heat_maps(artifacts, demo_network)


def check_heat_maps(artifacts, network):
    """Compare int8's heat maps with the reference; measured on 32 scenes of the usual size: 6 % of the peak apart."""
    engine = load_engine(Choice("openvino", "int8", "cpu", 2, 4), artifacts)
    data = STREET.read_bytes()
    pixels = decode_image(io.BytesIO(data), 10**9, transform=InputTransform(SIDE))
    features = engine.forward([pixels], True).features[0]
    images = reference.make_prepare(SIDE)(reference.as_rgb(data)).unsqueeze(0)
    for label in (5, 6, 14):  # a bus, a car and a person are there
        found = make_heat_map(features, engine.gradients[label])
        (expected,) = reference.grad_cam(network, "layer4.output", images, label)
        assert np.abs(found.values * found.peak - expected).max() < 0.15 * expected.max()
        assert np.corrcoef(found.values.ravel(), expected.ravel())[0, 1] > 0.99


def test_the_demos_report_matches_its_weights_and_its_own_counts():
    path = DEMO / "precision.json"
    bundle = find_bundle(ROOT / "models")
    report = read_report(
        path, bundle.weights_digest(), bundle.config.digest(), None
    )  # int8's network is not in git: its row is left out
    assert {row.precision for row in report.measurements} == {"fp32", "bf16"}
    assert all(not row.objection for row in report.measurements)
    assert path.read_text() == parse_report(path.read_bytes()).as_text()
    assert {row.precision for row in parse_report(path.read_bytes()).measurements} == {
        "fp32",
        "bf16",
        "int8",
    }


def test_too_few_images_are_reported_with_the_number_and_the_remedy(settings, tmp_path, capsys):
    expected = r"holds 8 different images, of which \d .*at least 299 are needed, 473 if one .*--pictures FOLDER"
    with pytest.raises(BundleError, match=expected):
        read_images(SAMPLES, settings(), WHOLE)
    assert "left out" in capsys.readouterr().err  # labels.csv is no image
    with pytest.raises(BundleError, match="holds 0 different images"):
        read_images(tmp_path / "absent", settings(), WHOLE)


def test_a_skipped_copy_is_named(settings, tmp_path, capsys):
    shutil.copy(SAMPLES / "farm.jpg", tmp_path / "a.jpg")
    shutil.copy(SAMPLES / "farm.jpg", tmp_path / "b.jpg")
    assert len(list(decode_distinct(tmp_path, settings(), WHOLE))) == 1
    assert f"left out {tmp_path}/b.jpg: it shows the same as {tmp_path}/a.jpg" in (
        capsys.readouterr().err
    )


def test_the_table_says_in_one_line_that_no_precision_passed(capsys):
    print_report(made_up_report(row("fp32", 0, 25), row("bf16", 9, 50), row("int8", 20, 95)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1,000 images measured, 500 others calibrated on")
    assert "99.1 %" in lines[3]
    assert lines[3].endswith("Rust: 1 of 200")
    assert lines[-1] == "no reduced precision has earned its place: fp32 is served"
    print_report(made_up_report(row("fp32", 0, 25), row("bf16", 0, 50), row("int8", 20, 95)))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("int8 on cpu has not earned its place: 20 of 1,000 images differ")


def test_the_command_names_missing_arguments(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scripts/optimize", "--pictures", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"^{tmp_path} holds 0 different images"):
        program.main()
