"""The Nyström approximation against dense matrices, and what it does if its premise is false."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import NonFiniteError
from deel_influence.linalg.linear_operator import DenseOperator, DiagonalOperator
from deel_influence.linalg.nystrom import nystrom
from deel_influence.linalg.orthogonal import CHUNK, inner_products, orthonormal_rows
from tests.linalg.spectra import CountingOperator, damped_solution, matrix_with, rows
from tests.oracles import assert_close, relative_error

P = 60
DEFICIENT = matrix_with([50.0, 20.0, 3.0, 1.0, 0.2] + [0.0] * (P - 5))
DECAYING = matrix_with(np.geomspace(100, 1e-6, P))


def dense(low_rank) -> np.ndarray:
    return low_rank.apply(np.eye(low_rank.size)).numpy()


@pytest.mark.parametrize("rank", [5, 8, P])
def test_it_is_exact_once_the_rank_is_reached(rank):
    result = nystrom(DenseOperator(DEFICIENT), rank, seed=0)
    assert_close(dense(result.low_rank), DEFICIENT, 1e-11)
    assert_close(result.low_rank.values[:5], [50.0, 20.0, 3.0, 1.0, 0.2], 1e-11)
    assert result.num_negative == 0


def test_at_full_rank_it_is_the_matrix():
    low_rank = nystrom(DenseOperator(DECAYING), P, seed=0).low_rank
    assert_close(dense(low_rank), DECAYING, 1e-11)


def test_the_error_of_a_damped_solve_falls_with_the_rank():
    expected = damped_solution(DECAYING, rows(4, P), 0.01)
    errors = [
        relative_error(
            nystrom(DenseOperator(DECAYING), rank, seed=0).low_rank.solve(rows(4, P), 0.01),
            expected,
        )
        for rank in (5, 15, 30, 45)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1
    assert errors[-1] < 0.01


def test_it_never_exceeds_the_operator():
    low_rank = nystrom(DenseOperator(DECAYING), 10, seed=0).low_rank
    assert np.linalg.eigvalsh(DECAYING - dense(low_rank)).min() > -1e-10


def test_vectors_are_orthonormal_and_values_decrease():
    low_rank = nystrom(DenseOperator(DECAYING), 40, seed=0).low_rank
    vectors = low_rank.vectors.numpy()
    assert_close(vectors @ vectors.T, np.eye(low_rank.rank), 1e-12)
    assert np.all(np.diff(low_rank.values) <= 0)
    assert low_rank.values.min() > 0


def test_all_products_are_taken_at_once():
    operator = CountingOperator(DECAYING)
    low_rank = nystrom(operator, 10, seed=0, oversampling=6).low_rank
    assert operator.sizes == [16]
    assert low_rank.rank == 10


def test_oversampling_improves_the_pairs_that_are_kept():
    exact = np.geomspace(100, 1e-6, P)[:5]
    errors = [
        relative_error(
            nystrom(DenseOperator(DECAYING), 5, seed=0, oversampling=more).low_rank.values, exact
        )
        for more in (0, 20)
    ]
    assert errors[1] < errors[0] / 100


def test_float32_reaches_single_precision():
    low_rank = nystrom(DenseOperator(DEFICIENT.astype("float32")), 12, seed=0).low_rank
    assert low_rank.vectors.dtype == tf.float32
    # The shift alone, √p roundings of the norm, is 1e-6.
    assert_close(dense(low_rank), DEFICIENT, 5e-5)
    assert_close(low_rank.vectors @ tf.transpose(low_rank.vectors), np.eye(low_rank.rank), 1e-5)


def test_float32_does_not_take_rounding_for_negative_curvature():
    for seed in range(5):
        operator = CountingOperator(DECAYING.astype("float32"))
        assert nystrom(operator, 40, seed=seed).num_negative == 0
        assert operator.sizes == [40]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_zero_operator_has_rank_zero(dtype):
    result = nystrom(DiagonalOperator(np.zeros(P, dtype)), 4, seed=0)
    assert (result.low_rank.rank, result.num_negative) == (0, 0)
    assert_close(result.low_rank.solve(rows(2, P), 0.5), 2 * rows(2, P), 1e-6)


INDEFINITE = matrix_with(np.concatenate([[30.0, 10.0, 4.0, -5.0, -1.0], np.zeros(P - 5)]))


def test_negative_directions_are_left_out_and_reported():
    result = nystrom(DenseOperator(INDEFINITE), 8, seed=0)
    assert_close(result.low_rank.values, [30.0, 10.0, 4.0], 1e-10)
    assert_close(result.negative_values, [-5.0, -1.0], 1e-10)
    positive = matrix_with(np.concatenate([[30.0, 10.0, 4.0], np.zeros(P - 3)]))
    assert_close(dense(result.low_rank), positive, 1e-10)


@pytest.mark.parametrize("seed", range(8))
def test_values_of_an_indefinite_operator_stay_within_its_spectrum(seed):
    spectrum = np.concatenate([np.linspace(1, 5, P // 2), -np.linspace(1, 5, P // 2)])
    result = nystrom(DenseOperator(matrix_with(spectrum)), 20, seed=seed)
    assert result.num_negative > 0
    assert np.all((result.low_rank.values > 0) & (result.low_rank.values <= 5 + 1e-10))
    assert np.all(result.negative_values >= -5 - 1e-10)


def test_a_negative_definite_operator_leaves_nothing():
    result = nystrom(DiagonalOperator(-np.ones(P)), 5, seed=0)
    assert (result.low_rank.rank, result.num_negative) == (0, 5)


def test_products_that_are_not_finite_are_refused():
    with pytest.raises(NonFiniteError, match=r"the products with random vectors"):
        nystrom(DiagonalOperator(np.full(P, np.inf)), 3, seed=0)


@pytest.mark.parametrize(("rank", "oversampling"), [(0, 0), (3, -1), (2.5, 0)])
def test_ranks_that_make_no_sense_are_refused(rank, oversampling):
    with pytest.raises(ValueError, match=r"must be a whole number >= [01]. Received"):
        nystrom(DenseOperator(DECAYING), rank, oversampling=oversampling)


def test_inner_products_are_the_same_in_chunks():
    left, right = rows(2, CHUNK + 3), rows(3, CHUNK + 3, seed=2)
    assert_close(inner_products(tf.constant(left), tf.constant(right)), left @ right.T, 1e-12)


def test_nearly_dependent_rows_become_orthonormal_in_single_precision():
    family = rows(6, P)
    family[3:] = family[:3] + 1e-3 * rows(3, P, seed=9)
    basis = orthonormal_rows(tf.constant(family, tf.float32)).numpy().astype(float)
    assert_close(basis @ basis.T, np.eye(6), 1e-5)
    assert_close(family @ basis.T @ basis, family, 1e-5)


def test_dependent_rows_lose_the_surplus():
    family = rows(3, P)
    basis = orthonormal_rows(tf.constant(np.concatenate([family, family @ rows(P, P) * 0])))
    assert basis.shape == (3, P)
