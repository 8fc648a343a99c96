"""Scores of a trained model beside those of models with other weights."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from deel_influence.evaluation import model_randomisation

INPUTS = np.random.default_rng(0).normal(size=(50, 5))
QUERIES = INPUTS[:4]
TRAINED = np.array([3.0, -2.0, 0.0, 1.0, 0.5])


def drawn(seed):
    return np.random.default_rng([7, seed]).normal(size=5)


def gradient_products(weights):
    """Score as the gradients ``(w·x - 1) x`` of a squared error do."""
    return (QUERIES @ weights - 1)[:, None] * (INPUTS @ weights - 1) * (QUERIES @ INPUTS.T)


def test_the_correlation_is_that_of_ranks_query_by_query():
    found = model_randomisation(gradient_products, TRAINED, drawn, seeds=(0, 5))
    trained = gradient_products(TRAINED)
    expected = [
        np.mean(
            [spearmanr(a, b)[0] for a, b in zip(gradient_products(drawn(s)), trained, strict=True)]
        )
        for s in (0, 5)
    ]
    np.testing.assert_allclose(found.correlations, expected)
    np.testing.assert_allclose(found.correlation, np.mean(expected))


def test_scores_that_do_not_look_at_the_model_agree_and_those_of_weights_alone_do_not():
    blind = model_randomisation(lambda weights: INPUTS[:, 0], TRAINED, drawn)  # noqa: ARG005
    np.testing.assert_allclose(blind.correlations, 1.0)
    turned = model_randomisation(lambda weights: INPUTS @ weights, TRAINED, lambda _: -TRAINED)
    np.testing.assert_allclose(turned.correlations, -1.0)
    flat = model_randomisation(
        lambda weights: INPUTS @ weights, TRAINED, lambda _: np.zeros(5), seeds=(0,)
    )
    assert (flat.correlation, flat.constant) == (0.0, 1)


@pytest.mark.parametrize(
    ("score", "seeds", "message"),
    [
        (lambda weights: np.zeros(50), (0,), r"`score` must tell examples apart"),
        (lambda weights: INPUTS @ weights, (), r"`seeds` must hold at least one"),
        (lambda weights: np.full(50, np.nan), (0,), r"score\(model\)` must hold no NaN"),
        (
            lambda weights: INPUTS[: 40 + int(weights is TRAINED), 0],
            (0,),
            r"score\(make_model\(seed\)\)` must have the shape \(n,\), n=41",
        ),
    ],
)
def test_unusable_scores_are_refused(score, seeds, message):
    with pytest.raises(ValueError, match=message):
        model_randomisation(score, TRAINED, drawn, seeds)
