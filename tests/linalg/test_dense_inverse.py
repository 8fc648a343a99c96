"""Pseudo-inverses of a measured and an added part, against NumPy in float64."""

from __future__ import annotations

import warnings

import numpy as np
import tensorflow as tf

from deel_influence.errors import CurvatureWarning
from deel_influence.linalg.dense_inverse import (
    DenseInverse,
    decided_eigenpairs,
    decided_sums,
    rounding_cutoff,
)
from tests.linalg.spectra import matrix_with, rotation, rows
from tests.oracles import assert_close

EPS = float(np.finfo(np.float32).eps)
P = 12
NONE = np.zeros(P)


def measured(eigenvalues: np.ndarray) -> np.ndarray:
    """Return a matrix with these eigenvalues that float32 has rounded, as a fit gives it."""
    matrix = matrix_with(eigenvalues).astype(np.float32).astype(np.float64)
    return (matrix + matrix.T) / 2


def inverse_of(
    matrix: np.ndarray, damping: np.ndarray, penalty: np.ndarray | None = None
) -> tuple[np.ndarray, DenseInverse]:
    """Return the eigenvalues and the inverse of the sum."""
    cutoff = rounding_cutoff(matrix, tf.float32)
    total = matrix + np.diag(damping) + (0 if penalty is None else penalty)
    pairs = np.linalg.eigh(total)
    values, vectors = decided_eigenpairs(*pairs, damping, penalty, cutoff, tf.float32)
    return values, DenseInverse(values, vectors, values != 0, cutoff)


def test_the_cutoff_is_a_few_roundings_of_the_largest_eigenvalue_whatever_the_size():
    for size in (1, 3, 200):
        matrix = matrix_with(np.linspace(-7.0, 5.0, size))
        # One digit of it is all that matters.
        assert_close(rounding_cutoff(matrix, tf.float32), 4 * EPS * 7.0, 0.01)
    assert rounding_cutoff(np.zeros((3, 3)), tf.float32) == 0


def test_what_damping_lifts_is_inverted_however_large_the_rest():
    """One rounding error of λ_max is a tenth of the damping; there are p of them in p·eps."""
    spectrum = np.concatenate([np.zeros(400), np.geomspace(1e-3, 8e2, 400)])
    damping = np.full(800, 1e-3)
    values, inverse = inverse_of(measured(spectrum), damping)
    assert inverse.num_dropped == 0
    assert values[0] > 0
    matrix = measured(spectrum) + np.diag(damping)
    assert_close(inverse.apply(rows(3, 800)), np.linalg.solve(matrix, rows(3, 800).T).T, 1e-9)


def test_damping_below_the_rounding_stands_alone_where_the_data_say_nothing():
    turned, spectrum = rotation(P), np.r_[np.zeros(5), np.linspace(1, 60, 7)]
    damping = 1e-7  # and 4 roundings of 60 are 3e-5
    values, inverse = inverse_of(measured(spectrum), np.full(P, damping))
    assert inverse.num_dropped == 0
    assert_close(values[:5], np.full(5, damping), 1e-9)
    flat, rest = turned[:, :5].T, turned[:, 5:].T
    # The eigenvectors are known to a rounding error of 60 over the gap of 1.
    assert_close(inverse.apply(flat), flat / damping, 1e-4)
    assert_close(rest @ inverse.apply(rest).numpy().T, np.diag(1 / spectrum[5:]), 1e-4)


def test_of_layers_with_dampings_of_their_own_only_the_undamped_ones_are_left_out():
    spectrum = np.array([0, 2, 5, 0, 3, 90.0])
    matrix = np.diag(np.tile(spectrum, 2))
    for small in (1e-3, 1e-7):
        damping = np.repeat([0.0, small], 6)
        values, inverse = inverse_of(matrix.copy(), damping)
        assert inverse.num_dropped == np.sum(values == 0) == 2
        expected = np.linalg.pinv(matrix + np.diag(damping), rcond=1e-12, hermitian=True)
        assert_close(inverse.apply(np.eye(P)), expected, 1e-9)


def test_a_penalty_keeps_what_it_curves_and_hides_nothing_of_the_rest():
    """A strong penalty on some parameters is no reason to leave out small curvature of others."""
    matrix = np.diag([0, 1e-2, 2, 0, 1e-2, 3.0])
    for strength in (1e-6, 1e5):
        penalty = np.diag([strength] * 3 + [0.0] * 3)
        _, inverse = inverse_of(matrix.copy(), np.zeros(6), penalty)
        assert inverse.num_dropped == 1
        expected = np.diag(np.r_[1 / (np.diag(matrix)[:3] + strength), 0, 100, 1 / 3])
        assert_close(inverse.apply(np.eye(6)), expected, 1e-9)


