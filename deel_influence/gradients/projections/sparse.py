"""Projections that look at each parameter once, or at few of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ...linalg.checks import check_count
from ...model.influence_model import BaseInfluenceModel
from ..batch_gradients import BatchGradients
from ..blocks import FactoredBlock, GradientBlock, Piece, RowsBlock
from .base import DEFAULT_DIM, Projection, SummedProjection, over_pieces

PIECE = 2**12
"""Entries of a gradient that are summed at a time: of a batch of 128, 2 MiB."""

PIECE_OF_GPU = 2**18
"""The same on a GPU, for which small pieces are too little work."""


class SparseSigns:
    """A ``(k, q)`` matrix with s entries ``±1/√s`` in each column, at random places [1]_.

    The k rows fall into s stretches of about the same length, and a column has one entry in each.
    Nothing is kept: places and signs are drawn from the seed whenever they are needed, at the
    price of s random numbers for each column.

    Parameters
    ----------
    num_rows, num_columns
        k and q.
    nonzeros
        The number s of entries in a column.
    place
        Tells the matrix from others of the same seed.

    References
    ----------
    .. [1] D. M. Kane, J. Nelson. Sparser Johnson-Lindenstrauss Transforms. Journal of the ACM,
       2014.
    """

    def __init__(self, num_rows: int, num_columns: int, nonzeros: int, place: int) -> None:
        self._shape = num_rows, num_columns
        self._place = np.int64(place)
        self._bounds = [i * num_rows // nonzeros for i in range(nonzeros + 1)]

    def apply(self, rows: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the products ``(r, k)`` with rows ``(r, q)``; the seed is an int64 scalar."""
        total = tf.zeros((tf.shape(rows)[0], self._shape[0]), rows.dtype)
        return self.added(RowsBlock(rows).in_pieces(), seed, total)

    def added(self, piece: Piece, seed: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        """Return ``total (r, k)`` and the products with rows that come in pieces.

        What is made of a piece stays in the processor's cache.
        """
        drawn = self._drawn(total.dtype, seed)
        num_features, size = self._shape
        width = min(PIECE_OF_GPU if tf.config.list_logical_devices("GPU") else PIECE, size)

        def step(i: tf.Tensor, count: int, so_far: tf.Tensor) -> tf.Tensor:
            first = i * width
            entries, end = piece(first, count), first + count
            for places, signs in drawn:
                signed = entries * signs[first:end, None]
                so_far += tf.math.unsorted_segment_sum(signed, places[first:end], num_features)
            return so_far

        return tf.transpose(over_pieces(size, width, step, tf.transpose(total)))

    def adjoint(self, coordinates: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the products ``(r, q)`` of the transpose with rows ``(r, k)``."""
        found = [
            tf.gather(coordinates, places, axis=1) * signs
            for places, signs in self._drawn(coordinates.dtype, seed)
        ]
        return tf.add_n(found)

    def _drawn(self, dtype: tf.DType, seed: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Return for each stretch of rows the places, int32, and the entries, both ``(q,)``."""
        nonzeros = len(self._bounds) - 1
        pair = tf.stack([tf.convert_to_tensor(seed), self._place])
        words = tf.random.stateless_uniform(
            (nonzeros, self._shape[1]), pair, None, None, tf.int32, alg="philox"
        )
        # The highest bit is the sign, the others the place; that 2³¹ is no multiple of the length
        # makes some places likelier than others by a part in 2³¹ / k.
        values = tf.bitwise.bitwise_and(words, 2**31 - 1)
        signs = tf.cast(tf.where(words < 0, -1.0, 1.0), dtype) / float(nonzeros) ** 0.5
        stretches = zip(self._bounds[:-1], self._bounds[1:], strict=True)
        return [
            (first + values[i] % (end - first), signs[i])
            for i, (first, end) in enumerate(stretches)
        ]


class SJLTProjection(SummedProjection):
    """A sparse Johnson-Lindenstrauss transform: s signs for each parameter [1]_, as in GraSS [2]_.

    Each parameter is added, with a sign, to s of the k features: s·p additions for an example in
    place of k·p products, and no matrix in memory. A dense layer's gradients are made in pieces
    that stay in the processor's cache; of other layers the rows of one at a time are built.

    Parameters
    ----------
    model
        The wrapped model.
    projection_dim
        The number k of features.
    seed
        Fixes places and signs.
    nonzeros
        The number s. The variance of inner products is never above that of `DenseProjection`,
        whatever it is; more than one make large errors rarer for gradients with a few large
        entries.

    References
    ----------
    .. [1] D. M. Kane, J. Nelson. Sparser Johnson-Lindenstrauss Transforms. Journal of the ACM,
       2014.
    .. [2] P. Hu, J. Melkonian, W. Tang, H. Zhao, J. W. Ma. GraSS: Scalable Data Attribution with
       Gradient Sparsification and Sparse Projection. NeurIPS 2025.
    """

    name = "sjlt"

    def __init__(
        self,
        model: BaseInfluenceModel,
        projection_dim: int = DEFAULT_DIM,
        seed: int = 0,
        nonzeros: int = 1,
    ) -> None:
        super().__init__(model, check_count("projection_dim", projection_dim), seed)
        self.nonzeros = check_count("nonzeros", nonzeros)
        if self.nonzeros > self.size:
            message = (
                "Argument `nonzeros` must not exceed `projection_dim`. Received: "
                f"{nonzeros} of {projection_dim}."
            )
            raise ValueError(message)
        self._signs = [
            SparseSigns(self.size, size, self.nonzeros, part)
            for part, size in enumerate(self.layout.sizes)
        ]

    @property
    def size(self) -> int:
        return int(self.projection_dim)

    def draw(self, seed: int) -> Iterator[tf.Tensor]:
        """Yield the seed itself."""
        yield tf.constant(seed, tf.int64)

    def adjoint(self, coordinates: tf.Tensor) -> tf.Tensor:
        (seed,) = self.tensors
        return tf.concat([signs.adjoint(coordinates, seed) for signs in self._signs], axis=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "nonzeros": self.nonzeros}

    def _added(self, part: int, piece: Piece, total: tf.Tensor) -> tf.Tensor:
        return self._signs[part].added(piece, self.tensors[0], total)


class MaskProjection(Projection):
    """k of the p parameters, drawn without replacement, times ``√(p/k)``: GraSS's random mask [1]_.

    The cheapest projection, and the most variable one: an entry that is not drawn is lost, which
    matters where few entries make up the gradient.

    Parameters
    ----------
    model
        The wrapped model.
    projection_dim
        The number k of parameters, at most p.
    seed
        Fixes which.

    References
    ----------
    .. [1] P. Hu, J. Melkonian, W. Tang, H. Zhao, J. W. Ma. GraSS: Scalable Data Attribution with
       Gradient Sparsification and Sparse Projection. NeurIPS 2025.
    """

    name = "mask"

    def __init__(
        self, model: BaseInfluenceModel, projection_dim: int = DEFAULT_DIM, seed: int = 0
    ) -> None:
        super().__init__(model, check_count("projection_dim", projection_dim), seed)
        if self.size > self.layout.size:
            message = (
                "Argument `projection_dim` of a mask must not exceed the number of watched "
                f"parameters, {self.layout.size}. Received: {projection_dim}."
            )
            raise ValueError(message)

    @property
    def size(self) -> int:
        return int(self.projection_dim)

    @property
    def layer_of_feature(self) -> np.ndarray:
        ends = [block.slot[1] for block in self.layout.blocks]
        return np.searchsorted(ends, self.tensors[0].numpy(), side="right")

    def draw(self, seed: int) -> Iterator[tf.Tensor]:
        """Yield the parameters that are kept, in order, int64, shape ``(k,)``."""
        generator = np.random.default_rng(seed)
        drawn = generator.choice(self.layout.size, self.size, replace=False, shuffle=False)
        yield tf.constant(np.sort(drawn), tf.int64)

    def project(self, gradients: BatchGradients) -> tf.Tensor:
        found: dict[int, tf.Tensor] = {}
        for placed in gradients.blocks:
            within = [self._places_in(part) for part in placed.parts]
            sizes = [self.layout.sizes[part] for part in placed.parts]
            starts = np.cumsum([0, *sizes[:-1]])
            places = tf.concat([p + start for p, start in zip(within, starts, strict=True)], axis=0)
            entries = _entries(placed.block, places, self.size * sum(sizes) / self.layout.size)
            counts = tf.stack([tf.size(p) for p in within])
            split = tf.split(entries, counts, axis=1, num=len(within))
            found.update(zip(placed.parts, split, strict=True))
        joined = tf.concat([found[part] for part in range(len(self.layout.sizes))], axis=1)
        return tf.ensure_shape(joined, (None, self.size)) * self._scale

    def apply(self, vectors: tf.Tensor) -> tf.Tensor:
        return tf.gather(vectors, self._places, axis=1) * self._scale

    def adjoint(self, coordinates: tf.Tensor) -> tf.Tensor:
        columns = tf.transpose(coordinates * self._scale)
        shape = tf.stack([self.layout.size, tf.shape(coordinates)[0]])
        places = tf.cast(self._places[:, None], tf.int32)
        return tf.transpose(tf.scatter_nd(places, columns, shape))

    @property
    def _scale(self) -> float:
        return float(np.sqrt(self.layout.size / self.size))

    @property
    def _places(self) -> tf.Tensor:
        return tf.convert_to_tensor(self.tensors[0])

    def _places_in(self, part: int) -> tf.Tensor:
        """Return the places that are kept within one variable."""
        start, end = self.layout.slots[part]
        first, last = tf.unstack(tf.searchsorted(self._places, tf.constant([start, end], tf.int64)))
        return self._places[first:last] - start


def _entries(block: GradientBlock, places: tf.Tensor, expected: float) -> tf.Tensor:
    """Return some entries of the rows of a block, ``(b, len(places))``, of about so many."""
    if isinstance(block, FactoredBlock) and block.matrix_shape is not None:
        a, delta = block.positions()
        r, s = block.matrix_shape
        # Σ_t a_ti δ_to at the places (i, o): less than the whole of Σ_t a_t δ_tᵀ?
        if a.shape[1] is not None and a.shape[1] * expected < r * s:
            left = tf.gather(a, places // s, axis=2)
            return tf.reduce_sum(left * tf.gather(delta, places % s, axis=2), axis=1)
    return tf.gather(block.rows(), places, axis=1)
