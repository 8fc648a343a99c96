"""Preconditioners against their dense forms."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.linalg.linear_operator import DenseOperator
from deel_influence.linalg.low_rank import LowRank
from deel_influence.linalg.nystrom import nystrom
from deel_influence.linalg.preconditioners import JacobiPreconditioner, NystromPreconditioner
from tests.linalg.spectra import matrix_with, rotation
from tests.oracles import assert_close

P, DAMPING = 40, 0.05
DIAGONAL = np.linspace(0.0, 3.0, P)
VALUES, VECTORS = np.array([9.0, 4.0, 1.0]), rotation(P)[:3]
LOW_RANK = LowRank(tf.constant(VECTORS), VALUES)


@pytest.mark.parametrize("damping", [0.2, np.linspace(0.1, 1.0, P)], ids=["number", "vector"])
def test_jacobi_is_the_inverse_of_the_damped_diagonal(damping):
    operator = JacobiPreconditioner(DIAGONAL, damping)
    assert_close(operator.to_dense(), np.diag(1 / (DIAGONAL + damping)), 1e-14)


def test_nystrom_is_the_form_of_the_paper():
    weights = (VALUES[-1] + DAMPING) / (VALUES + DAMPING)
    expected = (VECTORS.T * weights) @ VECTORS + np.eye(P) - VECTORS.T @ VECTORS
    assert_close(NystromPreconditioner(LOW_RANK, DAMPING).to_dense(), expected, 1e-13)


def test_nystrom_brings_the_condition_number_down():
    matrix = matrix_with(np.geomspace(1000, 1e-6, P))
    low_rank = nystrom(DenseOperator(matrix), 25, seed=0).low_rank
    system = matrix + DAMPING * np.eye(P)
    inverse = NystromPreconditioner(low_rank, DAMPING).to_dense()
    values = np.linalg.eigvals(inverse @ system).real
    assert values.max() / values.min() < 2
    assert np.linalg.cond(system) > 1e4


def test_rank_zero_preconditions_nothing():
    empty = LowRank(tf.zeros((0, P), tf.float64), np.zeros(0))
    assert_close(NystromPreconditioner(empty, DAMPING).to_dense(), np.eye(P), 0)


def test_both_run_in_traced_functions_and_in_float32():
    single = LowRank(tf.constant(VECTORS, tf.float32), VALUES)
    for operator in (
        JacobiPreconditioner(DIAGONAL.astype("float32"), 0.5),
        NystromPreconditioner(single, DAMPING),
    ):
        traced = tf.function(operator.apply)(tf.eye(P))
        assert traced.dtype == tf.float32
        assert_close(traced, operator.to_dense(), 1e-6)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
def test_a_diagonal_that_is_not_positive_is_refused(bad):
    diagonal = np.ones(P)
    diagonal[[2, 5]] = bad
    with pytest.raises(ValueError, match=r"above 0 in every entry. Received: 2 of 40 entries"):
        JacobiPreconditioner(diagonal)


def test_an_indefinite_or_unsymmetric_sketch_is_refused():
    with pytest.raises(ValueError, match=r"positive semidefinite. Received: least eigenvalue -2"):
        NystromPreconditioner(LowRank(LOW_RANK.vectors, np.array([3.0, 1.0, -2.0])), DAMPING)
    with pytest.raises(ValueError, match=r"separate left eigenvectors: True"):
        NystromPreconditioner(LowRank(LOW_RANK.vectors, VALUES, LOW_RANK.vectors), DAMPING)


@pytest.mark.parametrize("damping", [0.0, -0.1, np.inf])
def test_a_damping_that_is_not_positive_is_refused(damping):
    with pytest.raises(ValueError, match=r"`damping` must be a finite number > 0. Received"):
        NystromPreconditioner(LOW_RANK, damping)
