"""Gradients of fixed examples, kept in the form in which products with others cost least."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from ..types import Batch
from ..utils.datasets import batch_size_of
from ..utils.kernels import Kernel
from .batch_gradients import PlacedBlock
from .blocks import FactoredBlock, GradientBlock, multiplies_factors
from .engine import GradientEngine


class Directions:
    """The gradients of m examples, or their mean, at the weights of the last `refresh`.

    Of a layer with few positions the factors are kept, ``m (r + s)`` numbers, else gradient rows.

    Parameters
    ----------
    engine
        The engine of the examples' model, which is prepared.
    batches
        The examples.
    is_mean
        Whether their mean is the only direction; else each is one.
    """

    def __init__(self, engine: GradientEngine, batches: Sequence[Batch], is_mean: bool) -> None:
        self._engine = engine
        self._batches = list(batches)
        self._is_mean = is_mean
        self._count = sum(map(batch_size_of, self._batches))
        self._kernel = Kernel(self._of_batch)
        self._kept: list[tuple[tf.Variable, ...]] = []

    @property
    def count(self) -> int:
        """The number m of examples."""
        return self._count

    def refresh(self) -> None:
        """Compute the gradients at the weights that the model has now."""
        found = [self._kernel(batch) for batch in self._batches]
        joined = [
            [self._joined(list(parts), len(of_block[0])) for parts in zip(*of_block, strict=True)]
            for of_block in zip(*found, strict=True)
        ]
        if not self._kept:
            self._kept = [tuple(tf.Variable(t, trainable=False) for t in kept) for kept in joined]
            return
        for variables, tensors in zip(self._kept, joined, strict=True):
            for variable, tensor in zip(variables, tensors, strict=True):
                variable.assign(tensor)

    def dot(self, blocks: Sequence[PlacedBlock]) -> tf.Tensor:
        """Return the products of b gradients with the directions, shape ``(b, k)``; traceable.

        Parameters
        ----------
        blocks
            All blocks of a batch, in the order of the parameter vector.
        """
        products = [
            placed.block.low_rank_dot(*kept) if len(kept) == 2 else placed.block.dot(*kept)
            for placed, kept in zip(blocks, self._kept, strict=True)
        ]
        return tf.add_n(products)

    def _of_batch(self, batch: Batch) -> list[tuple[tf.Tensor, ...]]:
        gradients = self._engine.gradients(batch)
        weights = tf.ones_like(gradients.losses) / self._count
        return [self._of_block(placed.block, weights) for placed in gradients.blocks]

    def _of_block(self, block: GradientBlock, weights: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Return factors ``(k, rank, r)`` and ``(k, rank, s)`` of a block, or rows ``(k, q)``."""
        factors = block.positions() if isinstance(block, FactoredBlock) else None
        if factors is None or not self._is_cheap(*factors):
            return (block.weighted_sum(weights[None]) if self._is_mean else block.rows(),)
        if not self._is_mean:
            return factors
        a, delta = factors[0], factors[1] * weights[:, None, None]
        return tuple(tf.reshape(part, (1, -1, part.shape[2])) for part in (a, delta))

    def _is_cheap(self, a: tf.Tensor, delta: tf.Tensor) -> bool:
        """Tell whether `GradientBlock.low_rank_dot` multiplies the factors."""
        t, r, s = a.shape[1], int(a.shape[2]), int(delta.shape[2])
        rank = (t or 0) * (self._count if self._is_mean else 1)
        return multiplies_factors(t, rank, r, s)

    def _joined(self, parts: list[tf.Tensor], forms: int) -> tf.Tensor:
        """Join what the batches gave for one block, of which ``forms`` tensors are kept."""
        if not self._is_mean:
            return tf.concat(parts, axis=0)
        return tf.concat(parts, axis=1) if forms == 2 else tf.add_n(parts)
