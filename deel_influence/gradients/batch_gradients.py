"""The per-example gradients of one batch, and the algebra on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from ..model.parameters import ParameterLayout
from .blocks import GradientBlock


@dataclass(frozen=True)
class PlacedBlock:
    """A gradient block and the indices of its variables in the parameter layout."""

    parts: tuple[int, ...]
    block: GradientBlock


@dataclass(frozen=True)
class Basis:
    """New bases for one block: see `GradientBlock.rotate`."""

    left: tf.Tensor
    right: tf.Tensor | None = None


class BatchGradients:
    """Gradients ``g_i = ∇ℓ(z_i)`` of the b examples of a batch, as a matrix ``(b, p)``.

    The matrix itself exists only after `materialize`; the other operations work on the factored
    form of each layer. Objects live inside the function that is being traced.

    Parameters
    ----------
    losses
        The losses of the examples, shape ``(b,)``.
    blocks
        The blocks, which together hold every watched variable once.
    layout
        The flat parameter vector.
    """

    def __init__(
        self, losses: tf.Tensor, blocks: Sequence[PlacedBlock], layout: ParameterLayout
    ) -> None:
        self.losses = losses
        self.blocks = tuple(blocks)
        self._layout = layout

    def squared_norms(self) -> tf.Tensor:
        """Return ``‖g_i‖²``, shape ``(b,)``."""
        return tf.add_n([placed.block.squared_norms() for placed in self.blocks])

    def inner(self, other: BatchGradients) -> tf.Tensor:
        """Return ``g_iᵀ g'_j`` for the examples of another batch, shape ``(b, m)``."""
        pairs = zip(self.blocks, other.blocks, strict=True)
        return tf.add_n([mine.block.inner(theirs.block) for mine, theirs in pairs])

    def dot(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``g_iᵀ v_j`` for vectors ``(k, p)``, shape ``(b, k)``."""
        if vectors.shape.rank != 2 or vectors.shape[1] not in (None, self._layout.size):
            message = (
                f"Argument `vectors` must have shape (k, {self._layout.size}). Received: shape "
                f"{vectors.shape}."
            )
            raise ValueError(message)
        products = [
            placed.block.dot(self._columns(vectors, placed.parts)) for placed in self.blocks
        ]
        return tf.add_n(products)

    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        """Return ``Σ_i w_i g_i``: ``(p,)`` for weights ``(b,)``, ``(k, p)`` for ``(k, b)``."""
        single = weights.shape.rank == 1
        weights = weights[None] if single else weights
        total = self._assemble(lambda block: block.weighted_sum(weights))
        return total[0] if single else total

    def materialize(self) -> tf.Tensor:
        """Return the gradients, shape ``(b, p)``."""
        return self._assemble(lambda block: block.rows())

    def rotate(self, bases: Sequence[Basis]) -> RotatedGradients:
        """Express each block in other bases, one `Basis` for each block in order."""
        return RotatedGradients(
            [
                placed.block.rotate(basis.left, basis.right)
                for placed, basis in zip(self.blocks, bases, strict=True)
            ]
        )

    def project(self, bases: Sequence[Basis]) -> tf.Tensor:
        """Project each block on a few directions and join the results, shape ``(b, k)``."""
        return self.rotate(bases).materialize()

    def _columns(self, vectors: tf.Tensor, parts: tuple[int, ...]) -> tf.Tensor:
        """Take a block's columns ``(k, q)`` out of parameter vectors ``(k, p)``."""
        slots = [self._layout.slots[part] for part in parts]
        pieces = [vectors[:, start:end] for start, end in slots]
        return pieces[0] if len(pieces) == 1 else tf.concat(pieces, axis=1)

    def _assemble(self, rows_of: Callable[[GradientBlock], tf.Tensor]) -> tf.Tensor:
        """Join the rows ``(·, q)`` of all blocks in the order of the parameter vector."""
        if [part for placed in self.blocks for part in placed.parts] == list(
            range(len(self._layout.sizes))
        ):
            return tf.concat([rows_of(placed.block) for placed in self.blocks], axis=1)
        pieces: dict[int, tf.Tensor] = {}
        for placed in self.blocks:
            sizes = [self._layout.sizes[part] for part in placed.parts]
            split = tf.split(rows_of(placed.block), sizes, axis=1)
            pieces.update(zip(placed.parts, split, strict=True))
        return tf.concat([pieces[part] for part in range(len(self._layout.sizes))], axis=1)


class RotatedGradients:
    """Per-example gradients in bases of their own, block after block.

    Parameters
    ----------
    blocks
        The rotated blocks.
    """

    def __init__(self, blocks: Sequence[GradientBlock]) -> None:
        self.blocks = tuple(blocks)

    def scaled_squared_norms(self, scales: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return ``Σ_j scale_j g̃_ij²``, shape ``(b,)``.

        Parameters
        ----------
        scales
            For each block ``(r, s)``, or ``(q,)`` where it is no matrix.
        """
        pairs = zip(self.blocks, scales, strict=True)
        return tf.add_n([block.scaled_squared_norms(scale) for block, scale in pairs])

    def materialize(self) -> tf.Tensor:
        """Return the rotated gradients of all blocks, side by side, shape ``(b, k)``."""
        return tf.concat([block.rows() for block in self.blocks], axis=1)
