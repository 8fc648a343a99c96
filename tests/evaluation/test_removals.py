"""Predicted against actual changes, against hand-made cases, SciPy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from sklearn.linear_model import LinearRegression

from deel_influence.evaluation.removals import predicted_changes, removal_correlation
from deel_influence.evaluation.subsets import leave_groups_out, leave_one_out

PREDICTED, TRUE = np.random.default_rng(0).normal(size=(2, 20, 3))
TRUE = TRUE + PREDICTED


def test_changes_are_the_scores_of_what_was_left_out():
    scores = np.arange(8.0).reshape(2, 4)
    np.testing.assert_array_equal(
        predicted_changes(scores, leave_one_out(4, [3, 1])), scores.T[[3, 1]]
    )
    groups = leave_groups_out(4, np.array([0, 1, 1, -1]))
    np.testing.assert_array_equal(predicted_changes(scores, groups), [[0.0, 4.0], [3.0, 11.0]])


def test_the_right_changes_are_perfect_and_their_reverse_perfectly_bad():
    right = removal_correlation(PREDICTED, PREDICTED)
    assert (right.pearson, right.spearman, right.slope) == pytest.approx((1.0, 1.0, 1.0))
    reverse = removal_correlation(-PREDICTED, PREDICTED)
    assert (reverse.pearson, reverse.spearman, reverse.slope) == pytest.approx((-1.0, -1.0, -1.0))


def test_the_slope_tells_how_many_times_too_small_predictions_are():
    result = removal_correlation(PREDICTED / 4.0 + 1.0, PREDICTED)
    np.testing.assert_allclose(result.per_query_slope, 4.0)
    assert result.slope == pytest.approx(4.0)


def test_each_query_agrees_with_scipy():
    result = removal_correlation(PREDICTED, TRUE)
    for query in range(3):
        predicted, true = PREDICTED[:, query], TRUE[:, query]
        line = scipy.stats.linregress(predicted, true)
        assert result.per_query_pearson[query] == pytest.approx(line.rvalue)
        assert result.per_query_slope[query] == pytest.approx(line.slope)
        rank = scipy.stats.spearmanr(predicted, true).statistic
        assert result.per_query_spearman[query] == pytest.approx(rank)
    assert result.pearson == pytest.approx(result.per_query_pearson.mean())
    assert result.spearman == pytest.approx(result.per_query_spearman.mean())


def test_the_slope_is_that_of_a_regression_with_a_constant_for_each_query():
    dummies = np.repeat(np.eye(3)[None], 20, axis=0)
    columns = np.concatenate([PREDICTED[..., None], dummies], axis=2).reshape(60, 4)
    line = LinearRegression(fit_intercept=False).fit(columns, TRUE.reshape(60))
    assert removal_correlation(PREDICTED, TRUE).slope == pytest.approx(line.coef_[0])


def test_one_query_may_come_without_its_axis():
    alone, among = removal_correlation(PREDICTED[:, 0], TRUE[:, 0]), TRUE[:, :1]
    assert alone.pearson == removal_correlation(PREDICTED[:, :1], among).pearson
    assert alone.per_query_slope.shape == (1,)


def test_equal_predictions_count_as_0_and_equal_changes_not_at_all():
    predicted, true = PREDICTED.copy(), PREDICTED.copy()
    predicted[:, 0], true[:, 1] = 7.0, 7.0
    result = removal_correlation(predicted, true)
    np.testing.assert_allclose(result.per_query_pearson, [0.0, np.nan, 1.0])
    np.testing.assert_allclose(result.per_query_spearman, [0.0, np.nan, 1.0])
    np.testing.assert_allclose(result.per_query_slope, [np.nan, np.nan, 1.0])
    assert (result.pearson, result.spearman, result.slope) == pytest.approx((0.5, 0.5, 1.0))
    assert (result.constant_predictions, result.constant_changes) == (1, 1)


def test_a_method_that_predicts_nothing_has_no_slope():
    result = removal_correlation(np.zeros((20, 3)), TRUE)
    assert (result.pearson, result.spearman, result.constant_predictions) == (0.0, 0.0, 3)
    assert np.isnan(result.slope)


@pytest.mark.parametrize(
    ("predicted", "true", "message"),
    [
        (PREDICTED, TRUE[:19], r"`true_changes` must have the shape \(s, m\), s=20, m=3"),
        (PREDICTED[:, 0], TRUE, r"`true_changes` must have the shape \(s,\), s=20.*\(20, 3\)"),
        (PREDICTED[None], TRUE[None], r"`predicted_changes` must have the shape \(s, m\)"),
        (PREDICTED * np.nan, TRUE, r"`predicted_changes` must hold no NaN.*60 of 60"),
        (PREDICTED, TRUE * np.inf, r"`true_changes` must hold no NaN and no infinity"),
        (PREDICTED[:1], TRUE[:1], r"at least two removals\. Received: 1"),
        (PREDICTED, np.zeros((20, 3)), r"same outputs from all 20 for each of 3 queries"),
    ],
)
def test_changes_that_cannot_be_compared_are_refused(predicted, true, message):
    with pytest.raises(ValueError, match=message):
        removal_correlation(predicted, true)


def test_correlations_compare_as_objects_do():
    first, second = removal_correlation(PREDICTED, TRUE), removal_correlation(PREDICTED, TRUE)
    assert first != second
    assert len({first, second}) == 2
