"""The algebra of operators against the algebra of matrices, and what a solver returns."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.linalg.linear_operator import (
    BlockDiagonalOperator,
    DenseOperator,
    DiagonalOperator,
    IdentityOperator,
    LinearOperator,
)
from deel_influence.linalg.result import SolveResult, relative_residuals
from tests.linalg.spectra import CountingOperator, matrix_with, rows
from tests.oracles import assert_close

P = 7
A, B = matrix_with(range(P), seed=0), matrix_with(range(-3, P - 3), seed=1)
VECTOR = np.linspace(0.5, 2.0, P)

EXPRESSIONS = {
    "sum": (lambda a, b: a + b, A + B),
    "difference": (lambda a, b: a - b, A - B),
    "negative": (lambda a, b: -a, -A),
    "factor-left": (lambda a, b: 2.5 * a, 2.5 * A),
    "factor-right": (lambda a, b: a * np.float32(2.5), 2.5 * A),
    "damped": (lambda a, b: a.damped(0.3), A + 0.3 * np.eye(P)),
    "damped-by-a-vector": (lambda a, b: a.damped(VECTOR), A + np.diag(VECTOR)),
    "nested": (lambda a, b: 2 * (a + b.damped(1)) - a, A + 2 * B + 2 * np.eye(P)),
}


@pytest.mark.parametrize(("expression", "expected"), EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_algebra_of_operators_equals_algebra_of_matrices(expression, expected):
    operator = expression(DenseOperator(A), DenseOperator(B))
    assert_close(operator.to_dense(), expected, 1e-14)
    assert_close(operator.apply(rows(3, P)), rows(3, P) @ expected, 1e-14)


def test_identity_and_diagonal_have_their_dense_forms():
    assert_close(IdentityOperator(P, tf.float64).to_dense(), np.eye(P), 0)
    assert_close(DiagonalOperator(VECTOR).to_dense(), np.diag(VECTOR), 0)


@pytest.mark.parametrize(("chunk", "sizes"), [(3, [3, 3, 1]), (7, [7]), (64, [7])])
def test_to_dense_takes_p_products_in_chunks(chunk, sizes):
    operator = CountingOperator(A)
    assert_close(operator.to_dense(chunk), A, 1e-15)
    assert operator.sizes == sizes


def test_to_dense_is_symmetric_and_float64_even_in_float32():
    dense = DenseOperator(A.astype("float32")).to_dense()
    assert dense.dtype == np.float64
    np.testing.assert_array_equal(dense, dense.T)


def test_blocks_lose_what_couples_them():
    expected = A.copy()
    expected[:3, 3:] = expected[3:, :3] = 0
    operator = BlockDiagonalOperator(DenseOperator(A), [(0, 3), (3, P)])
    assert_close(operator.to_dense(), expected, 1e-14)


def test_blocks_cost_one_product_each():
    operator = CountingOperator(A)
    BlockDiagonalOperator(operator, [(0, 2), (2, 3), (3, P)]).apply(rows(4, P))
    assert operator.sizes == [4, 4, 4]


def test_vectors_are_cast_to_the_operators_type():
    operator = DenseOperator(A.astype("float32"))
    assert operator.apply(rows(2, P)).dtype == tf.float32
    assert operator.apply([[1] * P]).dtype == tf.float32


def test_an_operator_needs_one_method():
    class Doubling(LinearOperator):
        def _apply(self, vectors):
            return 2.0 * vectors

    assert_close(Doubling(3).damped(1).to_dense(), 3 * np.eye(3), 0)


def test_an_operator_runs_in_a_traced_function():
    operator = DenseOperator(A).damped(0.1)
    assert_close(tf.function(operator.apply)(tf.constant(rows(2, P))), operator.apply(rows(2, P)))


@pytest.mark.parametrize("shape", [(P,), (2, P + 1), (1, 2, P)])
def test_rows_of_another_length_are_refused_with_the_shape(shape):
    with pytest.raises(ValueError, match=rf"\(k, p\) with p = {P}.*Received: shape \({shape[0]}"):
        DenseOperator(A).apply(np.zeros(shape))


def test_operators_of_other_sizes_or_types_cannot_be_added():
    with pytest.raises(ValueError, match=r"same size and dtype. Received: .*7.*5"):
        DenseOperator(A) + IdentityOperator(5, tf.float64)
    with pytest.raises(ValueError, match=r"float64.*float32"):
        DenseOperator(A) + IdentityOperator(P)


@pytest.mark.parametrize(
    "expression", [lambda a: a + 1, lambda a: a - 1, lambda a: a * "x", lambda a: a * a]
)
def test_only_operators_and_numbers_take_part(expression):
    with pytest.raises(TypeError):
        expression(DenseOperator(A))


def test_relative_residuals_are_those_of_each_row_and_0_for_a_zero_row():
    rhs = np.stack([VECTOR, np.zeros(P), VECTOR])
    products = np.stack([VECTOR, np.zeros(P), 3 * VECTOR])
    assert_close(relative_residuals(tf.constant(rhs), tf.constant(products)), [0, 0, 2], 1e-15)


def solved(converged, reason=""):
    k = len(converged)
    fields = np.arange(k), np.full(k, 0.5), np.array(converged)
    return SolveResult(tf.ones((k, P)) * k, *fields, reason)


def test_joined_results_keep_their_order_and_the_first_reason():
    joined = SolveResult.join(
        [solved([True, True]), solved([False], "slow"), solved([False] * 3, "bad")]
    )
    assert joined.solution.shape == (6, P)
    np.testing.assert_array_equal(joined.num_steps, [0, 1, 0, 0, 1, 2])
    np.testing.assert_array_equal(joined.converged, [True, True] + [False] * 4)
    assert (joined.reason, joined.all_converged) == ("slow", False)
    assert solved([True]).all_converged
