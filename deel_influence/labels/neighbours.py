"""The labels of an example's nearest neighbours."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

MAX_PAIRS = 2**24
"""Bound on the pairs whose distances are held at once."""


def neighbour_shares(
    features: np.ndarray, labels: np.ndarray, num_classes: int, k: int
) -> np.ndarray:
    """Return which share of the k nearest other examples has each class.

    Distances are Euclidean, computed in float32; the k smallest of n are selected, and not all of
    them sorted.

    Parameters
    ----------
    features
        Shape ``(n, d)``.
    labels
        Classes, int64, shape ``(n,)``.
    num_classes
        The number c of classes.
    k
        The number of neighbours; n - 1 of them where it is larger.

    Returns
    -------
    float64, shape ``(n, c)``, each row of sum 1; all zeros for a single example.
    """
    n = len(features)
    k = min(k, n - 1)
    if k < 1:
        return np.zeros((n, num_classes))
    points = tf.constant(features, tf.float32)
    squares = tf.reduce_sum(tf.square(points), axis=1)
    size = max(MAX_PAIRS // n, 1)
    found = []
    for start in range(0, n, size):
        part = points[start : start + size]
        # The norm of the example itself, left out, does not change the order.
        near = 2 * tf.matmul(part, points, transpose_b=True) - squares
        rows = tf.range(tf.shape(part)[0])
        own = tf.stack([rows, rows + start], axis=1)
        nowhere = tf.fill(tf.shape(rows), tf.constant(-np.inf, tf.float32))
        near = tf.tensor_scatter_nd_update(near, own, nowhere)
        found.append(tf.math.top_k(near, k, sorted=False).indices.numpy())
    classes = labels[np.concatenate(found)] + num_classes * np.arange(n)[:, None]
    counts = np.bincount(classes.ravel(), minlength=n * num_classes)
    return counts.reshape(n, num_classes) / k
