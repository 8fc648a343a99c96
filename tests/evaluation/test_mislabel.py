"""Measures of mislabel detection, against hand-made cases and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from deel_influence.evaluation.mislabel import (
    average_precision,
    detection_curve,
    recall_at_budget,
    roc_auc,
)

MEASURES = [detection_curve, roc_auc, average_precision, lambda s, m: recall_at_budget(s, m, [0.1])]
FLIPPED = np.array([True, True, False, False, False, False, False, False, False, False])

# scores, recall after 10, 20, 30 and 100 %, ROC AUC, average precision
CASES = {
    "perfect": (np.arange(10)[::-1], [0.5, 1.0, 1.0, 1.0], 1.0, 1.0),
    "reversed": (np.arange(10), [0.0, 0.0, 0.0, 1.0], 0.0, (1 / 9 + 2 / 10) / 2),
    "constant": (np.zeros(10), [0.1, 0.2, 0.3, 1.0], 0.5, 0.2),
    "tied at the top": (np.array([1, 0, 1] + [0] * 7), [0.25, 0.5, 0.5625, 1.0], None, None),
}


@pytest.mark.parametrize(("scores", "recalls", "auc", "precision"), CASES.values(), ids=CASES)
def test_hand_made_cases_have_the_values_found_by_hand(scores, recalls, auc, precision):
    np.testing.assert_allclose(recall_at_budget(scores, FLIPPED, [0.1, 0.2, 0.3, 1.0]), recalls)
    if auc is not None:
        assert roc_auc(scores, FLIPPED) == pytest.approx(auc)
        assert average_precision(scores, FLIPPED) == pytest.approx(precision)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("distinct", [3, 20, 10**9], ids=["many ties", "some ties", "no ties"])
def test_areas_agree_with_scikit_learn(seed, distinct):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, distinct, size=200).astype(np.float32)
    flipped = generator.random(200) < 0.2
    assert roc_auc(scores, flipped) == pytest.approx(roc_auc_score(flipped, scores))
    expected = average_precision_score(flipped, scores)
    assert average_precision(scores, flipped) == pytest.approx(expected)


def test_recall_with_ties_is_the_mean_over_all_ways_to_break_them():
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 3, size=50)
    flipped = generator.random(50) < 0.3
    shuffled = []
    for _ in range(4000):
        tie_breaker = generator.random(50)
        shuffled.append(recall_at_budget(scores + tie_breaker / 2, flipped, [0.1, 0.5]))
    # Four standard errors of a mean of 4000 recalls, each with a standard deviation below 0.1.
    expected = np.mean(shuffled, axis=0)
    np.testing.assert_allclose(recall_at_budget(scores, flipped, [0.1, 0.5]), expected, atol=0.0064)


def test_the_order_of_the_examples_does_not_matter():
    generator = np.random.default_rng(1)
    scores, flipped = generator.integers(0, 5, size=60), generator.random(60) < 0.5
    shuffle = generator.permutation(60)
    for measure in MEASURES:
        np.testing.assert_array_equal(
            measure(scores, flipped), measure(scores[shuffle], flipped[shuffle])
        )


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_scores_of_types_without_a_sign_are_read_from_the_highest_down(dtype):
    scores = np.array([0, 1, 0, 1]).astype(dtype)
    assert roc_auc(scores, np.array([False, True, False, True])) == 1.0


@pytest.mark.parametrize(("budget", "read"), [(0.29, 29), (0.295, 29), (0.0, 0), (1.0, 100)])
def test_a_budget_reads_whole_examples(budget, read):
    flipped = np.arange(100) < 50
    perfect = -np.arange(100)
    assert recall_at_budget(perfect, flipped, [budget]) == pytest.approx(min(read / 50, 1.0))


def test_the_curve_starts_at_nothing_and_ends_at_everything():
    read, found = detection_curve(
        np.array([3.0, 1.0, 2.0, 1.0]), np.array([True, False, True, True])
    )
    np.testing.assert_array_equal(read, [0, 1, 2, 4])
    np.testing.assert_array_equal(found, [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("scores", "mislabelled", "message"),
    [
        ([0.0, np.nan], [True, False], r"no NaN.* 1 of 2, the first at position 1"),
        ([0.0, 1.0], [True], r"both have the shape \(n,\)\. Received: \(2,\) and \(1,\)"),
        ([[0.0, 1.0]], [[True, False]], r"Received: \(1, 2\)"),
        ([0.0, 1.0], [1, 0], r"dtype bool\. Received: dtype int64"),
        ([0.0, 1.0], [False, False], r"some examples, and not all\. Received: 0 of 2"),
        ([0.0, 1.0], [True, True], r"Received: 2 of 2"),
    ],
)
@pytest.mark.parametrize("measure", MEASURES)
def test_unusable_arguments_are_refused_by_every_measure(measure, scores, mislabelled, message):
    with pytest.raises(ValueError, match=message):
        measure(np.array(scores), np.array(mislabelled))


@pytest.mark.parametrize("budget", [-0.1, 10, np.nan])
def test_a_budget_that_is_no_share_is_refused(budget):
    with pytest.raises(ValueError, match=r"`budgets` must hold shares from 0 to 1.*Received"):
        recall_at_budget(np.arange(10), FLIPPED, [budget])
