"""Stretches of a training whose curvature, and whose steps, are taken for constant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from ..curvature.kronecker import correct_eigenvalues, fit_kronecker
from ..curvature.kronecker_basis import EigenbasisCurvature, to_arrays
from ..curvature.kronecker_passes import FisherPass, HeldFactors, summed
from ..curvature.sums import Parts, PlainSum
from ..gradients.batch_gradients import BatchGradients, join_columns
from ..gradients.blocks import FactoredBlock, GradientBlock, RowsBlock, factored_block
from ..ihvp.kronecker import damping_of_blocks
from ..utils.digests import array_digest

Scales: TypeAlias = dict[Parts, tuple[tf.Tensor, ...]]
"""By the variables of a block, one factor for each row and one for each column of its gradient
matrices, ``(r,)`` and ``(s,)``; where it has no such form, one for each entry, ``(q,)``."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a training by ``θ ← θ - η D g``.

    Attributes
    ----------
    num_checkpoints
        How many checkpoints it has.
    time
        The sum of the learning rates η of its steps.
    curvature
        ``M = D^½ H D^½``, a mean over its checkpoints.
    root
        ``D^½``, shape ``(p,)``; ones for plain gradient descent.
    """

    num_checkpoints: int
    time: float
    curvature: EigenbasisCurvature
    root: tf.Tensor

    def left(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``exp(-time·H D) v``, what it leaves of a change before it, ``(b, p)``."""
        rest = self.curvature.of_function(lambda m: tf.exp(-self.time * m), vectors * self.root)
        return rest / self.root

    def done(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``D^½ M⁻¹ (I - exp(-time·M)) D^½ v``, what its steps come to, ``(b, p)``."""

        def steps(values: tf.Tensor) -> tf.Tensor:
            passed = self.time * values
            share = tf.math.divide_no_nan(-tf.math.expm1(-passed), passed)
            return self.time * tf.where(passed > 0, share, tf.ones_like(passed))

        return self.curvature.of_function(steps, vectors * self.root) * self.root

    def digest(self) -> str:
        """Return what tells it from others."""
        of_curvature = to_arrays(self.curvature).values()
        return array_digest(np.array(self.time), self.root.numpy(), *of_curvature)


@dataclass(frozen=True)
class AdamSteps:
    """The steps of Adam: ``D = 1 / (√v + epsilon)``, v the mean square of the batches' gradients.

    v is estimated from the examples' gradients, ``E[g²]/B + (1 - 1/B) E[g]²``. For a layer with
    Kronecker-factored curvature √v is replaced by the product of its means over rows and columns,
    divided by the mean over all, so that ``D^½ H D^½`` has the same factors.

    Attributes
    ----------
    batch_size
        The number B of examples in a batch.
    epsilon
        As in Keras; an upper bound on D is ``1 / epsilon``.
    """

    batch_size: int
    epsilon: float

    def scales(self, passes: MeanPass) -> Scales:
        """Return ``D^½`` by block, from passes over the data with ``fisher="empirical"``."""

        def sums(sets: list[BatchGradients]) -> tuple[dict, list]:
            return summed(sets, _moments), []

        totals, count = passes.total(("moments",), sums, "Second moments")
        return {parts: self._scales(*(sums.total / count)) for parts, sums in totals.items()}

    def _scales(self, squares: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, ...]:
        share = 1 / self.batch_size
        spread = np.sqrt(share * squares + (1 - share) * means**2)
        if spread.ndim == 1:
            return ((spread + self.epsilon) ** -0.5,)
        whole = np.sqrt(max(spread.mean(), np.finfo(float).tiny))
        sides = spread.mean(axis=1) / whole, spread.mean(axis=0) / whole
        return tuple((side + np.sqrt(self.epsilon)) ** -0.5 for side in sides)


@dataclass(kw_only=True)
class MeanPass(FisherPass):
    """Passes over the data at several checkpoints, whose sums are added up.

    Attributes
    ----------
    numbers
        The numbers of the checkpoints, counting from 0.
    enter
        Loads one.
    scales
        What gradients are multiplied by, by block; empty leaves them as they are.
    """

    numbers: Sequence[int]
    enter: Callable[[int], None]
    scales: Scales = field(default_factory=dict)

    def total(
        self,
        name: tuple,
        sums: Callable[..., Any],
        description: str,
        arguments: tuple = (),
        held: HeldFactors | None = None,
    ) -> tuple[dict, int]:
        def of_scaled(sets: list[BatchGradients], scales: Scales, *others: Any) -> tuple:
            return sums([_scaled(gradients, scales) for gradients in sets], *others)

        given, parts = (self.scales, *arguments), []
        for t in self.numbers:
            self.enter(t)
            name_of_scaled = (*name, "scaled", bool(self.scales))
            parts.append(super().total(name_of_scaled, of_scaled, description, given, held))
        totals = tf.nest.map_structure(lambda *of_each: sum(of_each), *[part[0] for part in parts])
        return totals, sum(count for _, count in parts)


def fit_segment(
    passes: MeanPass, time: float, damping: Any, approximation: str, adam: AdamSteps | None
) -> Segment:
    """Return the segment of the checkpoints that passes go over.

    Parameters
    ----------
    passes
        The passes, without scales.
    time
        The sum of the learning rates.
    damping
        What `check_damping` gave.
    approximation
        ``"expand"`` or ``"reduce"``.
    adam
        The steps; None for those of gradient descent.
    """
    model = passes.engine.model
    dtype = model.dtype.as_numpy_dtype
    if adam is not None:
        found = adam.scales(replace(passes, fisher="empirical"))
        scales = tf.nest.map_structure(lambda side: tf.constant(side, dtype), found)
        passes = replace(passes, scales=scales)
    blocks = correct_eigenvalues(passes, fit_kronecker(passes, approximation))
    values = damping_of_blocks(damping, blocks, model.layout)
    curvature = EigenbasisCurvature(model.layout, blocks, values, model.dtype)
    root = tf.ones((1, model.layout.size), model.dtype)
    if adam is not None:
        sides = passes.scales.items()
        root = join_columns([(parts, _joined(side)) for parts, side in sides], model.layout)
    return Segment(len(passes.numbers), time, curvature, root[0])


def _moments(gradients: BatchGradients) -> dict[Parts, PlainSum]:
    """Return the sums of squares and of gradients, ``(2, r, s)`` or ``(2, q)``, by block."""
    found = {}
    for placed in gradients.blocks:
        block = placed.block
        ones = tf.ones_like(gradients.losses)[None]
        sums = tf.stack([block.squared_sum(), block.weighted_sum(ones)[0]])
        shape = block.matrix_shape if isinstance(block, FactoredBlock) else None
        found[placed.parts] = PlainSum(tf.reshape(sums, (2, *shape)) if shape else sums)
    return found


def _joined(sides: tuple[tf.Tensor, ...]) -> tf.Tensor:
    """Return the factors of all entries of a block, ``(1, q)``."""
    if len(sides) == 1:
        return sides[0][None]
    return tf.reshape(sides[0][:, None] * sides[1], (1, -1))


def _scaled(gradients: BatchGradients, scales: Scales) -> BatchGradients:
    if not scales:
        return gradients
    blocks = [
        replace(placed, block=_scaled_block(placed.block, scales[placed.parts]))
        for placed in gradients.blocks
    ]
    return BatchGradients(gradients.losses, blocks, gradients.layout)


def _scaled_block(block: GradientBlock, sides: tuple[tf.Tensor, ...]) -> GradientBlock:
    if len(sides) == 1 or not isinstance(block, FactoredBlock):
        return RowsBlock(block.rows() * sides[0], block.matrix_shape)
    inputs, deltas = block.positions()
    return factored_block(inputs * sides[0], deltas * sides[1])
