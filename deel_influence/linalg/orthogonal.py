"""Making long vectors orthonormal, with the small algebra in float64."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from .eigen import eigenpairs

# Columns that are in float64 at a time, so that no copy of all the vectors is made.
CHUNK = 1 << 16


def rounding(dtype: tf.DType) -> float:
    """Return the distance from 1 to the next number of a floating type."""
    return float(np.finfo(dtype.as_numpy_dtype).eps)


def inner_products(left: tf.Tensor, right: tf.Tensor) -> np.ndarray:
    """Return the inner products of rows ``(r, p)`` and ``(s, p)``, float64, shape ``(r, s)``."""
    total = np.zeros((left.shape[0], right.shape[0]))
    for start in range(0, left.shape[1], CHUNK):
        part = [tf.cast(rows[:, start : start + CHUNK], tf.float64) for rows in (left, right)]
        total += tf.matmul(*part, transpose_b=True).numpy()
    return total


def combine(weights: np.ndarray, rows: tf.Tensor) -> tf.Tensor:
    """Return ``weights @ rows``, shape ``(s, p)``, for weights ``(s, r)`` and rows ``(r, p)``."""
    return tf.matmul(tf.constant(weights, rows.dtype), rows)


def orthogonalize(vector: tf.Tensor, basis: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Take out of a vector what lies in the span of a basis.

    Parameters
    ----------
    vector
        Shape ``(1, p)``.
    basis
        Orthonormal rows, shape ``(t, p)``.

    Returns
    -------
    The rest ``(1, p)``, and the components ``(1, t)`` that were taken out.
    """
    components = tf.zeros((1, basis.shape[0]), vector.dtype)
    # Twice is enough (Parlett and Kahan), also for the classical form, whose products with the
    # whole basis at once are much faster than the modified form's loop over its rows.
    for _ in range(2):
        part = tf.matmul(vector, basis, transpose_b=True)
        vector = vector - tf.matmul(part, basis)
        components += part
    return vector, components


def orthonormal_rows(rows: tf.Tensor) -> tf.Tensor:
    """Return an orthonormal basis of the numerical span of rows ``(r, p)``, shape ``(s, p)``.

    Combinations whose norm is lost in rounding are left out, so s may be below r. This goes by
    the eigenvalues of the Gram matrix, twice (as Cholesky QR does): a hundred times faster than
    Householder's form on rows as long as a model's parameters.
    """
    # Rounding in the rows themselves is eps * norm; the Gram matrix has the squared norms.
    cutoff = (10 * rounding(rows.dtype)) ** 2
    for _ in range(2):
        squares, vectors = eigenpairs(inner_products(rows, rows))
        kept = squares > max(cutoff, 10 * rounding(tf.float64)) * squares.max(initial=0.0)
        rows = combine(vectors[:, kept].T / np.sqrt(squares[kept])[:, None], rows)
    return rows
