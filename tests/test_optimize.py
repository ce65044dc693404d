"""scripts/optimize: a precision earns its place on the demo's own pictures, and a server then uses it."""

import io
import shutil
import subprocess
import sys

import numpy as np
import pytest

from app import optimize as program
from app.bundle import find_bundle
from app.decision import Decision
from app.engines import Choice, load_engine
from app.engines import openvino as vino
from app.errors import BundleError
from app.heatmap import make_heat_map
from app.images import WHOLE, decode_image
from app.lineup import Curator
from app.optimize import measure_agreement, optimize, read_pictures
from app.optimized import Optimized
from app.precision import read_report
from tests import reference
from tests.conftest import DEMO
from tests.helpers import ROOT, SAMPLES, STREET


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return a folder of models with the demo as it comes, nothing derived from it yet."""
    folder = tmp_path_factory.mktemp("models")
    left_out = shutil.ignore_patterns("optimized", "precision.json")
    shutil.copytree(DEMO, folder / "demo" / "1", ignore=left_out)
    return folder


@pytest.mark.timeout(600)  # 500 pictures, five times
def test_reduced_precisions_are_made_measured_and_then_served(models, settings, demo_network):
    chosen = settings(models=str(models), device="cpu")
    report, path = optimize(chosen, None)
    assert path == models / "demo" / "1" / "precision.json"
    optimized = Optimized(find_bundle(models), chosen.cache)
    assert read_report(path, optimized.weights_hash) == report
    rows = {row.precision: row for row in report.measurements}
    usable = {name for name, reason in vino.usable_precisions(optimized).items() if not reason}
    assert set(rows) == usable
    assert report.pictures == 500
    assert rows["fp32"].agreement == 1.0
    assert rows["fp32"].max_deviation < 1e-3
    for row in report.measurements:
        assert row.agreement >= 0.99, row
        assert row.images_per_s > 0
    assert optimized.find_network("int8").with_suffix(".bin").stat().st_size < 30e6
    (entry,) = Curator(chosen).look().entries
    fastest = max(report.measurements, key=lambda row: row.images_per_s)
    assert entry.footprint.precision == fastest.precision
    check_heat_maps(optimized, demo_network)


def check_heat_maps(optimized, network):
    """Hold int8's heat maps against the reference; measured on 32 scenes: 6 % of the peak apart, correlation 0.999."""
    engine = load_engine(Choice("openvino", "int8", "cpu", 2, 4), optimized)
    data = STREET.read_bytes()
    features = engine.forward([decode_image(io.BytesIO(data), 10**9)], True).features[0]
    images = reference.PREPARE(reference.as_rgb(data)).unsqueeze(0)
    for label in (5, 6, 14):  # a bus, a car and a person are there
        found = make_heat_map(features, engine.gradients[label])
        (wanted,) = reference.grad_cam(network, "layer4.output", images, label)
        assert np.abs(found.values * found.peak - wanted).max() < 0.15 * wanted.max()
        assert np.corrcoef(found.values.ravel(), wanted.ravel())[0, 1] > 0.99


def test_the_report_that_comes_with_the_demo_is_about_its_weights():
    report = read_report(DEMO / "precision.json", find_bundle(ROOT / "models").content_hash())
    assert {row.precision for row in report.measurements} == {"fp32", "bf16", "int8"}


def test_too_few_pictures_are_told_with_the_number_and_the_way_out(settings, tmp_path, capsys):
    with pytest.raises(BundleError, match=r"holds 8 pictures; at least 100 .*--pictures FOLDER"):
        read_pictures(SAMPLES, settings(), WHOLE)
    assert "left out" in capsys.readouterr().err  # labels.csv is no picture
    with pytest.raises(BundleError, match="holds 0 pictures"):
        read_pictures(tmp_path / "absent", settings(), WHOLE)


def test_agreement_counts_whole_label_sets():
    reference = np.float32([[1, 0], [1, 1], [0, 0], [0.4, 0]])
    logits = np.float32([[2, 0.5], [1, 0.4], [0, 0], [0.6, 0]])
    assert measure_agreement(Decision(), logits, reference) == 0.5
    assert measure_agreement(Decision(), reference, reference) == 1.0


def test_agreement_is_about_the_label_sets_of_the_models_own_rule():
    reference = np.float32([[1, 0], [1, 1], [0, 0], [0.4, 0]])
    logits = np.float32([[2, 0.6], [1, 0.4], [0, 0.1], [0.6, 0]])
    assert measure_agreement(Decision("softmax", top_k=1), logits, reference) == 0.75
    assert measure_agreement(Decision("sigmoid", 0.9, "score"), logits, reference) == 1.0


def test_the_command_tells_what_is_missing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", program.__name__, "--pictures", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"{tmp_path} holds 0 pictures")
