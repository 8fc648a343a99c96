"""Inner products of gradients."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..calculators.base import BaseInfluenceCalculator
from ..gradients.batch_gradients import BatchGradients
from ..gradients.projections.registry import ProjectionLike
from ..model.influence_model import BaseInfluenceModel
from ..model.measurements import Measurement
from ..types import Batch
from ..utils.separable import Separated
from .features import resolve_features


class GradientDot(BaseInfluenceCalculator):
    """Inner product ``g(z)ᵀ g(z_i)`` of the gradients of query z and training example z_i [1]_.

    Positive: a small step of gradient descent on z_i lowers the loss on z. It is `TracIn` at one
    checkpoint with a learning rate of 1, and first-order influence with H = I. The self-influence
    is ``‖g(z_i)‖²``.

    Parameters
    ----------
    model
        The wrapped model.
    projection
        A random projection of the gradients, by name or as an object; see `resolve_projection`.
        None compares them whole.
    projection_dim
        How many numbers a projection leaves.
    seed
        Fixes the projection.
    measurement
        Another number than the loss that is looked at on the queries; see
        `BaseInfluenceCalculator`.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka. Input Similarity from the Neural
       Network Perspective. NeurIPS 2019.
    """

    separable = True
    _made_again = frozenset({"_features"})

    def __init__(
        self,
        model: BaseInfluenceModel,
        projection: ProjectionLike = None,
        projection_dim: Any = None,
        seed: int = 0,
        measurement: Measurement = None,
    ) -> None:
        super().__init__(model, measurement)
        self._asked = projection, projection_dim, seed
        self._features = resolve_features(*self._asked, model, self._engines)

    def _make_again(self) -> None:
        super()._make_again()
        self._features = resolve_features(*self._asked, self.model, self._engines)

    def _train_vectors(self, batch: Batch) -> tf.Tensor:
        return self._features.rows(self.engine.gradients(batch))

    def _query_vectors(self, batch: Batch) -> tf.Tensor:
        return self._features.rows(self.query_engine.gradients(batch))

    def _query_factors(self, batch: Batch) -> tf.Tensor:
        return self._features.factors(self.query_engine.gradients(batch))

    def _scores_of_batch(self, factors: tf.Tensor, batch: Batch) -> tf.Tensor:
        return self._features.products(factors, self.engine.gradients(batch))

    def _self_scores(self, batch: Batch) -> tf.Tensor:
        return self._features.paired(*self._both_gradients(batch))

    def _both_gradients(self, batch: Batch) -> tuple[BatchGradients, BatchGradients]:
        """Return the gradients of a batch as queries and as training examples."""
        train = self.engine.gradients(batch)
        same = self.query_model is self.model
        return (train if same else self.query_engine.gradients(batch)), train

    def _separated(self) -> Separated | None:
        features = self._features.separated()
        if features is None:
            return None
        return Separated(
            features.form,
            features.tensors,
            lambda drawn: self._altered(_features=features.over(drawn)),
        )

    def _vector_settings(self) -> tuple:
        return self._features.settings()
