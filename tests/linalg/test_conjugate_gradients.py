"""Conjugate gradients against dense solves, on matrices with chosen spectra."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import NonFiniteError
from deel_influence.linalg import (
    DenseOperator,
    JacobiPreconditioner,
    NystromPreconditioner,
    conjugate_gradients,
    nystrom,
)
from tests.linalg.spectra import CountingOperator, matrix_with
from tests.oracles import assert_close, relative_error

P = 60


def rows(k: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(k, P))


def decaying(smallest: float = 1e-3) -> np.ndarray:
    return matrix_with(np.geomspace(1.0, smallest, P))


# One at a time, seventy systems are no other case than five.
@pytest.mark.parametrize(
    ("block_size", "k"),
    [(1, 1), (1, 5), *((size, k) for size in (8, 64) for k in (1, 5, 40, 70))],
)
def test_solutions_equal_those_of_a_dense_solver(block_size, k):
    matrix, rhs = decaying(), rows(k)
    result = conjugate_gradients(
        DenseOperator(matrix), rhs, tolerance=1e-10, max_steps=500, block_size=block_size
    )
    assert result.all_converged
    assert result.reason == ""
    assert_close(result.solution, np.linalg.solve(matrix, rhs.T).T, 1e-7)


@pytest.mark.parametrize("k", [1, 4])
def test_it_ends_in_as_many_steps_as_there_are_distinct_eigenvalues(k):
    matrix = matrix_with(np.repeat([1.0, 3.0, 7.0, 20.0], P // 4))
    result = conjugate_gradients(DenseOperator(matrix), rows(k), tolerance=1e-10)
    assert (result.num_steps == 4).all()
    short = conjugate_gradients(DenseOperator(matrix), rows(k), tolerance=1e-10, max_steps=3)
    assert not short.converged.any()


def test_a_block_needs_fewer_steps_than_its_right_hand_sides_alone():
    operator, rhs = DenseOperator(decaying()), rows(20)
    alone = conjugate_gradients(operator, rhs, block_size=1, tolerance=1e-6, max_steps=500)
    block = conjugate_gradients(operator, rhs, block_size=20, tolerance=1e-6, max_steps=500)
    assert block.num_steps.max() * 5 < alone.num_steps.min()


def test_residuals_are_those_of_the_solutions_returned():
    matrix, rhs = decaying(), rows(6)
    result = conjugate_gradients(DenseOperator(matrix), rhs, tolerance=1e-9, max_steps=4)
    true = np.linalg.norm(rhs - result.solution @ matrix, axis=1) / np.linalg.norm(rhs, axis=1)
    assert_close(result.residual_norm, true, 1e-6)
    assert not result.converged.any()
    assert "4 steps" in result.reason


def test_dependent_equal_and_zero_right_hand_sides_are_no_obstacle():
    matrix, some = decaying(1e-2), rows(2)
    rhs = np.concatenate([some, some, some[:1] + some[1:], np.zeros((1, P)), 1e-9 * rows(1, 5)])
    result = conjugate_gradients(DenseOperator(matrix), rhs, tolerance=1e-10, max_steps=200)
    assert result.all_converged
    assert result.num_steps[5] == 0
    expected = np.linalg.solve(matrix, rhs.T).T
    for row, true in zip(result.solution.numpy(), expected, strict=True):
        assert_close(row, true, 1e-7)


def test_the_order_and_length_of_right_hand_sides_do_not_matter():
    matrix, rhs = decaying(1e-2), rows(6)
    lengths = np.geomspace(1e-8, 1e8, 6)[:, None]
    plain = conjugate_gradients(DenseOperator(matrix), rhs, tolerance=1e-9, max_steps=200)
    scaled = conjugate_gradients(
        DenseOperator(matrix), (rhs * lengths)[::-1], tolerance=1e-9, max_steps=200
    )
    for mine, theirs in zip(plain.solution, (scaled.solution / lengths[::-1])[::-1], strict=True):
        assert_close(mine, theirs, 1e-6)


def test_products_shrink_as_right_hand_sides_converge():
    easy = np.zeros((10, P))
    easy[:, :10] = np.eye(10)  # eigenvectors, solved in one step
    matrix = np.diag(np.geomspace(1.0, 1e-3, P))
    operator = CountingOperator(matrix)
    result = conjugate_gradients(
        operator, np.concatenate([easy, rows(2)]), tolerance=1e-8, max_steps=400
    )
    assert result.all_converged
    assert operator.sizes[0] == 12
    assert min(operator.sizes) <= 3


@pytest.mark.parametrize("preconditioner", ["jacobi", "nystrom"])
def test_a_good_preconditioner_saves_steps_and_keeps_the_solution(preconditioner):
    generator = np.random.default_rng(0)
    scale = np.geomspace(1.0, 1e3, P)
    if preconditioner == "jacobi":
        matrix = matrix_with(generator.uniform(0.5, 1.5, P)) * np.sqrt(np.outer(scale, scale))
        inverse = JacobiPreconditioner(np.diag(matrix))
    else:
        matrix = matrix_with(np.concatenate([np.geomspace(1e4, 10, 15), np.full(P - 15, 1e-3)]))
        matrix += 0.1 * np.eye(P)
        sketch = nystrom(DenseOperator(matrix - 0.1 * np.eye(P)), 20, seed=0).low_rank
        inverse = NystromPreconditioner(sketch, 0.1)
    options = {"tolerance": 1e-8, "max_steps": 1000}
    plain = conjugate_gradients(DenseOperator(matrix), rows(3), **options)
    better = conjugate_gradients(DenseOperator(matrix), rows(3), preconditioner=inverse, **options)
    assert better.all_converged
    assert better.num_steps.max() <= plain.num_steps.max() / 2
    assert_close(better.solution, np.linalg.solve(matrix, rows(3).T).T, 1e-6)


def test_negative_curvature_ends_the_solve_and_is_named():
    matrix = matrix_with(np.linspace(-0.1, 1.0, P))
    result = conjugate_gradients(DenseOperator(matrix), rows(5), tolerance=1e-8, max_steps=200)
    assert not result.converged.any()
    assert "not positive definite" in result.reason
    assert np.isfinite(result.solution).all()


def test_float32_reaches_what_it_can_and_says_where_it_stops():
    matrix, rhs = decaying(1e-4).astype(np.float32), rows(8).astype(np.float32)
    good = conjugate_gradients(DenseOperator(matrix), rhs, tolerance=1e-3, max_steps=1000)
    assert good.all_converged
    assert good.solution.dtype == tf.float32
    too_much = conjugate_gradients(DenseOperator(matrix), rhs, tolerance=1e-9, max_steps=1000)
    assert not too_much.converged.any()
    assert "rounding" in too_much.reason
    expected = np.linalg.solve(matrix.astype(float), rhs.astype(float).T).T
    assert relative_error(too_much.solution, expected) < 0.05


def test_no_right_hand_side_gives_no_solution():
    result = conjugate_gradients(DenseOperator(decaying()), np.zeros((0, P)))
    assert result.solution.shape == (0, P)
    assert result.all_converged


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": -1.0}, "`tolerance` must be a finite number > 0"),
        ({"max_steps": 0}, "`max_steps` must be a whole number >= 1"),
        ({"block_size": 0}, "`block_size` must be a whole number >= 1"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        conjugate_gradients(DenseOperator(decaying()), rows(1), **options)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_right_hand_sides_that_are_not_finite_are_named(bad):
    rhs = rows(3)
    rhs[1, 4] = bad
    with pytest.raises(NonFiniteError, match="`rhs` must be finite.*row 1"):
        conjugate_gradients(DenseOperator(decaying()), rhs)


def test_a_residual_that_vanishes_in_float32_divides_by_nothing():
    # The identity solves in one step, and leaves residuals of exactly zero.
    identity = np.eye(3, dtype="float32")
    result = conjugate_gradients(DenseOperator(identity), identity, tolerance=1e-7)
    assert bool(np.all(result.converged))
    assert_close(result.solution, identity, 1e-6)
