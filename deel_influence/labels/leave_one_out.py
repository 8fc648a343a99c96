"""The losses of a softmax layer without each example in turn, by one Newton step each."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import tensorflow as tf

from ..errors import CurvatureSizeError
from ..rps.refit import HeadObjective, Part, refit
from ..utils.memory import available_bytes, human_bytes
from .head import MAX_STEPS, STRENGTH, SoftmaxLoss, with_ones
from .reading import losses_of

TOLERANCE = 1e-6
"""Of `refit`: what it leaves of the gradient must be small against the part of one example."""

COPIES_HELD = 4
"""So many matrices of the size of H, and of all S together, are held at once."""


def leave_one_out_losses(
    features: np.ndarray, labels: np.ndarray, num_classes: int, strength: float = STRENGTH
) -> np.ndarray:
    """Return what a softmax layer would lose on each example, had it been fitted without it.

    W is fitted once, to ``J(W) = (1/n) Σ ℓ_i(W f_i) + λ ‖W‖²``. With ``g_i = f_i ⊗ δ_i`` and
    ``H_i = f_i f_iᵀ ⊗ S_i`` the gradient and the Hessian of ``ℓ_i``, where ``δ_i = π_i - y_i`` and
    ``S_i = diag(π_i) - π_i π_iᵀ``, the Newton step of ``J - ℓ_i/n`` from the minimum of J is
    ``(H - H_i/n)⁻¹ g_i/n``. By the identity of Woodbury it moves the logits of example i by

        (I - A_i S_i)⁻¹ A_i δ_i,    A_i = (f_i ⊗ I)ᵀ H⁻¹ (f_i ⊗ I) / n,

    which takes one inverse for all examples and a system of c equations for each [1]_.

    Parameters
    ----------
    features
        Of mean 0 and variance 1, shape ``(n, d)``; a last entry of one is put to them.
    labels
        Classes, int64, shape ``(n,)``.
    num_classes
        The number c of classes.
    strength
        λ.

    Returns
    -------
    ``-log π_y`` at the moved logits, float64, shape ``(n,)``.

    Raises
    ------
    CurvatureSizeError
        If H, of ``(d + 1) c`` rows, does not fit in the free memory with its inverse.

    References
    ----------
    .. [1] K. Rahnama Rad, A. Maleki. A Scalable Estimate of the Out-of-Sample Prediction Error via
       Approximate Leave-One-Out Cross-Validation. JRSS B 2020.
    """
    rows = with_ones(features)
    n, r = rows.shape
    _check_memory(n, r, num_classes)
    part = Part(tf.constant(rows), tf.constant(labels), tf.ones(n, tf.float64))
    start = tf.zeros((r, num_classes), tf.float64)
    found = refit(HeadObjective(SoftmaxLoss(), [part], strength), start, TOLERANCE, MAX_STEPS)
    logits = tf.matmul(rows, found.weights)
    probabilities = tf.nn.softmax(logits).numpy()
    identity = np.eye(num_classes)
    curvature = probabilities[:, :, None] * (identity - probabilities[:, None])
    coupling = _coupling(rows, curvature, strength)
    deltas = probabilities - identity[labels]
    moved = np.linalg.solve(identity - coupling @ curvature, coupling @ deltas[:, :, None])
    return losses_of(tf.nn.log_softmax(logits + moved[:, :, 0]).numpy(), labels)


def _coupling(rows: np.ndarray, curvature: np.ndarray, strength: float) -> np.ndarray:
    """Return the matrices A_i, shape ``(n, c, c)``, for rows ``(n, r)`` and S ``(n, c, c)``."""
    (n, r), c = rows.shape, curvature.shape[1]
    hessian = np.empty((r, c, r, c))
    pairs = list(combinations_with_replacement(range(c), 2))
    for o, q in pairs:
        block = rows.T @ (curvature[:, o, q, None] * rows) / n
        hessian[:, o, :, q] = hessian[:, q, :, o] = block
    matrix = hessian.reshape(r * c, r * c)
    matrix[np.diag_indices(r * c)] += 2 * strength
    inverse = np.linalg.inv(matrix).reshape(r, c, r, c)
    result = np.empty_like(curvature)
    for o, q in pairs:
        along = np.einsum("nr,nr->n", rows @ inverse[:, o, :, q], rows) / n
        result[:, o, q] = result[:, q, o] = along
    return result


def _check_memory(n: int, r: int, c: int) -> None:
    needed, free = COPIES_HELD * 8 * ((r * c) ** 2 + n * c**2), available_bytes()
    if free is not None and needed > free:
        message = (
            f"The signal leave_one_out needs about {human_bytes(needed)} of memory for {n} "
            f"examples and {r * c} weights of the last layer, and {human_bytes(free)} are free. "
            "Ask for the signal head."
        )
        raise CurvatureSizeError(message)
