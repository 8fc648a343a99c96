"""Lanczos' method against dense eigenvalues."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import NonFiniteError
from deel_influence.linalg.lanczos import extreme_eigenvalues, lanczos, preconditioned_extremes
from deel_influence.linalg.linear_operator import DenseOperator, DiagonalOperator, IdentityOperator
from tests.linalg.spectra import CountingOperator, matrix_with, rotation, rows
from tests.oracles import assert_close

P = 40
SPECTRUM = np.concatenate([np.linspace(-0.5, 1.0, P - 3), [5.0, 20.0, 100.0]])
MATRIX = matrix_with(SPECTRUM)


def orthonormality_error(basis: tf.Tensor) -> float:
    return float(np.abs(basis @ tf.transpose(basis) - np.eye(basis.shape[0])).max())


def test_ritz_values_at_full_length_are_the_eigenvalues():
    krylov = lanczos(DenseOperator(MATRIX), P, seed=0)
    assert_close(krylov.ritz_values, SPECTRUM, 1e-12)


def test_ritz_vectors_at_full_length_diagonalise_the_matrix():
    vectors = lanczos(DenseOperator(MATRIX), P, seed=0).ritz_vectors.numpy()
    assert_close(vectors @ MATRIX @ vectors.T, np.diag(SPECTRUM), 1e-12)


def test_the_basis_stays_orthonormal_long_after_eigenvalues_have_converged():
    spectrum = np.concatenate([1e-3 * np.linspace(0, 1, 196), [1, 10, 100, 1000]])
    krylov = lanczos(DenseOperator(matrix_with(spectrum)), 120, seed=0)
    assert orthonormality_error(krylov.basis) < 1e-13


def test_the_tridiagonal_form_is_the_projection_to_the_basis():
    krylov = lanczos(DenseOperator(MATRIX), 12, seed=3)
    tridiagonal = np.diag(krylov.diagonal) + np.diag(krylov.off_diagonal, 1)
    tridiagonal += np.diag(krylov.off_diagonal, -1)
    basis = krylov.basis.numpy()
    assert_close(basis @ MATRIX @ basis.T, tridiagonal, 1e-12)


def test_an_eigenvalue_lies_within_the_bound_of_each_ritz_value():
    krylov = lanczos(DenseOperator(MATRIX), 10, seed=0)
    distance = np.abs(krylov.ritz_values[:, None] - SPECTRUM).min(axis=1)
    assert np.all(distance <= krylov.ritz_bounds + 1e-12)
    residuals = krylov.ritz_vectors @ MATRIX - krylov.ritz_values[:, None] * krylov.ritz_vectors
    assert_close(krylov.ritz_bounds, np.linalg.norm(residuals, axis=1), 1e-8)


def test_each_step_is_one_product_of_one_vector():
    operator = CountingOperator(MATRIX)
    lanczos(operator, 9, seed=0)
    assert operator.sizes == [1] * 9


def test_more_steps_than_entries_stop_at_the_full_basis():
    assert lanczos(DenseOperator(MATRIX), P + 25, seed=0).basis.shape == (P, P)


def test_a_start_at_an_eigenvector_gives_that_pair_alone():
    vector = rotation(P)[:, -2]
    krylov = lanczos(DenseOperator(MATRIX), 10, start=3 * vector)
    assert_close(krylov.ritz_values, [20.0], 1e-12)
    assert_close(np.abs(krylov.ritz_vectors @ vector[:, None]), [[1.0]], 1e-12)
    assert krylov.residual == 0


def test_three_distinct_eigenvalues_end_the_method_after_three_steps():
    krylov = lanczos(DenseOperator(matrix_with([2.0] * 10 + [-1.0] * 10 + [0.5] * 10)), 20, seed=0)
    assert_close(krylov.ritz_values, [-1.0, 0.5, 2.0], 1e-12)
    assert orthonormality_error(krylov.basis) < 1e-12


def test_the_zero_operator_has_the_eigenvalue_zero():
    krylov = lanczos(DiagonalOperator(np.zeros(P)), 5, seed=0)
    np.testing.assert_array_equal(krylov.ritz_values, [0.0])
    np.testing.assert_array_equal(krylov.ritz_bounds, [0.0])


def test_a_rank_deficient_operator_gives_its_eigenvalues_and_zero():
    krylov = lanczos(DenseOperator(matrix_with([3.0, 2.0] + [0.0] * 20)), 15, seed=0)
    assert_close(krylov.ritz_values[-2:], [2.0, 3.0], 1e-12)
    assert np.abs(krylov.ritz_values[:-2]).max() < 1e-12


def test_the_same_seed_gives_the_same_basis_and_another_another():
    first, again, other = (lanczos(DenseOperator(MATRIX), 4, seed=s).basis for s in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_extreme_eigenvalues_approach_the_ends_from_inside():
    smallest, largest = extreme_eigenvalues(DenseOperator(MATRIX), num_steps=20, seed=0)
    assert SPECTRUM[0] - 1e-12 <= smallest < SPECTRUM[0] + 0.05
    assert_close(largest, SPECTRUM[-1], 1e-10)


def test_float32_finds_the_ends_to_single_precision():
    operator = DenseOperator(MATRIX.astype("float32"))
    krylov = lanczos(operator, P, seed=0)
    assert krylov.basis.dtype == tf.float32
    assert orthonormality_error(krylov.basis) < 1e-5
    assert_close(krylov.ritz_values[[0, -1]], SPECTRUM[[0, -1]], 1e-5)


def test_preconditioned_extremes_are_those_of_the_product():
    inverse = matrix_with(np.linspace(0.1, 2.0, P), seed=4)
    expected = np.sort(np.linalg.eigvals(inverse @ MATRIX).real)
    found = preconditioned_extremes(DenseOperator(MATRIX), DenseOperator(inverse), P, seed=0)
    assert_close(found, expected[[0, -1]], 1e-6)


def test_a_perfect_preconditioner_leaves_the_eigenvalue_one():
    positive = matrix_with(np.geomspace(1e-3, 1e3, P))
    found = preconditioned_extremes(
        DenseOperator(positive), DenseOperator(np.linalg.inv(positive)), 10, seed=0
    )
    assert_close(found, [1.0, 1.0], 1e-6)


def test_a_preconditioner_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match=r"positive definite.*Received: .*-"):
        preconditioned_extremes(DenseOperator(MATRIX), -IdentityOperator(P, tf.float64), 5, seed=0)


def test_products_that_are_not_finite_are_refused_where_they_start():
    diagonal = np.ones(P)
    diagonal[3] = np.nan
    with pytest.raises(NonFiniteError, match=r"Received: NaN or infinity in Krylov step 1"):
        lanczos(DiagonalOperator(diagonal), 5, seed=0)


@pytest.mark.parametrize("num_steps", [0, -1, 2.5, True])
def test_a_number_of_steps_below_one_is_refused(num_steps):
    with pytest.raises(ValueError, match=r"`num_steps` must be a whole number >= 1. Received"):
        lanczos(DenseOperator(MATRIX), num_steps)


def test_a_start_of_norm_zero_or_another_length_is_refused():
    with pytest.raises(ValueError, match=r"`start` must be a vector of positive, finite norm"):
        lanczos(DenseOperator(MATRIX), 3, start=np.zeros(P))
    with pytest.raises(ValueError, match=rf"`start` must have shape .* p = {P}"):
        lanczos(DenseOperator(MATRIX), 3, start=rows(1, P + 1)[0])
