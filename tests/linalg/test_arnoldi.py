"""Arnoldi's method keeps the dominant eigenpairs."""

from __future__ import annotations

import numpy as np
import pytest

from deel_influence.linalg.arnoldi import arnoldi
from deel_influence.linalg.krylov import krylov_space
from deel_influence.linalg.linear_operator import DenseOperator, DiagonalOperator
from deel_influence.linalg.low_rank import LowRank
from tests.linalg.spectra import GeneralOperator, damped_solution, matrix_with, rotation, rows
from tests.oracles import assert_close, relative_error

P = 60
LEADING = np.array([100.0, -40.0, 15.0, 6.0])
MATRIX = matrix_with(np.concatenate([LEADING, np.linspace(-0.1, 0.1, P - 4)]))


def test_the_largest_absolute_eigenvalues_are_kept_negative_ones_included():
    result = arnoldi(DenseOperator(MATRIX), 30, 4, seed=0)
    assert_close(result.low_rank.values, LEADING, 1e-10)
    vectors = result.low_rank.vectors.numpy()
    assert_close(vectors @ vectors.T, np.eye(4), 1e-12)
    assert_close(vectors @ MATRIX @ vectors.T, np.diag(LEADING), 1e-10)


def test_the_smallest_would_approximate_nothing():
    result = arnoldi(DenseOperator(MATRIX), 30, 30, seed=0)
    smallest = LowRank(result.low_rank.vectors[-4:], result.low_rank.values[-4:])
    largest = LowRank(result.low_rank.vectors[:4], result.low_rank.values[:4])
    vectors = rows(5, P)
    assert relative_error(largest.apply(vectors), vectors @ MATRIX) < 0.01
    assert relative_error(smallest.apply(vectors), vectors @ MATRIX) > 0.9


def test_damped_solutions_approach_the_dense_one_as_more_pairs_are_kept():
    positive = matrix_with(np.geomspace(1e-3, 100, P))
    expected = damped_solution(positive, rows(5, P), 0.1)
    errors = [
        relative_error(
            arnoldi(DenseOperator(positive), P, kept, seed=0).low_rank.solve(rows(5, P), 0.1),
            expected,
        )
        for kept in (5, 20, 40, P)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.05
    assert errors[-1] < 1e-10


@pytest.mark.parametrize("force_hermitian", [True, False])
def test_the_whole_spectrum_is_there_by_decreasing_size(force_hermitian):
    result = arnoldi(DenseOperator(MATRIX), 20, 3, 0, force_hermitian)
    assert result.spectrum.shape == result.bounds.shape == (20,)
    assert np.all(np.diff(np.abs(result.spectrum)) <= 0)
    np.testing.assert_array_equal(result.spectrum[:3], result.low_rank.values)


@pytest.mark.parametrize("force_hermitian", [True, False])
def test_bounds_are_the_residuals_of_the_pairs(force_hermitian):
    result = arnoldi(DenseOperator(MATRIX), 6, 6, 0, force_hermitian)
    vectors = result.low_rank.vectors.numpy()
    residuals = vectors @ MATRIX - result.low_rank.values[:, None] * vectors
    assert_close(result.bounds, np.linalg.norm(residuals, axis=1), 1e-6)


def lopsided() -> tuple[np.ndarray, np.ndarray]:
    """Return a slightly unsymmetric matrix, and its best part of rank 4 by eigenvectors."""
    matrix = MATRIX + 0.3 * rows(P, P)
    values, vectors = np.linalg.eig(matrix)
    order = np.argsort(-np.abs(values))[:4]
    kept = (vectors[:, order] * values[order]) @ np.linalg.inv(vectors)[order]
    return matrix, kept.real


def test_left_and_right_eigenvectors_give_the_spectral_part_of_an_unsymmetric_operator():
    matrix, expected = lopsided()
    low_rank = arnoldi(GeneralOperator(matrix), P, 4, 0, force_hermitian=False).low_rank
    assert_close(low_rank.apply(rows(5, P)), rows(5, P) @ expected.T, 1e-8)
    product = low_rank.left_vectors @ np.transpose(low_rank.vectors)
    assert_close(product, np.eye(4), 1e-10)


def test_the_transpose_would_not_do_for_the_left_eigenvectors():
    matrix, expected = lopsided()
    low_rank = arnoldi(GeneralOperator(matrix), P, 4, 0, force_hermitian=False).low_rank
    wrong = LowRank(low_rank.vectors, low_rank.values, low_rank.vectors)
    assert relative_error(wrong.apply(rows(5, P)), rows(5, P) @ expected.T) > 0.01


def test_both_forms_solve_alike_where_the_operator_is_symmetric():
    results = [arnoldi(DenseOperator(MATRIX), 30, 4, 0, hermitian) for hermitian in (True, False)]
    solutions = [result.low_rank.pseudo_solve(rows(3, P), 0.1) for result in results]
    assert_close(solutions[0], solutions[1], 1e-10)


def test_a_complex_pair_is_kept_whole_with_its_real_part():
    core = np.zeros((P, P))
    core[0, 0] = 9.0
    core[1:3, 1:3] = [[5.0, 0.01], [-0.01, 5.0]]
    vectors = rotation(P)
    operator = GeneralOperator(vectors @ core @ vectors.T)
    low_rank = arnoldi(operator, 10, 2, 0, force_hermitian=False).low_rank
    assert_close(low_rank.values, [9.0, 5.0, 5.0], 1e-10)
    # Only the imaginary parts, 0.01, are lost.
    assert_close(low_rank.apply(rows(4, P)), operator.apply(rows(4, P)), 5e-3)


def test_an_invariant_subspace_gives_the_pairs_that_it_has():
    low_rank = arnoldi(DenseOperator(matrix_with([3.0] * 5 + [-7.0] * 5)), 8, 6, 0).low_rank
    assert_close(low_rank.values, [-7.0, 3.0], 1e-12)


@pytest.mark.parametrize("force_hermitian", [True, False])
def test_the_zero_operator_gives_zero(force_hermitian):
    low_rank = arnoldi(DiagonalOperator(np.zeros(P)), 8, 3, 0, force_hermitian).low_rank
    np.testing.assert_array_equal(low_rank.apply(rows(2, P)), np.zeros((2, P)))
    np.testing.assert_array_equal(low_rank.pseudo_solve(rows(2, P)), np.zeros((2, P)))


def test_the_krylov_projection_is_that_of_an_unsymmetric_matrix():
    matrix, _ = lopsided()
    space = krylov_space(GeneralOperator(matrix), 12, seed=0)
    basis = space.basis.numpy()
    assert_close(basis @ matrix @ basis.T, space.projection, 1e-12)
    assert_close(np.tril(space.projection, -2), np.zeros((12, 12)), 0)


def test_fewer_than_one_pair_is_refused():
    with pytest.raises(ValueError, match=r"`num_kept` must be a whole number >= 1. Received"):
        arnoldi(DenseOperator(MATRIX), 10, 0)
