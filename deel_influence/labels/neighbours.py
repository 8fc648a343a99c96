"""The nearest neighbours of each example, and what they tell of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

MAX_PAIRS = 2**24
"""Bound on the pairs whose distances are held at once."""

COPIES = 0.1
"""Examples nearer than this share of the median distance to the nearest one are near-duplicates."""

_LEAST_SCALE = 1e-12


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The k nearest other examples of each of n, the nearest first.

    Attributes
    ----------
    indices
        Their positions, int64, shape ``(n, k)``.
    distances
        How far they are, float64, shape ``(n, k)``.
    """

    indices: np.ndarray
    distances: np.ndarray

    def first(self, k: int) -> Neighbours:
        """Return the k nearest of them."""
        return Neighbours(self.indices[:, :k], self.distances[:, :k])

    def shares(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """Return which share of the neighbours has each class.

        Parameters
        ----------
        labels
            Classes, int64, shape ``(n,)``.
        num_classes
            The number c of classes.

        Returns
        -------
        float64, shape ``(n, c)``, each row of sum 1; all zeros for a single example.
        """
        n, k = self.indices.shape
        classes = labels[self.indices] + num_classes * np.arange(n)[:, None]
        counts = np.bincount(classes.ravel(), minlength=n * num_classes)
        return counts.reshape(n, num_classes) / max(k, 1)

    def outlier_scores(self) -> np.ndarray:
        """Return ``1 - exp(-d_i / median d)``, d_i the mean distance to the neighbours.

        Returns
        -------
        From 0 for copies of all their neighbours to 1 for what is unlike everything, float64,
        shape ``(n,)``; 0 for a single example.
        """
        if not self.distances.size:
            return np.zeros(len(self.distances))
        means = self.distances.mean(axis=1)
        return -np.expm1(-means / max(float(np.median(means)), _LEAST_SCALE))

    def disputing_copies(self, labels: np.ndarray, apart: float = 0.0) -> np.ndarray:
        """Return the nearest neighbour that is a near-duplicate with another label.

        Parameters
        ----------
        labels
            Classes or values, shape ``(n,)``.
        apart
            By how much labels must differ, at least, to be others.

        Returns
        -------
        Its position, int64, shape ``(n,)``; -1 where there is none.
        """
        if not self.distances.size:
            return np.full(len(labels), -1)
        near = self.distances <= COPIES * np.median(self.distances[:, 0])
        disputing = near & (np.abs(labels[self.indices] - labels[:, None]) > apart)
        nearest = self.indices[np.arange(len(labels)), disputing.argmax(axis=1)]
        return np.where(disputing.any(axis=1), nearest, -1)


def nearest_neighbours(features: np.ndarray, k: int) -> Neighbours:
    """Return the k nearest other examples of each.

    Distances are Euclidean, computed in float32. The k nearest are chosen by inner products, whose
    rounding errors grow with the norms; their own distances are those of the differences, so that
    copies are at 0.

    Parameters
    ----------
    features
        Shape ``(n, d)``.
    k
        The number of neighbours; n - 1 of them where it is larger.
    """
    n, d = features.shape
    k = min(k, n - 1)
    if k < 1:
        return Neighbours(np.zeros((n, 0), np.int64), np.zeros((n, 0)))
    points = tf.constant(features, tf.float32)
    squares = tf.reduce_sum(tf.square(points), axis=1)
    size = max(MAX_PAIRS // max(n, k * d), 1)
    found = []
    for start in range(0, n, size):
        part = points[start : start + size]
        # The norm of the example itself, left out, does not change the order.
        near = 2 * tf.matmul(part, points, transpose_b=True) - squares
        rows = tf.range(tf.shape(part)[0])
        own = tf.stack([rows, rows + start], axis=1)
        nowhere = tf.fill(tf.shape(rows), tf.constant(-np.inf, tf.float32))
        near = tf.tensor_scatter_nd_update(near, own, nowhere)
        chosen = tf.math.top_k(near, k).indices
        found.append((chosen, tf.norm(tf.gather(points, chosen) - part[:, None], axis=2)))
    indices, distances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(distances, axis=1, kind="stable")
    indices, distances = (np.take_along_axis(a, order, axis=1) for a in (indices, distances))
    return Neighbours(indices.astype(np.int64), distances.astype(np.float64))
