"""The accuracy after what was read has been put right."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from deel_influence.evaluation.fixing import accuracy_after_fixing

FLIPPED = np.array([True, True, False, False, False, False, False, False, False, False])
BUDGETS = [0.0, 0.1, 0.2, 0.5, 1.0]


def share_right(fixed):
    """The accuracy of a model that is wrong where a label is."""
    return 1.0 - (FLIPPED & ~fixed).mean()


@pytest.mark.parametrize(
    ("scores", "fixed"),
    [
        (np.arange(10)[::-1], [0, 1, 2, 2, 2]),
        (np.arange(10), [0, 0, 0, 0, 2]),
        (FLIPPED, [0, 1, 2, 2, 2]),
        (np.arange(10, dtype=np.uint8), [0, 0, 0, 0, 2]),
    ],
    ids=["perfect", "reversed", "the truth", "unsigned"],
)
def test_hand_made_cases_have_the_curves_found_by_hand(scores, fixed):
    curve = accuracy_after_fixing(scores, FLIPPED, share_right, BUDGETS)
    np.testing.assert_array_equal(curve.read, [0, 1, 2, 5, 10])
    np.testing.assert_array_equal(curve.fixed, fixed)
    np.testing.assert_allclose(curve.accuracy, 0.8 + np.array(fixed) / 10)


def test_only_wrong_labels_are_fixed_and_each_budget_trains_once():
    masks = []

    def train_and_test(fixed):
        masks.append(fixed)
        return 0.5

    curve = accuracy_after_fixing(np.arange(10)[::-1], FLIPPED, train_and_test, BUDGETS)
    assert [list(np.flatnonzero(mask)) for mask in masks] == [[], [0], [0, 1], [0, 1], [0, 1]]
    assert all(mask.dtype == bool for mask in masks)
    np.testing.assert_array_equal(curve.accuracy, 0.5)


def test_equal_scores_are_read_in_random_order_that_the_seed_fixes():
    def fixed(seed):
        curve = accuracy_after_fixing(np.zeros(10), FLIPPED, share_right, BUDGETS, seed)
        return curve.fixed.tolist()

    assert fixed(3) == fixed(3)
    found = np.mean([fixed(seed) for seed in range(400)], axis=0)
    # Four standard errors of 400 counts of at most two.
    np.testing.assert_allclose(found, [0.0, 0.2, 0.4, 1.0, 2.0], atol=0.15)


def test_a_real_model_gets_better_as_its_labels_do():
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(400, 3))
    labels = (inputs @ [1.0, -2.0, 0.5] > 0).astype(int)
    flipped = np.zeros(200, bool)
    flipped[np.argsort(inputs[:200, 0])[-60:]] = True
    given = np.where(flipped, 1 - labels[:200], labels[:200])

    def train_and_test(fixed):
        targets = np.where(fixed, labels[:200], given)
        return LogisticRegression().fit(inputs[:200], targets).score(inputs[200:], labels[200:])

    best = accuracy_after_fixing(flipped, flipped, train_and_test, [0.0, 0.3])
    random = accuracy_after_fixing(generator.random(200), flipped, train_and_test, [0.0, 0.3])
    assert best.accuracy[1] > random.accuracy[1] > best.accuracy[0]
    assert best.accuracy[1] > 0.95


@pytest.mark.parametrize("accuracy", [93.8, -0.1, np.nan])
def test_an_accuracy_that_is_none_is_refused(accuracy):
    with pytest.raises(ValueError, match=r"must return an accuracy, a number from 0 to 1"):
        accuracy_after_fixing(np.arange(10), FLIPPED, lambda _: accuracy, [0.1])


@pytest.mark.parametrize(
    ("scores", "mislabelled", "budgets", "message"),
    [
        (np.arange(10), FLIPPED, [10], r"`budgets` must hold shares from 0 to 1"),
        (np.full(10, np.nan), FLIPPED, [0.1], r"`scores` must hold no NaN"),
        (np.arange(9), FLIPPED, [0.1], r"both have the shape \(n,\)"),
        (np.arange(10), ~np.zeros(10, bool), [0.1], r"some examples, and not all"),
    ],
)
def test_unusable_arguments_are_refused(scores, mislabelled, budgets, message):
    with pytest.raises(ValueError, match=message):
        accuracy_after_fixing(scores, mislabelled, share_right, budgets)


def test_curves_compare_as_objects_do():
    first, second = (accuracy_after_fixing(FLIPPED, FLIPPED, share_right, BUDGETS) for _ in "12")
    assert first != second
    assert len({first, second}) == 2
