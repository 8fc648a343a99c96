"""Cosines between gradients."""

from __future__ import annotations

import tensorflow as tf

from ..gradients.batch_gradients import BatchGradients
from ..types import Batch
from .gradient_dot import GradientDot


class GradientCosine(GradientDot):
    """Cosine ``g(z)ᵀ g(z_i) / (‖g(z)‖ ‖g(z_i)‖)`` of two gradients, from -1 to 1 [1]_.

    Positive: a small step of gradient descent on z_i lowers the loss on z. An example with a huge
    gradient, such as a mislabelled one, has no advantage over others. A gradient of zero has the
    cosine 0 with all others. The self-influence with the loss on both sides is 1 for every
    example, and ranks nothing.

    Parameters
    ----------
    model, projection, projection_dim, seed, measurement
        As for `GradientDot`.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka. Input Similarity from the Neural
       Network Perspective. NeurIPS 2019.
    """

    separable = True

    def _train_vectors(self, batch: Batch) -> tf.Tensor:
        return _unit_rows(super()._train_vectors(batch))

    def _query_vectors(self, batch: Batch) -> tf.Tensor:
        return _unit_rows(super()._query_vectors(batch))

    def _query_factors(self, batch: Batch) -> tf.Tensor:
        gradients = self.query_engine.gradients(batch)
        factors = self._features.factors(gradients)
        return tf.concat([factors, self._lengths(gradients)[:, None]], axis=1)

    def _scores_of_batch(self, factors: tf.Tensor, batch: Batch) -> tf.Tensor:
        gradients = self.engine.gradients(batch)
        products = self._features.products(factors[:, :-1], gradients)
        return tf.math.divide_no_nan(products, factors[:, -1:] * self._lengths(gradients)[None])

    def _self_scores(self, batch: Batch) -> tf.Tensor:
        queries, train = self._both_gradients(batch)
        products = self._features.paired(queries, train)
        return tf.math.divide_no_nan(products, self._lengths(queries) * self._lengths(train))

    def _lengths(self, gradients: BatchGradients) -> tf.Tensor:
        return tf.sqrt(self._features.squared_norms(gradients))


def _unit_rows(rows: tf.Tensor) -> tf.Tensor:
    """Divide rows ``(b, q)`` by their lengths; rows of zeros stay."""
    return tf.math.divide_no_nan(rows, tf.norm(rows, axis=1, keepdims=True))
