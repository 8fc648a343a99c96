"""The per-example gradients of one layer, kept in the form in which they are cheapest.

A block stands for the matrix of gradient rows ``(b, q)`` of a layer's q watched parameters, which
it builds only when asked: `GradientBlock.rows`. Everything else is algebra on what the block
keeps, and a subclass overrides the operations that its form makes cheaper. The base class is the
plain definition of each of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeAlias

import tensorflow as tf

Piece: TypeAlias = Callable[[tf.Tensor, int], tf.Tensor]
"""Takes the first of some columns ``(b, q)``, and their number, and returns them, turned."""

SMALL_WIDTH = 128
"""Up to this many inputs, one product with the gradient rows beats two with their factors."""


class GradientBlock(ABC):
    """Gradient rows ``(b, q)`` of one layer.

    Attributes
    ----------
    matrix_shape
        ``(r, s)`` where each row, reshaped, is the matrix ``Σ_t a_t δ_tᵀ`` that Kronecker-factored
        methods work on (the bias is the last of its r rows), or None.
    """

    matrix_shape: tuple[int, int] | None = None

    @abstractmethod
    def _build_rows(self) -> tf.Tensor:
        """Return the gradients, shape ``(b, q)``. To be implemented by subclasses."""

    @cached_property
    def _rows(self) -> tf.Tensor:
        return self._build_rows()

    def rows(self) -> tf.Tensor:
        """Return the gradients, shape ``(b, q)``; built once."""
        return self._rows

    def in_pieces(self) -> Piece:
        """Return what gives some columns of the gradients at a time, turned: ``(count, b)``."""
        rows = self.rows()
        return lambda start, count: tf.transpose(rows[:, start : start + count])

    def squared_norms(self) -> tf.Tensor:
        """Return ``‖g_i‖²``, shape ``(b,)``."""
        return tf.reduce_sum(tf.square(self.rows()), axis=1)

    def inner(self, other: GradientBlock) -> tf.Tensor:
        """Return all inner products with the examples of ``other``, shape ``(b, m)``."""
        return tf.matmul(self.rows(), other.rows(), transpose_b=True)

    def dot(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return the inner products with ``vectors`` ``(k, q)``, shape ``(b, k)``."""
        return tf.matmul(self.rows(), vectors, transpose_b=True)

    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        """Return ``Σ_i w_ji g_i`` for weights ``(k, b)``, shape ``(k, q)``."""
        return tf.matmul(weights, self.rows())

    def rotate(self, left: tf.Tensor, right: tf.Tensor | None = None) -> GradientBlock:
        """Express the gradients in other bases.

        Parameters
        ----------
        left
            Basis ``(r, r')`` of the rows of the gradient matrix; for a block without
            `matrix_shape`, of the whole row, ``(q, q')``.
        right
            Basis ``(s, s')`` of its columns; None where there is no `matrix_shape`.

        Returns
        -------
        A block with ``leftᵀ G_i right`` for the gradient matrices ``G_i``.
        """
        if self.matrix_shape is None or right is None:
            return RowsBlock(tf.matmul(self.rows(), left))
        matrices = tf.reshape(self.rows(), (-1, *self.matrix_shape))
        turned = tf.matmul(tf.matmul(left, matrices, transpose_a=True), right)
        shape = (int(left.shape[1]), int(right.shape[1]))
        return RowsBlock(tf.reshape(turned, (-1, shape[0] * shape[1])), shape)

    def scaled_squared_norms(self, scale: tf.Tensor) -> tf.Tensor:
        """Return ``Σ_j scale_j g_ij²`` for scale ``(q,)`` or ``(r, s)``, shape ``(b,)``."""
        squares = tf.square(self.rows())
        return tf.linalg.matvec(squares, tf.reshape(scale, (-1,)))

    def squared_sum(self) -> tf.Tensor:
        """Return ``Σ_i g_ij²``, shape ``(q,)``."""
        return tf.reduce_sum(tf.square(self.rows()), axis=0)

    def position_dots(self, vectors: tf.Tensor) -> tf.Tensor | None:
        """Return the terms of `dot` from each position, ``(b, t, k)``, where it has positions."""
        return None

    def low_rank_dot(self, left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
        """Return the inner products with the matrices ``left_jᵀ right_j``, shape ``(b, k)``.

        Parameters
        ----------
        left, right
            Factors ``(k, rank, r)`` and ``(k, rank, s)``; the block must have a `matrix_shape`.
        """
        products = tf.matmul(left, right, transpose_a=True)
        return self.dot(tf.reshape(products, (tf.shape(left)[0], -1)))


class FactoredBlock(GradientBlock):
    """Gradient matrices ``Σ_t a_t δ_tᵀ`` over positions t, whose factors are at hand."""

    @abstractmethod
    def positions(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the factors ``(b, t, r)`` and ``(b, t, s)``. To be implemented by subclasses.

        With a bias the last of the r inputs is one.
        """

    def position_dots(self, vectors: tf.Tensor) -> tf.Tensor:  # a_tᵀ V δ_t
        a, delta = self.positions()
        matrices = tf.reshape(vectors, (-1, int(a.shape[2]), int(delta.shape[2])))
        return tf.einsum("btr,krs,bts->btk", a, matrices, delta, optimize="greedy")

    def low_rank_dot(self, left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
        a, delta = self.positions()
        r, s = int(a.shape[2]), int(delta.shape[2])
        rank, t = int(left.shape[1]), a.shape[1]
        if not multiplies_factors(t, rank, r, s):
            return super().low_rank_dot(left, right)
        # Positions last, so that both products are plain ones and nothing is transposed.
        first = tf.matmul(tf.reshape(left, (-1, r)), tf.reshape(a, (-1, r)), transpose_b=True)
        second = tf.matmul(tf.reshape(right, (-1, s)), tf.reshape(delta, (-1, s)), transpose_b=True)
        summed = tf.reduce_sum(
            tf.reshape(first * second, (-1, rank, tf.shape(a)[0], t)), axis=(1, 3)
        )
        return tf.transpose(summed)


class RowsBlock(GradientBlock):
    """Gradients that are kept as rows, because they are small or have no structure.

    Parameters
    ----------
    rows
        Shape ``(b, q)``.
    matrix_shape
        ``(r, s)`` with ``r·s = q`` if the rows are flattened matrices.
    """

    def __init__(self, rows: tf.Tensor, matrix_shape: tuple[int, int] | None = None) -> None:
        self._given = rows
        self.matrix_shape = matrix_shape

    def _build_rows(self) -> tf.Tensor:
        return self._given


class SumBlock(FactoredBlock):
    """The sum of blocks: a layer that was used several times.

    Parameters
    ----------
    blocks
        One block for each use, all with the same number of columns.
    """

    def __init__(self, blocks: Sequence[GradientBlock]) -> None:
        self._blocks = tuple(blocks)
        self.matrix_shape = self._blocks[0].matrix_shape

    def positions(self) -> tuple[tf.Tensor, tf.Tensor]:
        uses = [block.positions() for block in self._blocks if isinstance(block, FactoredBlock)]
        inputs, deltas = zip(*uses, strict=True)
        return tf.concat(inputs, axis=1), tf.concat(deltas, axis=1)

    def _build_rows(self) -> tf.Tensor:
        return tf.add_n([block.rows() for block in self._blocks])


class OuterBlock(FactoredBlock):
    """Gradients of rank one, ``a_i δ_iᵀ``: a dense layer applied once to each example.

    Parameters
    ----------
    a
        Inputs of the layer, shape ``(b, i)``.
    delta
        Gradients in its pre-activation outputs, shape ``(b, o)``.
    bias
        Whether a constant input of one follows, whose row is the gradient of the bias.
    """

    def __init__(self, a: tf.Tensor, delta: tf.Tensor, bias: bool) -> None:
        self._a, self._delta, self._bias = a, delta, bias
        self._shape = self.matrix_shape = (int(a.shape[1]) + bias, int(delta.shape[1]))

    @cached_property
    def inputs(self) -> tf.Tensor:
        """The inputs, extended by one if there is a bias, shape ``(b, r)``."""
        if not self._bias:
            return self._a
        return tf.concat([self._a, tf.ones_like(self._a[:, :1])], axis=1)

    @property
    def deltas(self) -> tf.Tensor:
        """The gradients in the pre-activation outputs, shape ``(b, s)``."""
        return self._delta

    def positions(self) -> tuple[tf.Tensor, tf.Tensor]:
        return self.inputs[:, None], self._delta[:, None]

    def _build_rows(self) -> tf.Tensor:
        r, s = self._shape
        return tf.reshape(self.inputs[:, :, None] * self._delta[:, None, :], (-1, r * s))

    def in_pieces(self) -> Piece:  # a_i δ_i of these columns alone, which stay in the cache
        a, delta = tf.transpose(self.inputs), tf.transpose(self._delta)
        s = self._shape[1]

        def piece(start: tf.Tensor, count: int) -> tf.Tensor:
            first = start // s
            rows = a[first : first + (count - 2) // s + 2]  # as many as count columns may touch
            products = tf.reshape(rows[:, None] * delta[None], (-1, tf.shape(delta)[1]))
            return products[start - first * s :][:count]

        return piece

    def squared_norms(self) -> tf.Tensor:  # ‖a‖² ‖δ‖²
        squares = tf.reduce_sum(tf.square(self._a), axis=1) + float(self._bias)
        return squares * tf.reduce_sum(tf.square(self._delta), axis=1)

    def inner(self, other: GradientBlock) -> tf.Tensor:  # (aᵀa')(δᵀδ')
        if not isinstance(other, OuterBlock):
            return super().inner(other)
        first = tf.matmul(self._a, other._a, transpose_b=True) + float(self._bias)
        return first * tf.matmul(self._delta, other._delta, transpose_b=True)

    def dot(self, vectors: tf.Tensor) -> tf.Tensor:  # aᵀ V δ, without the outer product
        r, s = self._shape
        if r <= SMALL_WIDTH:
            return super().dot(vectors)
        along = tf.matmul(self.inputs[None], tf.reshape(vectors, (-1, r, s)))  # (k, b, s)
        return tf.transpose(tf.reduce_sum(along * self._delta[None], axis=2))

    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:  # Aᵀ diag(w) Δ
        r, s = self._shape
        weighted = self.inputs[None] * weights[:, :, None]
        return tf.reshape(tf.matmul(weighted, self._delta, transpose_a=True), (-1, r * s))

    def rotate(self, left: tf.Tensor, right: tf.Tensor | None = None) -> GradientBlock:
        return OuterBlock(tf.matmul(self.inputs, left), tf.matmul(self._delta, right), False)

    def scaled_squared_norms(self, scale: tf.Tensor) -> tf.Tensor:  # Σ (a² scale) δ²
        along = tf.matmul(tf.square(self.inputs), tf.reshape(scale, self.matrix_shape))
        return tf.reduce_sum(along * tf.square(self._delta), axis=1)

    def squared_sum(self) -> tf.Tensor:
        squares = tf.matmul(tf.transpose(tf.square(self.inputs)), tf.square(self._delta))
        return tf.reshape(squares, (-1,))


class SequenceBlock(FactoredBlock):
    """Gradients ``Σ_t a_t δ_tᵀ``: a dense layer along a sequence, or used several times.

    Parameters
    ----------
    a
        Inputs, shape ``(b, t, i)``.
    delta
        Gradients in the pre-activation outputs, shape ``(b, t, o)``.
    bias
        Whether a constant input of one follows.
    """

    def __init__(self, a: tf.Tensor, delta: tf.Tensor, bias: bool) -> None:
        self._a, self._delta, self._bias = a, delta, bias
        self._shape = self.matrix_shape = (int(a.shape[2]) + bias, int(delta.shape[2]))

    @cached_property
    def inputs(self) -> tf.Tensor:
        """The inputs, extended by one if there is a bias, shape ``(b, t, r)``."""
        if not self._bias:
            return self._a
        return tf.concat([self._a, tf.ones_like(self._a[:, :, :1])], axis=2)

    @property
    def deltas(self) -> tf.Tensor:
        """The gradients in the pre-activation outputs, shape ``(b, t, s)``."""
        return self._delta

    def positions(self) -> tuple[tf.Tensor, tf.Tensor]:
        return self.inputs, self._delta

    def _build_rows(self) -> tf.Tensor:
        r, s = self._shape
        kernel = tf.matmul(self._a, self._delta, transpose_a=True)
        if not self._bias:
            return tf.reshape(kernel, (-1, r * s))
        bias = tf.reduce_sum(self._delta, axis=1)
        return tf.concat([tf.reshape(kernel, (-1, (r - 1) * s)), bias], axis=1)

    def squared_norms(self) -> tf.Tensor:
        if not prefers_gram(self._a.shape[1], *self._shape):
            return super().squared_norms()
        return gram_squared_norms(self._a, self._delta, self._bias)

    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        r, s = self._shape
        inputs = tf.reshape(self.inputs, (-1, r))
        repeated = tf.repeat(weights, tf.shape(self._a)[1], axis=1)
        weighted = inputs[None] * repeated[:, :, None]
        deltas = tf.reshape(self._delta, (-1, s))
        return tf.reshape(tf.matmul(weighted, deltas, transpose_a=True), (-1, r * s))

    def rotate(self, left: tf.Tensor, right: tf.Tensor | None = None) -> GradientBlock:
        if right is None or _prefers_rows(self._a.shape[1], self._shape, left, right):
            return super().rotate(left, right)
        a = tf.einsum("bti,ik->btk", self.inputs, left)
        return SequenceBlock(a, tf.einsum("bto,ok->btk", self._delta, right), False)


def factored_block(inputs: tf.Tensor, deltas: tf.Tensor) -> FactoredBlock:
    """Return the block with factors ``(b, t, r)`` and ``(b, t, s)``, a bias being in them."""
    if inputs.shape[1] == 1:
        return OuterBlock(inputs[:, 0], deltas[:, 0], False)
    return SequenceBlock(inputs, deltas, False)


def multiplies_factors(positions: int | None, rank: int, r: int, s: int) -> bool:
    """Tell whether products with ``left_jᵀ right_j`` of a rank are made of factors, not of rows."""
    return positions is not None and positions * rank * (r + s) <= r * s


def prefers_gram(positions: int | None, r: int, s: int) -> bool:
    """Tell whether norms cost less from Gram matrices than from the gradient matrix itself.

    Per example the Gram matrices take ``t²(r + s)`` multiplications, the matrix ``t·r·s``; with an
    unknown number of positions the matrix form is kept, whose cost grows only linearly.
    """
    return positions is not None and positions * (r + s) < r * s


def _prefers_rows(
    positions: int | None, shape: tuple[int, int], left: tf.Tensor, right: tf.Tensor
) -> bool:
    """Tell whether turning the gradient matrices costs less than turning their factors."""
    (r, s), width, height = shape, int(left.shape[1]), int(right.shape[1])
    extra = r * width + s * height + width * height - r * s
    return extra > 0 and (positions is None or positions * extra > width * s * (r + height))


def gram_squared_norms(a: tf.Tensor, delta: tf.Tensor, bias: bool) -> tf.Tensor:
    """Return ``Σ_tt' (a_tᵀa_t' + bias)(δ_tᵀδ_t')`` of ``(b, t, ·)`` tensors, shape ``(b,)``."""
    first = tf.matmul(a, a, transpose_b=True) + float(bias)
    return tf.reduce_sum(first * tf.matmul(delta, delta, transpose_b=True), axis=(1, 2))
