"""Every rule from logits to passing classes matches an independent computation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from app.processing.decision import Decision

LOGITS = arrays(np.float32, st.integers(1, 9), elements=st.floats(-1e4, 1e4, width=32))


@given(LOGITS)
def test_scores_are_those_of_torch_for_logits_of_any_size(logits):
    tensor = torch.from_numpy(logits)
    for activation, expected in (("sigmoid", tensor.sigmoid()), ("softmax", tensor.softmax(0))):
        scores = Decision(activation).scores(logits)
        assert scores.dtype == np.float32
        assert np.allclose(scores, expected.numpy(), rtol=1e-5, atol=1e-7)


@given(arrays(np.float32, (3, 4), elements=st.floats(-50, 50, width=32)))
def test_images_are_decided_the_same_together_and_alone(logits):
    for decision in (
        Decision(),
        Decision("softmax", 0.3, "score"),
        Decision("sigmoid", (0.1, 0.2, 0.3, 0.4), "score"),
        Decision("softmax", top_k=2),
    ):
        together = decision.passes(logits)
        for row, logits_of_one in zip(together, logits, strict=True):
            assert row.tolist() == decision.passes(logits_of_one).tolist()
            assert sorted(decision.choose(logits_of_one)) == np.flatnonzero(row).tolist()


def test_a_class_passes_by_default_if_its_logit_is_above_a_half_in_ascending_order():
    assert Decision().choose(np.float32([0.5, 3.0, 1.0])) == [2, 1]
    assert Decision().choose(np.float32([0.50001, 3.0, 1.0])) == [0, 2, 1]
    assert Decision().choose(np.float32([0, -1, 0.5])) == []
    assert Decision().choose(np.float32([1, 2, 1])) == [0, 2, 1]


def test_the_threshold_is_configurable_and_strict():
    assert Decision(threshold=-1.0).choose(np.float32([-1, -0.5, 4])) == [1, 2]
    assert Decision(threshold=0.1).choose(np.float32([0.1, 0.2])) == [1]


def test_a_threshold_on_the_score_applies_after_the_activation():
    logits = np.float32([-0.5, 0.5, 2])  # sigmoids 0.38, 0.62, 0.88; softmax 0.06, 0.17, 0.77
    assert Decision("sigmoid", 0.5, "score").choose(logits) == [1, 2]
    assert Decision("softmax", 0.5, "score").choose(logits) == [2]
    assert Decision("softmax", 0.1, "score").choose(logits) == [1, 2]
    assert Decision("sigmoid", 0.5, "score").choose(np.float32([0])) == []


def test_each_class_can_have_its_own_threshold():
    logits = np.float32([1, 1, 1])
    assert Decision(threshold=(0.5, 1.0, -2.0)).choose(logits) == [0, 2]
    assert Decision("sigmoid", (0.7, 0.8, 0.73), "score").choose(logits) == [0, 2]


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_the_top_k_pass_at_any_score_with_the_best_last(activation):
    logits = np.float32([-7, -9, -8, -10])
    assert Decision(activation, top_k=1).choose(logits) == [0]
    assert Decision(activation, top_k=3).choose(logits) == [1, 2, 0]
    assert Decision(activation, top_k=4).choose(logits) == [3, 1, 2, 0]


def test_the_first_of_tied_classes_pass_at_the_edge_of_the_top_k():
    assert Decision(top_k=2).choose(np.float32([1, 2, 2, 2])) == [1, 2]


@pytest.mark.parametrize(
    "decision", [Decision(), Decision(threshold=0.1, threshold_on="score"), Decision(top_k=3)]
)
def test_nan_never_passes(decision):
    assert decision.choose(np.float32([np.nan, 1, np.nan])) == [1]
