"""Symmetric linear maps that are known by their products only, and the algebra on them.

Solvers see a curvature as ``v ↦ A v`` and nothing else. Damping and regularisers are therefore
operators too, and are added: ``H + damping * IdentityOperator(p)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


class LinearOperator(ABC):
    """A symmetric map A of vectors ``(p,)``, applied to the rows of ``(k, p)`` all at once.

    To be implemented by subclasses: `_apply`. A complete operator::

        class Doubling(LinearOperator):
            def _apply(self, vectors):
                return 2.0 * vectors

    Parameters
    ----------
    size
        The number p.
    dtype
        Floating type of the vectors.
    """

    def __init__(self, size: int, dtype: tf.DType = tf.float32) -> None:
        self.size = int(size)
        self.dtype = tf.as_dtype(dtype)

    @abstractmethod
    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``A v`` for every row of vectors ``(k, p)``. To be implemented by subclasses."""

    def apply(self, vectors: Any) -> tf.Tensor:
        """Return ``A v`` for every row of ``vectors``, shape ``(k, p)``.

        Raises
        ------
        ValueError
            If the rows do not have p entries.
        """
        if not tf.is_tensor(vectors):
            # TensorFlow reads lists of Python numbers as float32.
            vectors = np.asarray(vectors, self.dtype.as_numpy_dtype)
        vectors = tf.cast(tf.convert_to_tensor(vectors), self.dtype)
        if vectors.shape.rank != 2 or vectors.shape[1] not in (None, self.size):
            message = (
                f"Argument `vectors` must have shape (k, p) with p = {self.size}, one vector in "
                f"each row. Received: shape {vectors.shape}."
            )
            raise ValueError(message)
        return self._apply(vectors)

    def to_dense(self, chunk: int = 64) -> np.ndarray:
        """Return A as an array ``(p, p)``, float64, from p products in chunks of ``chunk``.

        The result is made symmetric: A is, up to rounding.
        """
        rows = []
        for start in range(0, self.size, chunk):
            width = min(chunk, self.size - start)
            units = tf.one_hot(tf.range(start, start + width), self.size, dtype=self.dtype)
            rows.append(self._apply(units).numpy().astype(np.float64))
        dense = np.concatenate(rows)
        return (dense + dense.T) / 2

    def damped(self, damping: float | Any) -> LinearOperator:
        """Return ``A + damping · I``, or ``A + diag(damping)`` for a vector ``(p,)``."""
        if np.ndim(damping) == 0:
            return self + float(damping) * IdentityOperator(self.size, self.dtype)
        # Through NumPy, because TensorFlow reads a list of Python numbers as float32.
        diagonal = np.asarray(damping, np.float64)
        return self + DiagonalOperator(tf.constant(diagonal, self.dtype))

    def __add__(self, other: LinearOperator) -> LinearOperator:
        """Return the sum of two operators of the same size."""
        if not isinstance(other, LinearOperator):
            return NotImplemented
        return SumOperator([self, other])

    def __mul__(self, factor: float) -> LinearOperator:
        """Return the operator times a number."""
        if not isinstance(factor, (int, float, np.number)):
            return NotImplemented
        return ScaledOperator(self, float(factor))

    __rmul__ = __mul__

    def __neg__(self) -> LinearOperator:
        """Return ``-A``."""
        return -1.0 * self

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        """Return the difference of two operators of the same size."""
        if not isinstance(other, LinearOperator):
            return NotImplemented
        return self + -other


class IdentityOperator(LinearOperator):
    """``v ↦ v``."""

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        return vectors


class DenseOperator(LinearOperator):
    """A symmetric matrix.

    Parameters
    ----------
    matrix
        Shape ``(p, p)``.
    """

    def __init__(self, matrix: Any) -> None:
        self._matrix = tf.convert_to_tensor(matrix)
        super().__init__(int(self._matrix.shape[0]), self._matrix.dtype)

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        return tf.matmul(vectors, self._matrix)


class DiagonalOperator(LinearOperator):
    """A diagonal matrix.

    Parameters
    ----------
    diagonal
        Shape ``(p,)``.
    """

    def __init__(self, diagonal: Any) -> None:
        self._diagonal = tf.convert_to_tensor(diagonal)
        super().__init__(int(self._diagonal.shape[0]), self._diagonal.dtype)

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        return vectors * self._diagonal


class SumOperator(LinearOperator):
    """The sum of operators of one size and type.

    Parameters
    ----------
    terms
        The operators, at least one.

    Raises
    ------
    ValueError
        If their sizes or types differ.
    """

    def __init__(self, terms: Sequence[LinearOperator]) -> None:
        self.terms = tuple(terms)
        if len({(term.size, term.dtype) for term in self.terms}) != 1:
            found = [(term.size, term.dtype.name) for term in self.terms]
            message = (
                f"Argument `terms` must be operators of the same size and dtype. Received: {found}."
            )
            raise ValueError(message)
        super().__init__(self.terms[0].size, self.terms[0].dtype)

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        return tf.add_n([term.apply(vectors) for term in self.terms])


class ScaledOperator(LinearOperator):
    """An operator times a number.

    Parameters
    ----------
    operator, factor
        The two.
    """

    def __init__(self, operator: LinearOperator, factor: float) -> None:
        super().__init__(operator.size, operator.dtype)
        self.operator, self.factor = operator, factor

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        return self.factor * self.operator.apply(vectors)


class BlockDiagonalOperator(LinearOperator):
    """The diagonal blocks of an operator; what couples two blocks is left out.

    One product costs as many products of the whole operator as there are blocks.

    Parameters
    ----------
    operator
        The whole operator.
    slots
        First entry and end of each block; together they cover ``0..p`` in order.
    """

    def __init__(self, operator: LinearOperator, slots: Sequence[tuple[int, int]]) -> None:
        super().__init__(operator.size, operator.dtype)
        self.operator, self.slots = operator, tuple(slots)

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        parts = []
        for start, end in self.slots:
            inside = tf.pad(vectors[:, start:end], [[0, 0], [start, self.size - end]])
            parts.append(self.operator.apply(inside)[:, start:end])
        return tf.concat(parts, axis=1)
