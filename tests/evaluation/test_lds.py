"""The linear datamodelling score, against its definition, SciPy, and known cases."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy.stats

from deel_influence.evaluation.lds import linear_datamodelling_score
from deel_influence.evaluation.subsets import random_subsets


def additive_case(num_queries=4, num_examples=30, num_subsets=25, noise=0.0, seed=0):
    """Scores, subsets, and losses that fall by the sum of the scores, plus noise."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(num_queries, num_examples))
    kept = random_subsets(num_examples, num_subsets, seed=seed)
    outputs = 3.0 - kept @ scores.T
    return scores, kept, outputs + noise * generator.normal(size=outputs.shape)


def score(*case, **options):
    return linear_datamodelling_score(*case, num_resamples=20, **options)


def test_losses_that_fall_with_the_sum_of_the_scores_give_1_and_their_reverse_minus_1():
    scores, kept, outputs = additive_case()
    assert score(scores, kept, outputs).score == pytest.approx(1.0)
    assert score(-scores, kept, outputs).score == pytest.approx(-1.0)
    np.testing.assert_allclose(score(scores, kept, outputs).interval, 1.0)


def test_the_sign_turns_where_higher_outputs_are_better():
    scores, kept, outputs = additive_case(noise=5.0)
    as_margin = score(scores, kept, -outputs, higher_is_better=True)
    assert as_margin.score == score(scores, kept, outputs).score
    assert as_margin.interval == score(scores, kept, outputs).interval


@pytest.mark.parametrize("distinct", [2, 4, 10**6], ids=["many ties", "some ties", "no ties"])
def test_it_is_the_mean_over_queries_of_scipys_correlation_over_subsets(distinct):
    generator = np.random.default_rng(distinct)
    scores = generator.integers(0, distinct, size=(5, 12)).astype(np.float32)
    kept = random_subsets(12, 20)
    outputs = generator.normal(size=(20, 5)).round(1)
    sums = kept.astype(float) @ scores.T
    expected = [-scipy.stats.spearmanr(sums[:, j], outputs[:, j]).statistic for j in range(5)]
    result = score(scores, kept, outputs)
    np.testing.assert_allclose(result.per_query, expected)
    assert result.score == pytest.approx(np.mean(expected))


def test_a_query_of_constant_scores_counts_as_0_and_is_counted():
    scores, kept, outputs = additive_case()
    scores[1] = 0.1
    result = score(scores, kept, outputs)
    np.testing.assert_allclose(result.per_query, [1.0, 0.0, 1.0, 1.0])
    assert result.score == pytest.approx(0.75)
    assert (result.constant_predictions, result.constant_outputs) == (1, 0)


def test_a_query_of_constant_outputs_is_left_out_for_every_method_and_is_counted():
    scores, kept, outputs = additive_case()
    outputs[:, 2] = 0.0
    result = score(scores, kept, outputs)
    np.testing.assert_allclose(result.per_query, [1.0, 1.0, np.nan, 1.0])
    assert result.score == pytest.approx(1.0)
    assert (result.constant_predictions, result.constant_outputs) == (0, 1)
    np.testing.assert_allclose(result.interval, 1.0)
    constant = score(np.ones_like(scores), kept, outputs)
    assert (constant.score, constant.constant_predictions, constant.constant_outputs) == (0, 3, 1)


def test_outputs_that_are_constant_for_all_queries_are_refused():
    scores, kept, outputs = additive_case()
    with pytest.raises(ValueError, match=r"same outputs from all 25 for each of 4 queries"):
        score(scores, kept, np.ones_like(outputs))


@pytest.mark.parametrize("distinct", [3, 10**6], ids=["ties", "no ties"])
def test_the_interval_is_that_of_plain_resampling(distinct):
    generator = np.random.default_rng(4)
    scores = generator.integers(0, distinct, size=(3, 10))
    kept = random_subsets(10, 15)
    outputs = (-(kept @ scores.T) + generator.normal(size=(15, 3)) * scores.std()).round(1)
    result = linear_datamodelling_score(scores, kept, outputs, num_resamples=50, seed=9)
    draws, means = np.random.default_rng(9), []
    for _ in range(50):
        subsets, queries = draws.integers(15, size=15), draws.integers(3, size=3)
        sums = (kept @ scores.T)[subsets]
        values = [
            -scipy.stats.spearmanr(sums[:, j], outputs[subsets, j]).statistic for j in queries
        ]
        means.append(np.mean(values))
    moved = np.quantile(means, [0.025, 0.975]) + result.score - np.mean(means)
    np.testing.assert_allclose(result.interval, np.clip(moved, -1.0, 1.0))


