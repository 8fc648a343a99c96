"""The identity in place of the inverse Hessian: influence becomes the product of gradients."""

from __future__ import annotations

import tensorflow as tf

from ..gradients.batch_gradients import BatchGradients
from .base import InverseHessianVectorProduct


class IdentityIHVP(InverseHessianVectorProduct):
    """``H = I``: scores are inner products of gradients, self-influence their squared norms.

    This is the one-checkpoint form of TracIn without its learning rate [1]_, cheap and free of
    any curvature, but blind to the directions that the rest of the training set pins down.

    References
    ----------
    .. [1] G. Pruthi, F. Liu, S. Kale, M. Sundararajan. Estimating Training Data Influence by
       Tracing Gradient Descent. NeurIPS 2020.
    """

    name = "identity"
    separable = True

    def _solve(self, vectors: tf.Tensor) -> tf.Tensor:
        return vectors

    def _multiply(self, vectors: tf.Tensor) -> tf.Tensor:
        return vectors

    def self_influence(self, gradients: BatchGradients) -> tf.Tensor:
        return gradients.squared_norms()
