"""Training computes scores, tuned thresholds and its plan right."""

import json

import numpy as np
import pytest

from app.processing.decision import LOGIT_THRESHOLD
from scripts.demo_scenes import CLASS_NAMES
from scripts.scores import exact_share, f1_score, mean_average_precision, tune_threshold
from scripts.training.measure import score
from scripts.training.plan import Plan
from tests.drawn_voc import VALIDATION

# Scores


@pytest.mark.slow
def test_a_tuned_threshold_is_as_good_as_the_best_of_all():
    rng = np.random.default_rng(3)
    for _ in range(200):
        logits = rng.normal(0, 1, 12).round(1).astype(np.float32)  # rounded: some are equal
        targets = (rng.random(12) < 0.4).astype(np.float32)
        if not targets.any():
            continue
        every = [f1_score(logits, targets, t) for t in np.arange(-4, 4, 0.01)]
        threshold = tune_threshold(logits, targets, 0.5)
        assert f1_score(logits, targets, threshold) == max(every)


def test_a_class_that_is_absent_keeps_the_servers_threshold():
    assert tune_threshold(np.array([3.0, -1.0]), np.zeros(2), LOGIT_THRESHOLD) == LOGIT_THRESHOLD
    assert np.isnan(f1_score(np.array([3.0]), np.zeros(1), 0.5))
    assert np.isnan(mean_average_precision(np.zeros((2, 3)), np.zeros((2, 3))))


def test_thresholds_of_many_classes_are_compared_class_by_class():
    logits = np.array([[0.1, 3.0], [0.2, 5.0]])
    targets = np.array([[1, 0], [1, 1]])
    assert exact_share(logits, targets) == 0
    assert exact_share(logits, targets, np.array([0.0, 4.0])) == 1


def test_a_class_absent_from_the_validation_part_has_no_precision_and_the_json_is_valid(examples):
    logits = np.random.default_rng(0).normal(0, 1, (VALIDATION, 20)).astype(np.float32)
    scores = score(logits, examples.validation, CLASS_NAMES)
    assert scores["average_precision"]["TV Monitor"] is None
    assert scores["average_precision"]["Car"] is not None
    json.dumps(scores, allow_nan=False)
    assert len(scores["thresholds"]) == 20
    nobody = [type(e)(e.image, ()) for e in examples.validation]
    assert score(logits, nobody, CLASS_NAMES)["mean_average_precision"] is None


# The plan


def plan_of(**changed) -> Plan:
    rows = {
        "examples": "e",
        "pictures": 10,
        "weights": "none",
        "head_only": False,
        "epochs": 3,
        "batch": 4,
        "rate": 1e-3,
        "side": 64,
        "seed": 0,
        "exif_rotate": False,
    }
    return Plan(**(rows | changed))


def test_an_epoch_uses_each_image_at_most_once_and_resumes_in_the_middle():
    plan = plan_of()
    jobs = list(plan.draw_order(0))
    assert plan.steps == 6
    assert len(jobs) == plan.steps * 4
    for epoch in range(3):
        chosen = [index for number, index in jobs if number == epoch]
        assert len(set(chosen)) == len(chosen) == 8
    assert list(plan.draw_order(3)) == jobs[12:]
    assert list(plan_of(seed=1).draw_order(0)) != jobs


def test_the_learning_rate_rises_and_falls_to_nearly_zero():
    plan = plan_of(epochs=100)
    shares = [plan.rate_share(step) for step in range(plan.steps)]
    assert max(shares) == 1
    assert 0 < shares[0] < 0.2
    assert 0 < shares[-1] < 1e-3
    assert plan_of(epochs=1, pictures=4).rate_share(0) > 0


def test_a_batch_is_no_larger_than_the_training_part():
    assert plan_of(pictures=3, batch=32).steps == 3
