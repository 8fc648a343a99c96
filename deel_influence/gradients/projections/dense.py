"""Projections by matrices of independent random entries."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import tensorflow as tf

from ...linalg.checks import check_count
from ...model.influence_model import BaseInfluenceModel
from ...utils.memory import bytes_to_hold
from ..batch_gradients import BatchGradients
from ..blocks import Piece
from .base import DEFAULT_DIM, SummedProjection, over_pieces

KEPT_ENTRIES = 2**24
"""Up to this many entries, 64 MiB in float32, the matrix is kept whole; else it has slices."""

DRAWN_ENTRIES = 2**20
"""About this many entries there are in a slice."""

SIGNS_OF_BYTE = 1.0 - 2.0 * np.unpackbits(
    np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"
)
"""The signs of the eight bits of each byte, the lowest first, shape ``(256, 8)``."""


class DenseProjection(SummedProjection):
    """``P`` of independent entries with mean 0 and variance ``1/k``.

    ``Var (Px)ᵀ(Py) ≤ (‖x‖²‖y‖² + (xᵀy)²) / k``, whatever the vectors are. A matrix of more
    than `KEPT_ENTRIES` entries is multiplied in slices. They are drawn once and held where that
    takes no more than `bytes_to_hold`, a share of the free memory. Else each batch draws them
    again, so that large batches, or `SJLTProjection`, are the remedy for large models. The
    features are the same to the last digit.

    To be implemented by subclasses: `_draw`.

    Parameters
    ----------
    model
        The wrapped model.
    projection_dim
        The number k of features.
    seed
        Fixes the matrix.
    """

    def __init__(
        self, model: BaseInfluenceModel, projection_dim: int = DEFAULT_DIM, seed: int = 0
    ) -> None:
        super().__init__(model, check_count("projection_dim", projection_dim), seed)

    @abstractmethod
    def _draw(self, shape: tuple[int, int], seed: tf.Tensor) -> tf.Tensor:
        """Return independent entries of variance ``1/k``. To be implemented by subclasses."""

    @property
    def size(self) -> int:
        return int(self.projection_dim)

    @property
    def is_whole(self) -> bool:
        """Whether the matrix is small enough to be multiplied as a whole."""
        return self.size * self.layout.size <= KEPT_ENTRIES

    @cached_property
    def is_held(self) -> bool:
        """Whether the slices of a larger matrix are drawn once, as far as there is memory.

        A GPU draws them again: its own memory is not asked for.
        """
        needed = self.size * self.layout.size * self.dtype.size
        return not tf.config.list_logical_devices("GPU") and needed <= bytes_to_hold()

    def draw(self, seed: int) -> Iterator[tf.Tensor]:
        """Yield P ``(k, p)``; or the columns of each variable, as rows ``(size, k)``; or the seed.

        The last where the matrix is not held.
        """
        value = tf.constant(seed, tf.int64)
        if not (self.is_whole or self.is_held):
            yield value
            return
        columns = (self._columns(part, value) for part in range(len(self.layout.sizes)))
        if self.is_whole:
            yield tf.transpose(tf.concat(list(columns), axis=0))
        else:
            yield from columns

    def project(self, gradients: BatchGradients) -> tf.Tensor:
        if self.is_whole:
            return gradients.dot(self._matrix)
        return super().project(gradients)

    def apply(self, vectors: tf.Tensor) -> tf.Tensor:
        if self.is_whole:
            return tf.matmul(vectors, self._matrix, transpose_b=True)
        return super().apply(vectors)

    def adjoint(self, coordinates: tf.Tensor) -> tf.Tensor:
        if self.is_whole:
            return tf.matmul(coordinates, self._matrix)
        return self._adjoint_in_slices(coordinates)

    @property
    def _matrix(self) -> tf.Tensor:
        """P, shape ``(k, p)``."""
        return tf.convert_to_tensor(self.tensors[0])

    def _columns(self, part: int, seed: tf.Tensor) -> tf.Tensor:
        """Return the columns of P for a variable, as rows ``(size, k)``."""
        size = self.layout.sizes[part]
        count = -(-size // self._slice_width(part))
        drawn = [self._drawn_slice(part, index, seed) for index in range(count)]
        return tf.concat(drawn, axis=0)[:size]

    def _added(self, part: int, piece: Piece, total: tf.Tensor) -> tf.Tensor:
        size, width = self.layout.sizes[part], self._slice_width(part)

        def step(i: tf.Tensor, count: int, so_far: tf.Tensor) -> tf.Tensor:
            entries = self._slice(part, i)[:count]
            return so_far + tf.matmul(piece(i * width, count), entries, transpose_a=True)

        return over_pieces(size, width, step, total)

    def _adjoint_in_slices(self, coordinates: tf.Tensor) -> tf.Tensor:
        """Return ``Pᵀ c``, shape ``(r, p)``, by one slice of P after the other."""
        pieces = []
        for part, size in enumerate(self.layout.sizes):
            width = self._slice_width(part)
            whole, rest = divmod(size, width)

            def columns(i: tf.Tensor, part: int = part) -> tf.Tensor:
                return tf.matmul(coordinates, self._slice(part, i), transpose_b=True)

            if whole:
                slices = tf.map_fn(
                    columns,
                    tf.range(whole),
                    fn_output_signature=self.dtype,
                    parallel_iterations=1,
                )
                pieces.append(tf.reshape(tf.transpose(slices, (1, 0, 2)), (-1, whole * width)))
            if rest:
                pieces.append(columns(tf.constant(whole))[:, :rest])
        return tf.concat(pieces, axis=1)

    def _slice_width(self, part: int) -> int:
        """Return how many entries of a variable a slice of P is for."""
        return min(max(DRAWN_ENTRIES // self.size, 1), self.layout.sizes[part])

    def _slice(self, part: int, index: tf.Tensor) -> tf.Tensor:
        """Return the columns of P, as rows ``(width, k)``, for a stretch of a variable.

        The last slice of those that are held ends with the variable.
        """
        if not self.is_held:
            return self._drawn_slice(part, index, self.tensors[0])
        start = index * self._slice_width(part)
        return self.tensors[part][start : start + self._slice_width(part)]

    def _drawn_slice(self, part: int, index: int | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        place = tf.constant(part * 2**32, tf.int64) + tf.cast(index, tf.int64)
        shape = self._slice_width(part), self.size
        return self._draw(shape, tf.stack([tf.convert_to_tensor(seed), place]))


class GaussianProjection(DenseProjection):
    """Normal entries.

    Parameters
    ----------
    model, projection_dim, seed
        As for `DenseProjection`.
    """

    name = "gaussian"

    def _draw(self, shape: tuple[int, int], seed: tf.Tensor) -> tf.Tensor:
        # Philox by name: what TensorFlow takes by itself depends on the device.
        normal = tf.cast(tf.random.stateless_normal(shape, seed, alg="philox"), self.dtype)
        root = tf.constant(float(self.size) ** 0.5, self.dtype)
        # A graph turns the division by a constant into this product, which may differ in the last
        # digit: slices are the same in a graph and outside.
        return normal / root if self.is_whole else normal * (1.0 / root)


class RademacherProjection(DenseProjection):
    """Random signs [1]_: the variance of a normal projection or less, from one bit an entry.

    Parameters
    ----------
    model, projection_dim, seed
        As for `DenseProjection`.

    References
    ----------
    .. [1] D. Achlioptas. Database-friendly Random Projections: Johnson-Lindenstrauss with Binary
       Coins. Journal of Computer and System Sciences, 2003.
    """

    name = "rademacher"

    def _draw(self, shape: tuple[int, int], seed: tf.Tensor) -> tf.Tensor:
        rows, columns = shape
        words = tf.random.stateless_uniform(
            (rows, -(-columns // 32)), seed, None, None, tf.int32, alg="philox"
        )
        # Eight entries at a time are looked up: that takes a third of computing them bit by bit.
        signs = tf.constant(SIGNS_OF_BYTE, self.dtype) / float(self.size) ** 0.5
        places = tf.cast(tf.bitcast(words, tf.uint8), tf.int32)
        return tf.reshape(tf.gather(signs, places), (rows, -1))[:, :columns]
