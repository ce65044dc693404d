"""Agreement of two networks and the bounds of its counts match figures of published tables."""

import numpy as np
import pytest

from app.models.agreement import Count, at_least, compare, images_needed
from app.processing.decision import Decision

NAMES = ("Rust", "Scab", "Healthy")


def compare_logits(logits, reference, decision=Decision()):  # noqa: B008
    return compare(decision, np.float32(logits), np.float32(reference), NAMES, 0.99)


@pytest.mark.parametrize(
    ("images", "differing", "bound"),
    [
        (100, 1, 0.9534),
        (100, 0, 0.9705),
        (500, 5, 0.9791),
        (500, 3, 0.9846),
        (500, 0, 0.9940),
        (20, 0, 0.8609),
        (10, 5, 0.2224),
    ],
)
def test_the_bound_is_clopper_and_pearsons(images, differing, bound):
    assert Count(images, differing).bound == pytest.approx(bound, abs=5e-5)


def test_the_bound_of_nothing_and_of_no_agreement_is_zero():
    assert Count(0, 0).bound == Count(0, 0).share == 0
    assert Count(7, 7).bound == 0


def test_the_bound_without_a_difference_is_the_closed_form_of_textbooks():
    for images in (1, 59, 299, 10_000):
        assert Count(images, 0).bound == pytest.approx(0.05 ** (1 / images), rel=1e-12)


def test_a_count_of_millions_has_a_bound_too():
    assert Count(10**7, 12_345).bound == pytest.approx(0.99875, abs=1e-5)
    assert Count(10**7, 10**7 - 1).bound == pytest.approx(5.1e-9, rel=0.01)


def test_the_binomial_tail_is_the_sum_of_its_terms():
    assert at_least(2, 3, 0.5) == pytest.approx(0.5)
    assert at_least(0, 3, 0.5) == 1
    assert at_least(1, 4, 0.9) == pytest.approx(1 - 0.1**4)
    assert at_least(20, 20, 0.01) == pytest.approx(1e-40)


def test_99_percent_takes_299_images_or_473_if_one_differs():
    assert [images_needed(differing, 0.99) for differing in range(4)] == [299, 473, 628, 773]


def test_agreement_compares_whole_label_sets():
    reference = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0.4, 0, 0]]
    logits = [[2, 0.5, 0], [1, 0.4, 0], [0, 0, 0], [0.6, 0, 0]]
    assert compare_logits(logits, reference).everywhere == Count(4, 2)
    assert compare_logits(reference, reference).everywhere == Count(4, 0)


def test_agreement_compares_the_label_sets_of_the_models_own_rule():
    reference = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0.4, 0, 0]]
    logits = [[2, 0.6, 0], [1, 0.4, 0], [0, 0.1, 0], [0.6, 0, 0]]
    assert compare_logits(logits, reference, Decision("softmax", top_k=1)).everywhere == Count(4, 1)
    assert compare_logits(logits, reference, Decision("sigmoid", 0.9, "score")).everywhere == Count(
        4, 0
    )


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_nan_agrees_with_nothing_not_even_with_itself(broken):
    fine = [[1, 0, 0], [0, 0, 0]]
    bad = [[1, 0, 0], [0, 0, broken]]
    for logits, reference in ((fine, bad), (bad, fine), (bad, bad)):
        assert compare_logits(logits, reference).everywhere == Count(2, 1)


def test_images_with_a_label_on_either_side_are_counted_separately():
    reference = [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    logits = [[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    agreement = compare_logits(logits, reference)
    assert agreement.everywhere == Count(4, 2)
    assert agreement.labelled == Count(2, 2)


def test_the_worst_class_is_the_one_whose_count_speaks_most_against_it():
    reference = np.tile(np.float32([1, 1, 0]), (100, 1))
    logits = reference.copy()
    reference[1:, 0] = logits[1:, 0] = 0
    logits[0, 0] = 0  # Rust: 1 of 1, as chance may have it
    logits[:5, 1] = 0  # Scab: 5 of 100, as it hardly may
    agreement = compare_logits(logits, reference)
    assert (agreement.worst_class.name, agreement.worst_class.count) == ("Scab", Count(100, 5))
    assert (agreement.classes, agreement.classes_seen) == (3, 2)


def test_if_all_classes_agree_the_worst_is_the_one_with_the_fewest_images():
    reference = [[1, 1, 0], [0, 1, 0]]
    agreement = compare_logits(reference, reference)
    assert (agreement.worst_class.name, agreement.worst_class.count) == ("Rust", Count(1, 0))
    assert compare_logits([[0, 0, 0]], [[0, 0, 0]]).worst_class is None
