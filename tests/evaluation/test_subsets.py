"""Subsets to retrain on, and sums of scores over them."""

from __future__ import annotations

import numpy as np
import pytest

from deel_influence.evaluation.subsets import (
    leave_groups_out,
    leave_one_out,
    random_subsets,
    sums_of_kept,
    sums_of_removed,
)


def test_leave_one_out_lacks_the_examples_one_after_the_other():
    kept = leave_one_out(4, [2, 0])
    np.testing.assert_array_equal(kept, [[1, 1, 0, 1], [0, 1, 1, 1]])
    assert kept.dtype == bool


def test_leave_groups_out_lacks_each_group_and_never_those_without_one():
    kept = leave_groups_out(5, np.array([1, -1, 0, 1, 2]))
    expected = [[1, 1, 0, 1, 1], [0, 1, 1, 0, 1], [1, 1, 1, 1, 0]]
    np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize(("fraction", "size"), [(0.5, 10), (0.26, 5), (0.95, 19)])
def test_random_subsets_have_one_size_and_differ(fraction, size):
    kept = random_subsets(20, 6, fraction, seed=3)
    np.testing.assert_array_equal(kept.sum(axis=1), size)
    assert len(np.unique(kept, axis=0)) == 6


def test_random_subsets_hold_every_example_equally_often():
    share = random_subsets(40, 4000, 0.3, seed=0).mean(axis=0)
    # Five standard deviations of a share of 4000 draws.
    np.testing.assert_allclose(share, 0.3, atol=5 * np.sqrt(0.3 * 0.7 / 4000))


def test_the_seed_fixes_the_subsets_and_more_of_them_begin_with_the_same():
    few, many = random_subsets(30, 3, seed=5), random_subsets(30, 8, seed=5)
    np.testing.assert_array_equal(few, many[:3])
    assert (random_subsets(30, 3, seed=6) != few).any()


def test_sums_go_over_the_kept_or_the_removed_examples():
    generator = np.random.default_rng(0)
    scores, kept = generator.normal(size=(3, 50)), random_subsets(50, 7, 0.7)
    expected = np.array([[row[mask].sum() for row in scores] for mask in kept])
    np.testing.assert_allclose(sums_of_kept(scores, kept), expected)
    np.testing.assert_allclose(sums_of_removed(scores, kept), scores.sum(axis=1) - expected)


@pytest.mark.parametrize("value", [0.1, 1e-30, 3e20])
def test_equal_scores_give_equal_sums_in_spite_of_rounding(value):
    kept = random_subsets(999, 40)
    plain = kept @ np.full(999, value)
    assert len(np.unique(plain)) > 1
    assert len(np.unique(sums_of_kept(np.full((1, 999), value), kept))) == 1


def test_small_differences_that_are_none_of_rounding_stay():
    scores = np.array([[1e6, 1e-9, 2e-9, 3e-9]])
    sums = sums_of_removed(scores, leave_one_out(4, [1, 2, 3]))
    np.testing.assert_array_equal(sums[:, 0], [1e-9, 2e-9, 3e-9])


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([0, 4], r"`positions` must hold rows.*0 to 3, at least one\. Received: .*0 to 4"),
        ([-1], r"Received: .*-1 to -1"),
        ([0.0], r"dtype float64"),
        ([], r"Received: shape \(0,\)"),
        ([1, 1], r"name each row once\. Received: 1 different ones of 2\. Use np\.unique"),
    ],
)
def test_positions_outside_the_training_set_are_refused(positions, message):
    with pytest.raises(ValueError, match=message):
        leave_one_out(4, positions)


def test_nothing_is_left_to_train_on_is_refused():
    with pytest.raises(ValueError, match=r"at least one example in every row.*Received: 1 of 1"):
        leave_one_out(1, [0])
    with pytest.raises(ValueError, match=r"the first is row 0"):
        leave_groups_out(3, np.zeros(3, int))


def test_groups_that_do_not_fit_the_training_set_are_refused():
    with pytest.raises(ValueError, match=r"`groups` must hold 3 integers.*shape \(2,\)"):
        leave_groups_out(3, np.array([0, 1]))


def test_group_numbers_with_a_gap_are_refused():
    # Else a subset lacks nothing, and its row is one more retraining on everything.
    with pytest.raises(ValueError, match=r"1 of the numbers from 0 to 2 .*first is 1\. np\.unique"):
        leave_groups_out(4, np.array([0, 2, 2, -1]))
    with pytest.raises(ValueError, match=r"Received: 999999999 of .*the first is 0\."):
        leave_groups_out(3, np.array([-1, 999_999_999, -1]))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 50, np.nan, 0.01, 0.99])
def test_a_fraction_that_leaves_nothing_in_or_out_is_refused(fraction):
    with pytest.raises(ValueError, match=r"`fraction` must leave some.*Received: fraction=.*of 10"):
        random_subsets(10, 2, fraction)


def test_no_subset_is_refused():
    with pytest.raises(ValueError, match=r"`num_subsets` must be a whole number >= 1"):
        random_subsets(10, 0)


@pytest.mark.parametrize(
    ("scores", "kept", "message"),
    [
        (np.zeros((2, 3)), np.ones((2, 3)), r"`kept` must be a mask .*dtype float64"),
        (np.zeros((2, 3)), np.ones(3, bool), r"shape \(3,\).*See `random_subsets`"),
        (np.zeros((2, 4)), np.ones((2, 3), bool), r"`scores`.*\(m, n\), n=3.*\(2, 4\)"),
        (np.zeros(3), np.ones((2, 3), bool), r"`scores` must have the shape \(m, n\)"),
        (np.zeros((0, 3)), np.ones((2, 3), bool), r"and hold something\. Received: .*\(0, 3\)"),
        (np.array([[0, np.nan]]), np.ones((1, 2), bool), r"no NaN.*1 of 2, .* \(0, 1\)"),
        (np.array([[-np.inf, 0]]), np.ones((1, 2), bool), r"no infinity.*\(0, 0\)"),
    ],
)
def test_masks_and_scores_that_do_not_fit_are_refused(scores, kept, message):
    with pytest.raises(ValueError, match=message):
        sums_of_kept(scores, kept)
