"""Hutchinson's estimates against exact traces and diagonals."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import NonFiniteError
from deel_influence.linalg.estimation import hutchinson_diagonal, hutchinson_trace
from deel_influence.linalg.linear_operator import DenseOperator, DiagonalOperator
from tests.linalg.spectra import CountingOperator, matrix_with
from tests.oracles import assert_close

P = 30
MATRIX = matrix_with(np.linspace(-2, 10, P))


def test_the_trace_of_a_diagonal_operator_is_exact_from_one_probe():
    estimate = hutchinson_trace(DiagonalOperator(np.arange(1.0, P + 1)), 1, seed=0)
    assert_close(estimate.value, P * (P + 1) / 2, 1e-14)
    assert estimate.standard_error == float("inf")


def test_the_diagonal_of_a_diagonal_operator_is_exact():
    assert_close(hutchinson_diagonal(DiagonalOperator(np.arange(P) + 0.5), 2), np.arange(P) + 0.5)


def test_the_mean_over_seeds_is_the_trace_within_its_standard_error():
    estimates = [hutchinson_trace(DenseOperator(MATRIX), 16, seed) for seed in range(200)]
    values = np.array([estimate.value for estimate in estimates])
    assert abs(values.mean() - np.trace(MATRIX)) < 4 * values.std() / np.sqrt(len(values))


def test_the_standard_error_is_the_spread_over_seeds():
    estimates = [hutchinson_trace(DenseOperator(MATRIX), 16, seed) for seed in range(200)]
    spread = np.std([estimate.value for estimate in estimates])
    told = np.sqrt(np.mean([estimate.standard_error**2 for estimate in estimates]))
    # The spread over 200 seeds is itself known to about 5 %.
    assert_close(told, spread, 0.2)


def test_the_mean_over_seeds_is_the_diagonal():
    estimates = np.stack(
        [hutchinson_diagonal(DenseOperator(MATRIX), 8, seed) for seed in range(300)]
    )
    errors = (estimates.mean(0) - np.diag(MATRIX)) / (estimates.std(0) / np.sqrt(300))
    assert np.abs(errors).max() < 4.5


def test_probes_go_in_one_block_and_follow_the_seed():
    operator = CountingOperator(MATRIX)
    first, again = (hutchinson_trace(operator, 12, seed=3) for _ in range(2))
    assert operator.sizes == [12, 12]
    assert first == again != hutchinson_trace(operator, 12, seed=4)


def test_float32_operators_work():
    operator = DiagonalOperator(np.arange(P, dtype="float32"))
    assert hutchinson_diagonal(operator, 3, seed=0).dtype == tf.float32
    assert_close(hutchinson_trace(operator, 3, seed=0).value, P * (P - 1) / 2, 1e-6)


@pytest.mark.parametrize("estimate", [hutchinson_trace, hutchinson_diagonal])
def test_bad_input_is_refused(estimate):
    with pytest.raises(ValueError, match=r"`num_probes` must be a whole number >= 1"):
        estimate(DenseOperator(MATRIX), 0)
    with pytest.raises(NonFiniteError, match=r"the products with random signs"):
        estimate(DiagonalOperator(np.full(P, np.nan)), 2)
