"""Logits become the labels and scores of one image."""

import numpy as np
import pytest

from app.models.config import DEFAULT, ModelConfig
from app.processing.decision import Decision
from app.serving.prediction import Prediction
from app.serving.ticket import Timing
from tests.helpers import make_entry, make_model

NAMES = ("Ant", "Bee", "Cat")


def predict(logits: np.ndarray, config: ModelConfig = DEFAULT) -> Prediction:
    """Return the answer of a model with such a config."""
    model = make_model(make_entry(), NAMES, lambda *_: logits, config=config)
    return Prediction(logits, model, Timing(0.0, 0.0, 1, True), 0.0, (60, 40))


def test_labels_pass_strictly_above_the_threshold_in_ascending_order():
    assert predict(np.float32([0.5, 3.0, 1.0])).labels() == ["Cat", "Bee"]
    assert predict(np.float32([0.5001, 3.0, 1.0])).labels() == ["Ant", "Cat", "Bee"]
    assert predict(np.float32([0, -1, 0.5])).labels() == []
    assert predict(np.float32([np.nan, 1, np.nan])).labels() == ["Bee"]


def test_a_models_own_rule_decides_and_computes_the_scores():
    one_label = ModelConfig(decision=Decision("softmax", top_k=1))
    prediction = predict(np.float32([0.5, 3.0, 1.0]), one_label)
    assert prediction.labels() == ["Bee"]
    assert prediction.scores().sum() == pytest.approx(1)
    sigmoids = predict(np.float32([0, 100, -100])).scores()
    assert sigmoids.round(6).tolist() == [0.5, 1, 0]


def test_scores_are_sigmoids_without_overflow():
    """Logits with an exponential beyond float32 are included; a warning would be an error here."""
    logits = np.float32([-1000, -20, 0, 2, 1000, np.nan])
    scores = predict(logits).scores()
    assert scores.dtype == np.float32
    assert scores == pytest.approx([0, 2.0611536e-9, 0.5, 0.880797, 1, np.nan], nan_ok=True)
