"""Operators of low rank against their dense forms."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.linalg.low_rank import LowRank
from tests.linalg.spectra import damped_solution, rotation, rows
from tests.oracles import assert_close

P, R = 9, 4
VALUES = np.array([8.0, -3.0, 0.5, 0.01])
VECTORS = rotation(P)[:R]
DENSE = (VECTORS.T * VALUES) @ VECTORS
LOW_RANK = LowRank(tf.constant(VECTORS), VALUES)


def test_a_product_equals_the_dense_one():
    assert (LOW_RANK.rank, LOW_RANK.size) == (R, P)
    assert_close(LOW_RANK.apply(rows(3, P)), rows(3, P) @ DENSE, 1e-13)


@pytest.mark.parametrize("damping", [1e-3, 0.1, 10.0])
def test_a_solve_equals_the_dense_one(damping):
    expected = damped_solution(DENSE, rows(3, P), damping)
    assert_close(LOW_RANK.solve(rows(3, P), damping), expected, 1e-11)


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_a_pseudo_solve_inverts_within_the_eigenvectors_and_drops_the_rest(damping):
    expected = rows(3, P) @ (VECTORS.T / (VALUES + damping)) @ VECTORS
    assert_close(LOW_RANK.pseudo_solve(rows(3, P), damping), expected, 1e-12)
    outside = rotation(P)[R:]
    assert np.abs(LOW_RANK.pseudo_solve(outside, damping)).max() < 1e-10


def test_a_pseudo_solve_drops_directions_below_its_cutoff():
    expected = rows(3, P) @ (VECTORS[:2].T / VALUES[:2]) @ VECTORS[:2]
    assert_close(LOW_RANK.pseudo_solve(rows(3, P), rcond=0.1), expected, 1e-12)


def test_a_pseudo_solve_survives_an_eigenvalue_that_the_damping_cancels():
    solution = LOW_RANK.pseudo_solve(rows(3, P), damping=3.0)
    assert np.abs(solution @ VECTORS[1][:, None]).max() < 1e-12


@pytest.mark.parametrize("damping", [0.0, -1.0, 3.0, float("nan")])
def test_a_damping_that_makes_no_inverse_is_refused(damping):
    with pytest.raises(ValueError, match=r"`damping` must be above 0 .* Received: damping="):
        LOW_RANK.solve(rows(1, P), damping)


def test_left_eigenvectors_invert_an_unsymmetric_operator():
    right = rows(P, P)
    left = np.linalg.inv(right).T
    dense = (right[:R].T * VALUES) @ left[:R]
    low_rank = LowRank(tf.constant(right[:R]), VALUES, tf.constant(left[:R]))
    assert_close(low_rank.apply(rows(3, P, 2)), rows(3, P, 2) @ dense.T, 1e-10)
    expected = damped_solution(dense, rows(3, P, 2), 0.2)
    assert_close(low_rank.solve(rows(3, P, 2), 0.2), expected, 1e-9)


def test_rank_zero_is_the_zero_operator():
    empty = LowRank(tf.zeros((0, P), tf.float64), np.zeros(0))
    np.testing.assert_array_equal(empty.apply(rows(2, P)), np.zeros((2, P)))
    np.testing.assert_array_equal(empty.pseudo_solve(rows(2, P)), np.zeros((2, P)))
    assert_close(empty.solve(rows(2, P), 0.5), rows(2, P) / 0.5, 1e-15)


def test_traced_and_eager_agree():
    traced = tf.function(lambda v: (LOW_RANK.solve(v, 0.1), LOW_RANK.pseudo_solve(v)))
    solution, pseudo = traced(tf.constant(rows(3, P)))
    assert_close(solution, LOW_RANK.solve(rows(3, P), 0.1), 1e-15)
    assert_close(pseudo, LOW_RANK.pseudo_solve(rows(3, P)), 1e-15)


def test_float32_vectors_solve_in_float32():
    single = LowRank(tf.constant(VECTORS, tf.float32), VALUES)
    solution = single.solve(rows(3, P), 0.1)
    assert solution.dtype == tf.float32
    assert_close(solution, LOW_RANK.solve(rows(3, P), 0.1), 1e-5)
