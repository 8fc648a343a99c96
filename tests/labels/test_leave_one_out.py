"""Losses without each example in turn, against training without it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import LogisticRegression

from deel_influence.errors import CurvatureSizeError
from deel_influence.labels import leave_one_out
from deel_influence.labels.head import standardised, with_ones
from deel_influence.labels.leave_one_out import leave_one_out_losses
from tests.labels.problems import clouds


def problem(num_classes):
    """Return clouds of which every ninth label is wrong."""
    x, labels = clouds()
    labels = np.where(np.arange(len(labels)) % 9 == 4, (labels + 1) % 3, labels)
    return standardised(x), np.minimum(labels, num_classes - 1)


def fitted(rows, labels, strength, num_examples):
    """Minimise ``(1/n) Σ ℓ_i + λ ‖W‖²`` with another solver."""
    # Of two classes scikit-learn has one vector of weights, the difference of ours.
    factor = 2 if labels.max() > 1 else 1
    inverse = 1 / (factor * strength * num_examples)
    head = LogisticRegression(C=inverse, fit_intercept=False, tol=1e-12, max_iter=10_000)
    return head.fit(rows, labels)


def losses(head, rows, labels):
    return -head.predict_log_proba(rows)[np.arange(len(labels)), labels]


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("strength", [0.01, 0.1])
def test_they_are_those_of_fits_without_the_example(num_classes, strength):
    x, labels = problem(num_classes)
    rows, n, some = with_ones(x), len(x), np.arange(4, len(x), 5)
    expected = []
    for i in some:
        others = np.arange(n) != i
        head = fitted(rows[others], labels[others], strength, n)
        expected += losses(head, rows[[i]], labels[[i]]).tolist()
    found = leave_one_out_losses(x, labels, num_classes, strength)[some]
    # One Newton step leaves errors of the second order in the share of one example.
    np.testing.assert_allclose(found, expected, rtol=0.01)
    change = losses(fitted(rows, labels, strength, n), rows, labels)[some] - expected
    assert np.abs(found - expected).max() < 0.1 * np.abs(change).max()


def test_they_are_one_newton_step_of_the_objective_without_the_example():
    x, labels = problem(3)
    rows, n, strength = with_ones(x), len(x), 0.01
    weights = tf.Variable(fitted(rows, labels, strength, n).coef_.T)

    def objective(kept):
        logits = tf.matmul(rows, weights)
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return tf.reduce_sum(kept * each) / n + strength * tf.reduce_sum(weights**2)

    found = leave_one_out_losses(x, labels, 3, strength)
    for i in (0, 4, 50):
        kept = tf.constant((np.arange(n) != i).astype(float))
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                value = objective(kept)
            gradient = inner.gradient(value, weights)
        hessian = tf.reshape(outer.jacobian(gradient, weights), (9, 9))
        step = np.linalg.solve(hessian, -np.ravel(gradient)).reshape(3, 3)
        logits = rows[i] @ (weights.numpy() + step)
        expected = tf.nn.sparse_softmax_cross_entropy_with_logits(labels[i], logits)
        np.testing.assert_allclose(found[i], expected, rtol=1e-5)


def test_a_layer_that_fits_no_memory_is_refused(monkeypatch):
    monkeypatch.setattr(leave_one_out, "available_bytes", lambda: 100)
    x, labels = problem(3)
    with pytest.raises(CurvatureSizeError, match="9 weights.*Ask for the signal head"):
        leave_one_out_losses(x, labels, 3)
