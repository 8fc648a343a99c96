"""Correlations, against hand-made cases, SciPy and pandas."""

from __future__ import annotations

import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from deel_influence.errors import MissingExtraError
from deel_influence.evaluation.correlations import (
    correlate_queries,
    mean_ranks,
    pearson,
    rowwise_pearson,
    rowwise_spearman,
    spearman,
    strategy_correlations,
)

BOTH = [pearson, spearman]
REFERENCES = {"pearson": scipy.stats.pearsonr, "spearman": scipy.stats.spearmanr}
ROWWISE = {"pearson": rowwise_pearson, "spearman": rowwise_spearman}


@pytest.mark.parametrize("correlation", BOTH)
def test_a_line_correlates_perfectly_and_its_reverse_perfectly_badly(correlation):
    values = np.array([3.0, -1.0, 0.5, 7.0])
    assert correlation(values, 2.0 * values + 5.0) == pytest.approx(1.0)
    assert correlation(values, -3.0 * values) == pytest.approx(-1.0)


def test_ranks_ignore_the_size_of_differences_and_values_do_not():
    values = np.arange(6)
    assert spearman(values, np.exp(values)) == pytest.approx(1.0)
    assert pearson(values, np.exp(values)) < 0.9


def test_ties_share_the_mean_of_their_ranks():
    ranks = mean_ranks(np.array([[2.0, 1.0, 2.0, 5.0, 2.0], [7.0, 7.0, 7.0, 7.0, 7.0]]))
    np.testing.assert_array_equal(ranks, [[3, 1, 3, 5, 3], [3, 3, 3, 3, 3]])
    # By hand: ranks (1, 2.5, 2.5, 4) and (1, 2, 3, 4).
    assert spearman(np.array([1, 2, 2, 3]), np.array([1, 2, 3, 4])) == pytest.approx(np.sqrt(0.9))


@pytest.mark.parametrize("kind", REFERENCES)
@pytest.mark.parametrize("distinct", [3, 20, 10**9], ids=["many ties", "some ties", "no ties"])
def test_rows_agree_with_scipy(kind, distinct):
    generator = np.random.default_rng(distinct)
    first, second = generator.integers(0, distinct, size=(2, 30, 40)).astype(float)
    second += first / 2
    expected = [REFERENCES[kind](a, b).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(ROWWISE[kind](first, second), expected, atol=1e-12)


@pytest.mark.parametrize("correlation", BOTH)
@pytest.mark.parametrize("scale", [1e-250, 1e-30, 1e250])
def test_the_size_of_the_numbers_does_not_matter(correlation, scale):
    first, second = np.random.default_rng(0).normal(size=(2, 50))
    assert correlation(first * scale, second) == pytest.approx(correlation(first, second))


@pytest.mark.parametrize("correlation", BOTH)
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], r"`first` must hold different.*3 times 1\.0"),
        ([1.0, 2.0], [0.0, 0.0], r"`second` must hold different numbers.*Received: 2 times"),
        ([1.0], [1.0], r"1 times 1\.0"),
        ([1.0, np.nan], [1.0, 2.0], r"`first` must hold no NaN.*1 of 2, the first at position 1"),
        ([1.0, 2.0], [np.inf, 1.0], r"`second` must hold .*no infinity.*at position 0"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], r"`second` must have the shape \(n,\), n=2.*\(3,\)"),
        ([[1.0, 2.0]], [[1.0, 2.0]], r"`first` must have the shape \(n,\).*\(1, 2\)"),
        ([], [], r"and hold something\. Received: shape \(0,\)"),
    ],
)
def test_what_cannot_be_correlated_is_refused(correlation, first, second, message):
    with pytest.raises(ValueError, match=message):
        correlation(np.array(first), np.array(second))


@pytest.mark.parametrize("correlation", ROWWISE.values(), ids=ROWWISE)
def test_a_constant_row_is_nan_and_leaves_the_others_alone(correlation):
    first = np.array([[0.1, 0.1, 0.1], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    second = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [1.0, 2.0, 3.0]])
    np.testing.assert_allclose(correlation(first, second), [np.nan, np.nan, 1.0])


def test_a_query_of_equal_predictions_is_0_and_one_of_equal_truths_nan():
    predictions = np.array([[1.0, 3.0, 3.0], [2.0, 3.0, 3.0]])
    truths = np.array([[1.0, 1.0, 4.0], [2.0, 2.0, 4.0]])
    values = correlate_queries(rowwise_spearman, predictions, truths)
    np.testing.assert_allclose(values, [1.0, 0.0, np.nan])


def test_the_0_of_equal_predictions_is_the_mean_over_the_orders_they_might_stand_in():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=12)
    broken = rowwise_spearman(generator.random((5000, 12)), np.tile(truth, (5000, 1)))
    # Four standard errors: the correlation of random ranks has the variance 1 / (n - 1).
    assert np.mean(broken) == pytest.approx(0.0, abs=4 / np.sqrt(5000 * 11))


def test_truths_that_never_differ_are_refused():
    with pytest.raises(ValueError, match=r"must differ in .* all 3 for each of 2 queries"):
        correlate_queries(rowwise_pearson, np.zeros((3, 2)), np.ones((3, 2)))


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_the_table_of_strategies_is_the_one_of_pandas(method):
    scores = np.random.default_rng(1).integers(0, 30, size=(3, 100))
    named = dict(zip(["exact", "cg", "lissa"], scores, strict=True))
    expected = pd.DataFrame(named).corr(method=method)
    pd.testing.assert_frame_equal(strategy_correlations(named, method), expected)


def test_matrices_of_scores_are_correlated_over_all_their_entries():
    first, second = np.random.default_rng(2).normal(size=(2, 4, 5))
    table = strategy_correlations({"a": first, "b": second})
    assert table.loc["a", "b"] == pytest.approx(spearman(first.ravel(), second.ravel()))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"a": np.arange(3), "b": np.arange(4)}, r"one shape.*\(3,\).*\(4,\)"),
        ({}, r"one shape.*Received: \{\}"),
        ({"a": np.arange(3), "b": np.ones(3)}, r"only equal scores from \['b'\]\. Leave them out"),
        ({"a": np.array([0.0, np.nan])}, r"`scores\['a'\]` must hold no NaN.*position 1"),
    ],
)
def test_strategies_that_cannot_be_compared_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        strategy_correlations(scores)


def test_strategies_are_ranked_one_after_the_other():
    generator = np.random.default_rng(0)
    scores = {name: generator.normal(size=20_000).astype(np.float32) for name in "abcdefghij"}
    strategy_correlations({"a": scores["a"]})
    tracemalloc.start()
    try:
        strategy_correlations(scores)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Ranking takes some ten times as much as what is ranked.
    assert peak < 5 * sum(values.nbytes for values in scores.values())


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match=r"`method` must be .*Received: method='kendall'"):
        strategy_correlations({"a": np.arange(3)}, "kendall")


def test_without_pandas_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r'pip install "deel-influence\[evaluation\]"'):
        strategy_correlations({"a": np.arange(3)})
