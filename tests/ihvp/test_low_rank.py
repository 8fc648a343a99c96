"""Arnoldi and Woodbury: which eigenpairs are kept, and what is made of the rest."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.ihvp import ArnoldiIHVP, ExactIHVP, NystromIHVP, WoodburyIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.linalg import LowRank
from tests.ihvp.problems import batches, convex, damping_for, data, dense, right_hand_sides, skips
from tests.oracles import assert_close, gradient_rows, relative_error

pytestmark = pytest.mark.usefixtures("float64")


def test_arnoldi_at_a_low_rank_approaches_the_exact_answer_as_the_rank_grows():
    model = convex()
    matrix = dense(model, "hessian")
    train = gradient_rows(model, *data())
    expected = train @ np.linalg.solve(matrix, train.T)

    def error(kept):
        ihvp = ArnoldiIHVP(model, batches(), 15, kept, seed=0)
        calculator = FirstOrderInfluenceCalculator(model, batches(), ihvp)
        scores = calculator.influence_matrix(batches(), batches(), verbose=0)
        return np.linalg.norm(scores - expected)

    errors = [error(k) for k in (2, 5, 9, 15)]
    assert errors == sorted(errors, reverse=True)
    values, vectors = np.linalg.eigh(matrix)
    kept = vectors[:, :5]  # what keeping the smallest eigenvalues would give
    wrong = train @ (kept / values[:5]) @ kept.T @ train.T
    assert errors[1] < np.linalg.norm(wrong - expected)


@pytest.mark.parametrize("damping", [0.1, (0.3,)])
def test_arnoldi_with_all_eigenvectors_solves_for_gradients(damping):
    model = convex()
    value, diagonal = damping_for(model, damping)
    matrix = dense(model, "hessian") + np.diag(diagonal)
    gradients = gradient_rows(model, *data())
    # A Krylov space holds one eigenvector for each eigenvalue; gradients lie in their span here.
    ihvp = ArnoldiIHVP(model, batches(), 15, 15, damping=value, seed=0)
    assert_close(ihvp.solve(gradients), np.linalg.solve(matrix, gradients.T).T, 1e-6)
    assert_close(ihvp.multiply(gradients), gradients @ matrix, 1e-6)


def test_arnoldi_with_dampings_by_layer_projects_the_scaled_curvature():
    model = skips()
    damping, diagonal = damping_for(model, (1.0, 0.5, 0.7))
    ihvp = ArnoldiIHVP(model, batches(), 60, 5, damping=damping, seed=0)
    scale = 1 / np.sqrt(diagonal)
    values, vectors = np.linalg.eigh(dense(model, "hessian") * np.outer(scale, scale))
    top = np.argsort(-np.abs(values))[:5]
    kept = vectors[:, top] * scale[:, None]
    gradients = gradient_rows(model, *data())
    expected = gradients @ (kept / (values[top] + 1)) @ kept.T
    assert_close(ihvp.solve(gradients), expected, 1e-6)
    calculator = FirstOrderInfluenceCalculator(model, batches(), ihvp)
    scores = calculator.score(batches(), verbose=0).values
    assert_close(scores, np.sum(gradients * expected, axis=1), 1e-6)
    matrix = calculator.influence_matrix(batches(), batches(), verbose=0)
    assert_close(matrix, gradients @ expected.T, 1e-6)


def test_arnoldi_keeps_the_largest_eigenvalues():
    model = skips()
    eigenvalues = np.linalg.eigvalsh(dense(model, "hessian"))
    largest = np.sort(np.abs(eigenvalues))[::-1][:4]
    ihvp = ArnoldiIHVP(model, batches(), 60, 4, seed=0)
    assert_close(np.sort(np.abs(ihvp.eigenvalues))[::-1], largest, 1e-6)
    assert len(ihvp.spectrum) > 20


def test_woodbury_without_damping_is_the_pseudo_inverse():
    model = skips()
    strategy = WoodburyIHVP(model, batches(n=6), damping=0.0, regularizer=False)
    exact = ExactIHVP(model, batches(n=6), curvature="gauss_newton", regularizer=False, rcond=1e-9)
    vectors = right_hand_sides(model)
    assert strategy.rank <= 18
    assert_close(strategy.solve(vectors), exact.solve(vectors), 1e-6)


def test_woodbury_at_a_low_rank_keeps_the_largest_eigenvalues():
    model = skips()
    full = WoodburyIHVP(model, batches(), regularizer=False, damping=0.1)
    few = WoodburyIHVP(model, batches(), rank=4, regularizer=False, damping=0.1)
    assert_close(few.eigenvalues, full.eigenvalues[:4], 1e-9)


def test_arnoldi_can_divide_what_is_orthogonal_by_the_damping():
    model = skips()
    values, vectors = np.linalg.eigh(dense(model, "hessian"))
    top = np.argsort(-np.abs(values))[:6]
    kept = vectors[:, top]
    approximate = (kept * values[top]) @ kept.T + 0.5 * np.eye(model.nb_params)
    ihvp = ArnoldiIHVP(model, batches(), 60, 6, keep_orthogonal=True, damping=0.5, seed=0)
    gradients = gradient_rows(model, *data())
    expected = np.linalg.solve(approximate, gradients.T).T
    assert_close(ihvp.solve(gradients), expected, 1e-6)
    scores = FirstOrderInfluenceCalculator(model, batches(), ihvp).score(batches(), verbose=0)
    assert_close(scores.values, np.sum(gradients * expected, axis=1), 1e-6)


def test_a_small_damping_costs_no_digits_in_float32():
    generator = np.random.default_rng(0)
    vectors = np.linalg.qr(generator.normal(size=(50, 50)))[0]
    values = generator.uniform(0.5, 2.0, 40)
    rhs = generator.normal(size=(3, 50))
    low_rank = LowRank(tf.constant(vectors[:40], tf.float32), values)
    for damping in (1e-3, 1e-6):
        matrix = (vectors[:40].T * values) @ vectors[:40] + damping * np.eye(50)
        inside = rhs @ vectors[:40].T @ vectors[:40]
        expected = np.linalg.solve(matrix, inside.T).T
        error = low_rank.solve(tf.constant(inside, tf.float32), damping) - expected
        # What float32 makes of a vector without any part outside is 1e-7 of it, over the damping.
        assert np.linalg.norm(error) / np.linalg.norm(expected) < 1e-6 + 2e-7 / damping


def test_a_diagonal_regulariser_is_not_sketched():
    model = skips()
    few = NystromIHVP(model, batches(), rank=6, damping=0.3, curvature="gauss_newton", seed=0)
    bare = NystromIHVP(
        model, batches(), rank=6, damping=0.3, curvature="gauss_newton", regularizer=False, seed=0
    )
    assert_close(np.unique(few._diagonal), [0.3, 0.32], 1e-7)
    exact = dense(model, "gauss_newton") + 0.3 * np.eye(model.nb_params)
    vectors = right_hand_sides(model)
    expected = np.linalg.solve(exact, vectors.T).T
    errors = [relative_error(ihvp.solve(vectors), expected) for ihvp in (few, bare)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_orthogonal": True}, "`damping` must be above 0 with keep_orthogonal"),
        ({"subspace_dim": 3, "k_largest_eig_vals": 4}, "must not exceed `subspace_dim`"),
        ({"k_largest_eig_vals": 0}, "`k_largest_eig_vals` must be a whole number"),
    ],
)
def test_settings_of_arnoldi_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ArnoldiIHVP(convex(), batches(), **options)


@pytest.mark.parametrize("rank", [0, -5, 2.5])
@pytest.mark.parametrize("strategy", [NystromIHVP, WoodburyIHVP])
def test_a_rank_that_is_none_is_refused(strategy, rank):
    with pytest.raises(ValueError, match="`rank` must be a whole number >= 1"):
        strategy(convex(), batches(), rank=rank)


def test_a_fitted_low_rank_holds_no_data():
    ihvp = NystromIHVP(convex(), batches(), damping=0.1)
    assert "loss_operator" not in vars(ihvp)


@pytest.mark.parametrize("n", [6, 30], ids=["fewer-rows", "more-rows"])
def test_woodbury_decomposes_the_smaller_side_and_gives_the_same(n):
    model = convex()
    exact = ExactIHVP(model, batches(n=n), curvature="gauss_newton", damping=0.2)
    strategy = WoodburyIHVP(model, batches(n=n), damping=0.2)
    vectors = right_hand_sides(model)
    assert_close(strategy.solve(vectors), exact.solve(vectors), 1e-7)
    assert strategy.rank <= min(3 * n, model.nb_params)
