"""Matrices with a chosen spectrum, and operators that count, or are not symmetric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from deel_influence.linalg.linear_operator import DenseOperator, LinearOperator


def rotation(size: int, seed: int = 0) -> np.ndarray:
    """Return a random orthogonal matrix, shape ``(size, size)``."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def matrix_with(eigenvalues: Sequence[float], seed: int = 0) -> np.ndarray:
    """Return a symmetric matrix with these eigenvalues and random eigenvectors."""
    vectors = rotation(len(eigenvalues), seed)
    matrix = (vectors * np.asarray(eigenvalues, float)) @ vectors.T
    return (matrix + matrix.T) / 2


def rows(count: int, size: int, seed: int = 1) -> np.ndarray:
    """Return random vectors, shape ``(count, size)``."""
    return np.random.default_rng(seed).normal(size=(count, size))


def damped_solution(matrix: np.ndarray, vectors: np.ndarray, damping: object) -> np.ndarray:
    """Return ``(A + damping·I)⁻¹ v`` for every row."""
    shift = np.diag(np.broadcast_to(damping, len(matrix)))
    return np.linalg.solve(matrix + shift, vectors.T).T


class CountingOperator(DenseOperator):
    """A symmetric matrix that remembers how many rows each of its products had."""

    def __init__(self, matrix: np.ndarray) -> None:
        super().__init__(matrix)
        self.sizes: list[int] = []

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        self.sizes.append(int(vectors.shape[0]))
        return super()._apply(vectors)


class GeneralOperator(LinearOperator):
    """A matrix that needs not be symmetric."""

    def __init__(self, matrix: np.ndarray) -> None:
        super().__init__(len(matrix), tf.float64)
        self._transposed = tf.constant(matrix.T)

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        return tf.matmul(vectors, self._transposed)