def test_the_rounding_of_a_penalty_counts_as_none():
    coupled = np.ones((3, 3)) + np.random.default_rng(0).normal(size=(3, 3)) * EPS / 4
    penalty = np.zeros((4, 4))
    penalty[:3, :3] = (coupled + coupled.T) / 2
    _, inverse = inverse_of(np.diag([0, 0, 0, 1e3]), np.zeros(4), penalty)
    assert inverse.num_dropped == 2
    expected = np.zeros((4, 4))
    expected[:3, :3], expected[3, 3] = 1 / 9, 1e-3
    assert_close(inverse.apply(np.eye(4)), expected, 1e-6)


def test_negative_curvature_that_the_damping_cancels_is_left_out():
    sums = np.array([-1e-9, 1e-9, 2e-5, -5.0])
    added = np.array([1.0, 0.0, 1e-5, 1.0])
    assert_close(decided_sums(sums, added, 3e-5), [0.0, 0.0, 1e-5, -5.0], 1e-15)


def test_eigenvalues_stay_in_order_and_the_pairs_are_those_of_the_matrix():
    matrix = measured(np.r_[-3.0, np.zeros(4), np.linspace(1e-5, 4.0, 7)])
    cutoff = rounding_cutoff(matrix, tf.float32)
    values, vectors = decided_eigenpairs(*np.linalg.eigh(matrix), NONE, None, cutoff, tf.float32)
    assert np.all(np.diff(values) >= 0)
    assert_close(vectors.T @ vectors, np.eye(P), 1e-12)
    assert np.linalg.norm((vectors * values) @ vectors.T - matrix, 2) <= cutoff


def test_products_keep_the_digits_that_a_single_precision_inverse_loses():
    spectrum = np.geomspace(1e-6, 1.0, P)
    values, vectors = np.linalg.eigh(matrix_with(spectrum))
    inverse = DenseInverse(values, vectors, values > 0, 0.0)
    right = (matrix_with(spectrum) @ rows(4, P).T).T  # cancels all but one digit in 1e6
    expected = rows(4, P)
    assert_close(inverse.apply(tf.constant(right)), expected, 1e-9)
    single = inverse.matrix.numpy().astype(np.float32) @ right.astype(np.float32).T
    assert np.linalg.norm(single.T - expected) / np.linalg.norm(expected) > 1e-3


def said_of(inverse: DenseInverse, vectors: np.ndarray) -> list[str]:
    """Return what is said of right-hand sides in float32."""
    right = tf.constant(vectors, tf.float32)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", CurvatureWarning)
        inverse.warn_if_lost(right, inverse.apply(right), "It", stacklevel=1)
    return [str(warning.message) for warning in said]


def test_rounding_of_right_hand_sides_is_no_loss():
    spectrum, turned = np.r_[0.0, 0.0, np.linspace(1, 10, 10)], rotation(P)
    _, inverse = inverse_of(measured(spectrum), NONE)
    assert inverse.num_dropped == 2
    inside = rows(5, 10) @ turned[:, 2:].T
    rounded = inside + 5e-7 * rows(5, P, 2)
    sure = rounded * np.array([[1.0], [1.0], [1.0], [1.0], [1e-9]]) + 1e-8 * turned[:, 0]
    for vectors in (inside, rounded, sure, np.zeros((2, P))):
        assert said_of(inverse, vectors) == []


def test_a_loss_is_said_with_its_directions_its_length_and_what_it_carries():
    """Each of ten directions carries about the same; one of eleven is then lost."""
    spectrum, turned = np.r_[0.0, 1e-5, np.geomspace(1e-3, 1e3, 10)], rotation(P)
    matrix = (turned * spectrum) @ turned.T
    _, inverse = inverse_of((matrix + matrix.T) / 2, NONE)
    vectors = rows(400, P) * np.sqrt(spectrum) @ turned.T  # as gradients are at a minimum
    (text,) = said_of(inverse, 17 * vectors)
    assert text.startswith("It leaves out 2 of 12 directions")
    assert "have a part in 1 of them, 0.0% of their length" in text
    assert "carries some 9% of vᵀH⁻¹v or more" in text
    (text,) = said_of(inverse, vectors + 10 * turned[:, 0])
    assert "have a part in 2 of them" in text
    assert "carries some 100% of" in text


def test_without_any_curvature_all_is_left_out_and_said():
    _, inverse = inverse_of(np.zeros((3, 3)), np.zeros(3))
    assert np.all(inverse.apply(np.eye(3)) == 0)
    (text,) = said_of(inverse, np.eye(3))
    assert "leaves out 3 of 3 directions" in text
    assert "100.0% of their length" in text
