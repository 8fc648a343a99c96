"""The per-example gradients of one batch, and the algebra on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from ..errors import UnsupportedModelError
from ..model.parameters import ParameterLayout
from .blocks import GradientBlock


@dataclass(frozen=True)
class PlacedBlock:
    """The gradient block of a layer.

    Attributes
    ----------
    parts
        The indices of its variables in the parameter layout.
    block
        Their gradients.
    padding
        Which positions of a factored block may be padding, bool, shape ``(b, t)``; None where
        nothing tells: see `padding_of`.
    """

    parts: tuple[int, ...]
    block: GradientBlock
    padding: tf.Tensor | None = None


@dataclass(frozen=True)
class Basis:
    """New bases for one block: see `GradientBlock.rotate`; without ``left`` it stays as it is."""

    left: tf.Tensor | None
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
        self.layout = layout

    def squared_norms(self) -> tf.Tensor:
        """Return ``‖g_i‖²``, shape ``(b,)``."""
        return tf.add_n([placed.block.squared_norms() for placed in self.blocks])

    def inner(self, other: BatchGradients) -> tf.Tensor:
        """Return ``g_iᵀ g'_j`` for the examples of another batch, shape ``(b, m)``."""
        pairs = zip(self.blocks, other.blocks, strict=True)
        return tf.add_n([mine.block.inner(theirs.block) for mine, theirs in pairs])

    def dot(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``g_iᵀ v_j`` for vectors ``(k, p)``, shape ``(b, k)``."""
        if vectors.shape.rank != 2 or vectors.shape[1] not in (None, self.layout.size):
            message = (
                f"Argument `vectors` must have shape (k, {self.layout.size}). Received: shape "
                f"{vectors.shape}."
            )
            raise ValueError(message)
        products = [
            placed.block.dot(take_columns(vectors, placed.parts, self.layout))
            for placed in self.blocks
        ]
        return tf.add_n(products)

    def layer_dots(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return the terms of `dot` from each watched layer, shape ``(layers, b, k)``.

        The layers are those of `ParameterLayout.blocks`, in order.
        """
        terms: list[list[tf.Tensor]] = [[] for _ in self.layout.blocks]
        for placed in self.blocks:
            columns = take_columns(vectors, placed.parts, self.layout)
            layer = self.layout.layer_of(placed.parts[0])
            terms[layer].append(placed.block.dot(columns))
        return tf.stack([tf.add_n(products) for products in terms])

    def position_dots(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return the terms of `dot` from each position of a sequence, shape ``(b, t, k)``.

        Raises
        ------
        UnsupportedModelError
            If a watched layer does not have the same t positions as the others.
        """
        total, known = None, None
        for placed in self.blocks:
            columns = take_columns(vectors, placed.parts, self.layout)
            terms = placed.block.position_dots(columns)
            positions = None if terms is None else terms.shape[1]
            # An embedding may not tell its number of positions before it runs.
            if terms is None or None not in (positions, known) and positions != known:
                layer = self.layout.blocks[self.layout.layer_of(placed.parts[0])].name
                message = (
                    "Scores of positions need watched layers that see every position of a "
                    f"sequence once. Received: {layer!r} with {positions or 'no'} positions"
                    f"{f' beside {known}' if known else ''}. Watch the dense, convolution or "
                    "embedding layers that run along the sequence."
                )
                raise UnsupportedModelError(message)
            total, known = terms if total is None else total + terms, positions or known
        return total

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
                placed.block if basis.left is None else placed.block.rotate(basis.left, basis.right)
                for placed, basis in zip(self.blocks, bases, strict=True)
            ]
        )

    def project(self, bases: Sequence[Basis]) -> tf.Tensor:
        """Project each block on a few directions and join the results, shape ``(b, k)``."""
        return self.rotate(bases).materialize()

    def _assemble(self, rows_of: Callable[[GradientBlock], tf.Tensor]) -> tf.Tensor:
        """Join the rows ``(·, q)`` of all blocks in the order of the parameter vector."""
        rows = [(placed.parts, rows_of(placed.block)) for placed in self.blocks]
        return join_columns(rows, self.layout)


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


def gram(sets: Sequence[BatchGradients], solve: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Return ``g_ikᵀ M g_il`` of K sets of gradients of a batch, shape ``(b, K, K)``.

    Parameters
    ----------
    sets
        The sets, each of all b examples.
    solve
        Products with M, of rows ``(·, p)``.
    """
    rows = tf.stack([gradients.materialize() for gradients in sets], axis=1)
    solved = solve(tf.reshape(rows, (-1, sets[0].layout.size)))
    return tf.matmul(rows, tf.reshape(solved, tf.shape(rows)), transpose_b=True)


def take_columns(vectors: tf.Tensor, parts: Sequence[int], layout: ParameterLayout) -> tf.Tensor:
    """Take the columns ``(k, q)`` of some variables out of parameter vectors ``(k, p)``."""
    slots = [layout.slots[part] for part in parts]
    pieces = [vectors[:, start:end] for start, end in slots]
    return pieces[0] if len(pieces) == 1 else tf.concat(pieces, axis=1)


def join_columns(
    pieces: Sequence[tuple[tuple[int, ...], tf.Tensor]], layout: ParameterLayout
) -> tf.Tensor:
    """Join columns ``(k, q)``, each with the variables they belong to, into vectors ``(k, p)``."""
    order = list(range(len(layout.sizes)))
    if [part for parts, _ in pieces for part in parts] == order:
        return tf.concat([columns for _, columns in pieces], axis=1)
    by_part: dict[int, tf.Tensor] = {}
    for parts, columns in pieces:
        split = tf.split(columns, [layout.sizes[part] for part in parts], axis=1)
        by_part.update(zip(parts, split, strict=True))
    return tf.concat([by_part[part] for part in order], axis=1)