def test_the_interval_holds_its_own_score_where_the_order_is_nearly_perfect():
    generator = np.random.default_rng(0)
    kept = random_subsets(30, 40, seed=1)
    scores = generator.normal(size=(3, 30))
    outputs = -(kept @ scores.T) + 0.1 * generator.normal(size=(40, 3))
    result = score(scores, kept, outputs)
    low, high = result.interval
    assert result.score > 0.97
    assert low < result.score < high
    assert high <= 1.0


@pytest.mark.parametrize(("num_queries", "correlation"), [(1, 0.0), (1, 0.6), (8, 0.6)])
def test_the_interval_holds_the_true_score_as_often_as_it_says(num_queries, correlation):
    # Two normal variables of this linear correlation have a rank correlation that is known.
    truth = 6.0 / np.pi * np.arcsin(correlation / 2.0)
    generator = np.random.default_rng(0)
    hits = []
    for trial in range(100):
        kept = np.eye(60, dtype=bool)
        predictions, noise = generator.normal(size=(2, num_queries, 60))
        outputs = correlation * predictions + np.sqrt(1.0 - correlation**2) * noise
        result = linear_datamodelling_score(
            predictions, kept, -outputs.T, num_resamples=100, confidence=0.8, seed=trial
        )
        hits.append(result.interval[0] <= truth <= result.interval[1])
    # Three standard errors of a share of 100 around 0.8; with several queries the interval is wide
    # on purpose, as it stands for two draws, and may hold the truth more often.
    assert np.mean(hits) >= 0.68
    assert np.mean(hits) <= (0.92 if num_queries == 1 else 1.0)


def test_the_interval_narrows_with_subsets_and_grows_with_confidence():
    def width(num_subsets, confidence):
        case = additive_case(num_subsets=num_subsets, noise=5.0)
        result = linear_datamodelling_score(*case, num_resamples=200, confidence=confidence)
        return result.interval[1] - result.interval[0]

    assert width(200, 0.9) < width(20, 0.9)
    widths = [width(50, confidence) for confidence in (0.5, 0.9, 0.99)]
    assert all(narrow < wide for narrow, wide in pairwise(widths))


def test_the_seed_fixes_the_interval():
    case = additive_case(noise=5.0)
    assert score(*case, seed=1).interval == score(*case, seed=1).interval
    assert score(*case, seed=1).interval != score(*case, seed=2).interval


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outputs": np.zeros((4, 25))}, r"`outputs` must have the shape \(s, m\), s=25, m=4"),
        ({"outputs": np.full((25, 4), np.nan)}, r"`outputs` must hold no NaN.*100 of 100"),
        ({"scores": np.full((4, 30), np.nan)}, r"`scores` must hold no NaN"),
        ({"scores": np.zeros((4, 31))}, r"`scores` must have the shape \(m, n\), n=30"),
        ({"kept": np.ones((25, 30))}, r"`kept` must be a mask"),
        ({"kept": np.ones((1, 30), bool), "outputs": np.ones((1, 4))}, r"at least two subsets"),
        ({"num_resamples": 0}, "`num_resamples` must be a whole number >= 1"),
        ({"confidence": 95}, r"`confidence` must lie between 0 and 1.*Received: confidence=95"),
    ],
)
def test_unusable_arguments_are_refused(change, message):
    scores, kept, outputs = additive_case()
    arguments = {"scores": scores, "kept": kept, "outputs": outputs} | change
    with pytest.raises(ValueError, match=message):
        linear_datamodelling_score(**arguments)


def test_scores_compare_as_objects_do():
    first, second = score(*additive_case()), score(*additive_case())
    assert first != second
    assert len({first, second}) == 2
