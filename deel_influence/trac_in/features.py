"""What gradient products compare of two examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ..gradients.batch_gradients import BatchGradients, PlacedBlock
from ..gradients.blocks import OuterBlock
from ..gradients.engine import GradientEngine
from ..gradients.projections.base import IdentityProjection, Projection
from ..gradients.projections.registry import ProjectionLike, resolve_projection
from ..model.influence_model import BaseInfluenceModel
from ..utils.separable import Separable, Separated


class GradientFeatures(Separable):
    """Gradients, compared layer by layer in the form that takes least.

    A Dense layer's gradient ``a δᵀ`` has the inner product ``(aᵀa')(δᵀδ')`` with another: of a
    query its r inputs and s output gradients are kept, instead of r·s numbers.

    Parameters
    ----------
    model
        The wrapped model.
    engines
        All engines whose gradients are compared.
    """

    separable = True

    def __init__(self, model: BaseInfluenceModel, engines: Sequence[GradientEngine]) -> None:
        self.size = model.nb_params
        self._sizes = model.layout.sizes
        self._engines = tuple(engines)

    def rows(self, gradients: BatchGradients) -> tf.Tensor:
        """Return the features, shape ``(b, size)``."""
        return gradients.materialize()

    def squared_norms(self, gradients: BatchGradients) -> tf.Tensor:
        """Return their squared lengths, shape ``(b,)``."""
        return gradients.squared_norms()

    def paired(self, queries: BatchGradients, train: BatchGradients) -> tf.Tensor:
        """Return the inner products of two gradients of each example, shape ``(b,)``.

        Where the two are one object these are its squared lengths.
        """
        if queries is train:
            return self.squared_norms(train)
        return tf.reduce_sum(self.rows(queries) * self.rows(train), axis=1)

    def factors(self, queries: BatchGradients) -> tf.Tensor:
        """Return what `products` needs of the queries, shape ``(m, q)``."""
        parts = []
        for placed in queries.blocks:
            outer = self._outer(placed)
            parts += [placed.block.rows()] if outer is None else [outer.inputs, outer.deltas]
        return tf.concat(parts, axis=1)

    def products(self, factors: tf.Tensor, train: BatchGradients) -> tf.Tensor:
        """Return the inner products ``(m, b)`` of queries and training examples."""
        widths = [width for placed in train.blocks for width in self._widths(placed)]
        parts = iter(tf.split(factors, widths, axis=1))
        products = []
        for placed in train.blocks:
            outer = self._outer(placed)
            if outer is None:
                products.append(tf.transpose(placed.block.dot(next(parts))))
                continue
            inputs = tf.matmul(next(parts), outer.inputs, transpose_b=True)
            products.append(inputs * tf.matmul(next(parts), outer.deltas, transpose_b=True))
        return tf.add_n(products)

    def settings(self) -> tuple[Any, ...]:
        """Return what tells these features from others of the same model."""
        return ()

    def _widths(self, placed: PlacedBlock) -> list[int]:
        """Return how many numbers `factors` keeps of a block."""
        outer = self._outer(placed)
        if outer is None:
            return [sum(self._sizes[part] for part in placed.parts)]
        return [int(outer.inputs.shape[1]), int(outer.deltas.shape[1])]

    def _outer(self, placed: PlacedBlock) -> OuterBlock | None:
        """Return the block of a Dense layer whose factors are kept, or None."""
        block = placed.block
        if not isinstance(block, OuterBlock):
            return None
        # The engine of the queries may have set a rule aside that another keeps.
        without_rule = {
            engine.model.layout.position(variable)
            for engine in self._engines
            for variable in engine.fallback_variables
        }
        return block if without_rule.isdisjoint(placed.parts) else None


class ProjectedFeatures(GradientFeatures):
    """Random projections of gradients.

    Parameters
    ----------
    model
        The wrapped model.
    projection
        Its projection.
    """

    separable = True

    def __init__(self, model: BaseInfluenceModel, projection: Projection) -> None:
        super().__init__(model, ())
        self.projection = projection
        self.size = projection.size

    def rows(self, gradients: BatchGradients) -> tf.Tensor:
        return self.projection.project(gradients)

    def squared_norms(self, gradients: BatchGradients) -> tf.Tensor:
        return tf.reduce_sum(tf.square(self.rows(gradients)), axis=1)

    def factors(self, queries: BatchGradients) -> tf.Tensor:
        return self.rows(queries)

    def products(self, factors: tf.Tensor, train: BatchGradients) -> tf.Tensor:
        return tf.matmul(factors, self.rows(train), transpose_b=True)

    def _separated(self) -> Separated | None:
        projection = self.projection
        if not projection.tensors:
            return None
        return Separated(
            (type(projection), projection.form),
            projection.tensors,
            lambda drawn: self._altered(projection=projection.with_tensors(drawn)),
        )

    def settings(self) -> tuple[Any, ...]:
        return tuple(sorted(self.projection.get_config().items()))


def resolve_features(
    projection: ProjectionLike,
    projection_dim: Any,
    seed: int,
    model: BaseInfluenceModel,
    engines: Sequence[GradientEngine],
) -> GradientFeatures:
    """Return gradients or, where a projection is asked for, projections of them.

    Parameters
    ----------
    projection, projection_dim, seed, model
        As for `resolve_projection`.
    engines
        All engines whose gradients are compared.
    """
    resolved = resolve_projection(projection, projection_dim, seed, model)
    if resolved is None or isinstance(resolved, IdentityProjection):
        return GradientFeatures(model, engines)
    return ProjectedFeatures(model, resolved)
