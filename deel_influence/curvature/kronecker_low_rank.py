"""Query gradients, preconditioned and then kept at a low rank, layer by layer.

The score of training example i for query j is ``Σ_layers ⟨V_j, G_i⟩`` with the matrix
``V_j = H⁻¹ g_j`` of each layer. With ``V_j ≈ L_jᵀ R_j`` of rank ρ and ``G_i = a δᵀ`` that is
``(L_j a)ᵀ(R_j δ)``: per pair ρ(r + s) multiplications in place of r·s, and as many numbers kept for
a query. A layer whose factors would not be smaller than its matrix is kept whole.

Layers differ in what a rank buys. Where a layer is applied once to each example, a gradient's
coordinates ``ã δ̃ᵀ`` in the eigenbasis have sizes of about ``√Λ`` and signs of rank one, so that
V_j has about the singular values of ``W = √Λ / (Λ + damping)``, which tell what a truncation
loses. The rank of these layers is lowered where that saves most multiplications for its loss, until
the loss foreseen for all of them is a tenth larger. Layers of several positions keep their rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from ..gradients.batch_gradients import BatchGradients
from ..linalg.eigen import eigenvalues
from .kronecker_basis import EigenbasisCurvature, EigenBlock

OVERSAMPLING = 8
"""Directions beyond the rank that the range finder looks at [1]_."""

SLACK = 1.1
"""Factor by which the foreseen error may exceed that of the same rank for all layers."""

SMALL_ERROR = 1e-4
"""A foreseen relative error below which no layer needs a higher rank."""


class LowRankQueries:
    """Factors of preconditioned query gradients, and scores from them; all traceable.

    The factors of a query are one row ``(q,)``: for each layer L ``(ρ, r)`` and R ``(ρ, s)``, or
    its whole preconditioned gradient.

    Parameters
    ----------
    curvature
        The fitted curvature.
    rank
        The highest rank of a layer, at least 1.
    seed
        Fixes the random directions of the range finder.
    """

    def __init__(self, curvature: EigenbasisCurvature, rank: int, seed: int) -> None:
        self._curvature, self._seed = curvature, seed
        self._ranks = chosen_ranks(curvature, rank)

    @property
    def ranks(self) -> tuple[int | None, ...]:
        """The rank ρ of each block; None where it is kept whole."""
        return self._ranks

    def over(self, curvature: EigenbasisCurvature) -> LowRankQueries:
        """Return the same for another curvature, with the ranks of this one."""
        twin = copy(self)
        twin._curvature = curvature
        return twin

    def factors(self, gradients: BatchGradients) -> tf.Tensor:
        """Return the factors ``(m, q)`` of the queries."""
        return tf.concat([flat for part in self._parts(gradients) for flat in part], axis=1)

    def scores(self, factors: tf.Tensor, gradients: BatchGradients) -> tf.Tensor:
        """Return ``g_jᵀ H⁻¹ g_i`` for the examples of a training batch, shape ``(m, b)``."""
        if not self._curvature.describes(gradients):
            return tf.transpose(gradients.dot(self.vectors(factors)))
        terms = []
        pairs = zip(self._split(factors), gradients.blocks, strict=True)
        for part, placed in pairs:
            dot = placed.block.low_rank_dot if len(part) == 2 else placed.block.dot
            terms.append(dot(*part))
        return tf.transpose(tf.add_n(terms))

    def vectors(self, factors: tf.Tensor) -> tf.Tensor:
        """Return the approximate ``H⁻¹ g_j`` that factors ``(m, q)`` stand for, ``(m, p)``."""
        whole = [
            part[0] if len(part) == 1 else _flat(tf.matmul(*part, transpose_a=True))
            for part in self._split(factors)
        ]
        return self._curvature.joined(whole)

    def squared_errors(self, gradients: BatchGradients) -> tf.Tensor:
        """Return ``‖H⁻¹ g_j - V_j‖²`` and ``‖H⁻¹ g_j‖²`` of the queries, shape ``(m, 2)``."""
        exact = self._curvature.preconditioned(gradients)
        kept = self.vectors(self.factors(gradients))
        sums = [tf.reduce_sum(tf.square(v), axis=1) for v in (exact - kept, exact)]
        return tf.stack(sums, axis=1)

    def _parts(self, gradients: BatchGradients) -> list[Sequence[tf.Tensor]]:
        parts: list[Sequence[tf.Tensor]] = []
        coordinates_of_blocks = self._curvature.inverted_coordinates(gradients)
        blocks = zip(self._curvature.damped_blocks, self._ranks, coordinates_of_blocks, strict=True)
        for index, (block, rank, coordinates) in enumerate(blocks):
            if rank is None:
                parts.append([block.back(coordinates)])
                continue
            # U is orthogonal: truncating in its basis is truncating, and turning the factors
            # back costs less than turning the matrices.
            left, right = truncated(coordinates, rank, (self._seed, index))
            basis = block.basis
            turned = (
                tf.matmul(left, basis.left, transpose_b=True),
                tf.matmul(right, basis.right, transpose_b=True),
            )
            parts.append([_flat(factor) for factor in turned])
        return parts

    def _split(self, factors: tf.Tensor) -> list[Sequence[tf.Tensor]]:
        """Return for each block its factors ``(m, ρ, r)`` and ``(m, ρ, s)``, or ``(m, q)``."""
        shapes = [
            [(int(np.prod(block.shape)),)] if rank is None else [(rank, n) for n in block.shape]
            for block, rank in zip(self._curvature.damped_blocks, self._ranks, strict=True)
        ]
        widths = [int(np.prod(shape)) for of_block in shapes for shape in of_block]
        pieces = iter(tf.split(factors, widths, axis=1))
        return [
            [tf.reshape(next(pieces), (-1, *shape)) for shape in of_block] for of_block in shapes
        ]


@dataclass
class _Truncation:
    """A layer whose rank is being chosen.

    Attributes
    ----------
    rank
        The rank so far.
    cost
        Multiplications for each rank and pair of examples.
    losses
        The foreseen squared error at each rank from 0.
    """

    rank: int
    cost: int
    losses: np.ndarray

    @property
    def price(self) -> float:
        """What one rank less adds to the squared error, for each multiplication saved."""
        if self.rank == 1:
            return np.inf
        return float(self.losses[self.rank - 1] - self.losses[self.rank]) / self.cost


def chosen_ranks(curvature: EigenbasisCurvature, rank: int) -> tuple[int | None, ...]:
    """Return the rank of each block, at most ``rank``; None where it is kept whole."""
    smaller = [
        block.right is not None and rank * sum(block.values.shape) < block.values.size
        for block in curvature.blocks
    ]
    ranks = [rank if is_smaller else None for is_smaller in smaller]
    layers = {
        index: _truncation(block, float(curvature.damping[index]), rank)
        for index, block in enumerate(curvature.blocks)
        if smaller[index] and block.is_outer
    }
    _lower(list(layers.values()))
    for index, layer in layers.items():
        ranks[index] = layer.rank
    return tuple(ranks)


def _lower(layers: Sequence[_Truncation]) -> None:
    """Lower ranks, the cheapest step first, while the foreseen loss stays allowed."""
    total = sum(layer.losses[layer.rank] for layer in layers)
    everything = sum(layer.losses[0] for layer in layers)
    allowed = max(SLACK**2 * total, SMALL_ERROR**2 * everything)
    while layers:
        cheapest = min(layers, key=lambda layer: layer.price)
        total += cheapest.price * cheapest.cost
        if total > allowed or cheapest.rank == 1:
            return
        cheapest.rank -= 1


def _truncation(block: EigenBlock, damping: float, rank: int) -> _Truncation:
    damped = np.maximum(block.values + damping, np.finfo(np.float64).tiny)
    sizes = np.sqrt(block.values) / damped
    if sizes.shape[0] < sizes.shape[1]:
        sizes = sizes.T
    squares = np.maximum(eigenvalues(sizes.T @ sizes), 0)  # ascending
    losses = np.concatenate([[0.0], np.cumsum(squares)])[::-1]
    return _Truncation(rank, sum(block.values.shape), losses)


def truncated(matrices: tf.Tensor, rank: int, seed: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return factors ``(m, ρ, r)`` and ``(m, ρ, s)`` of matrices ``(m, r, s)``, all at once.

    A randomised range finder with one power iteration [1]_, on the shorter side: Q spans the
    range of ``MᵀM Mᵀ Ω``, and M Q is cut to its ρ leading directions, by the eigenvectors of its
    small Gram matrix.

    Parameters
    ----------
    matrices
        M, shape ``(m, r, s)``.
    rank
        The number ρ, at most the smaller of r and s.
    seed
        Fixes Ω.

    References
    ----------
    .. [1] N. Halko, P.-G. Martinsson, J. A. Tropp. Finding Structure with Randomness. SIAM Review
       2011.
    """
    r, s = int(matrices.shape[1]), int(matrices.shape[2])
    if r < s:
        right, left = truncated(tf.linalg.matrix_transpose(matrices), rank, seed)
        return left, right
    # Squares of very small or large entries would leave the range of float32.
    scale = tf.reduce_max(tf.abs(matrices), axis=(1, 2), keepdims=True)
    matrices = tf.math.divide_no_nan(matrices, scale)
    width = min(rank + OVERSAMPLING, s)
    noise = tf.random.stateless_normal((r, width), seed, dtype=matrices.dtype)
    noise = noise[None] * tf.ones_like(matrices[:, :1, :1])
    start, _ = tf.linalg.qr(tf.matmul(matrices, noise, transpose_a=True))
    powered = tf.matmul(matrices, tf.matmul(matrices, start), transpose_a=True)
    basis, _ = tf.linalg.qr(powered)  # (m, s, width)
    image = tf.matmul(matrices, basis)  # (m, r, width)
    _, directions = tf.linalg.eigh(tf.matmul(image, image, transpose_a=True))
    leading = directions[:, :, width - rank :]
    return (
        scale * tf.matmul(leading, image, transpose_a=True, transpose_b=True),
        tf.matmul(leading, basis, transpose_a=True, transpose_b=True),
    )


def _flat(matrices: tf.Tensor) -> tf.Tensor:
    return tf.reshape(matrices, (tf.shape(matrices)[0], -1))
