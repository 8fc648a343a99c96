"""Slow, obvious twins of what the library computes, in float64 NumPy or by plain autodiff."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deel_influence.model.influence_model import BaseInfluenceModel


def gradient_rows(model: BaseInfluenceModel, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the gradients ``(n, p)``, each example alone on a tape."""
    rows = []
    for i in range(len(x)):
        values = [v.value for v in model.weights]
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model.per_example_losses((x[i : i + 1], y[i : i + 1])))
        gradients = tape.gradient(loss, values, unconnected_gradients="zero")
        rows.append(np.concatenate([np.ravel(tf.convert_to_tensor(g)) for g in gradients]))
    return np.stack(rows)


def mean_hessian(model: BaseInfluenceModel, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the Hessian ``(p, p)`` of the mean loss by nested tapes, without regulariser."""
    values = [v.value for v in model.weights]
    with tf.GradientTape(persistent=True) as outer:
        with tf.GradientTape() as inner:
            loss = tf.reduce_mean(model.per_example_losses((x, y)))
        gradients = inner.gradient(loss, values, unconnected_gradients="zero")
        flat = tf.concat([tf.reshape(tf.convert_to_tensor(g), (-1,)) for g in gradients], 0)
    rows = outer.jacobian(flat, values, unconnected_gradients="zero", experimental_use_pfor=False)
    p = flat.shape[0]
    return np.concatenate([np.reshape(row, (p, -1)) for row in rows], axis=1)


def relative_error(actual: object, expected: object) -> float:
    """Return ``‖actual - expected‖ / ‖expected‖``; infinite where the shapes differ."""
    actual, expected = np.asarray(actual, dtype=float), np.asarray(expected, dtype=float)
    if actual.shape != expected.shape:
        return np.inf
    scale = np.linalg.norm(expected)
    return float(np.linalg.norm(actual - expected) / (scale if scale else 1.0))


def assert_close(actual: object, expected: object, rtol: float = 1e-10) -> None:
    """Compare in the relative norm; the message says by how much and where they differ."""
    error = relative_error(actual, expected)
    if error <= rtol:
        return
    actual, expected = np.asarray(actual, dtype=float), np.asarray(expected, dtype=float)
    where = "shapes differ"
    if actual.shape == expected.shape:
        worst = np.unravel_index(np.argmax(np.abs(actual - expected)), actual.shape)
        where = f"most at {worst}: {actual[worst]} against {expected[worst]}"
    message = (
        f"relative error {error:.2e} > {rtol:.0e}; {actual.shape} and {expected.shape}; {where}"
    )
    raise AssertionError(message)
