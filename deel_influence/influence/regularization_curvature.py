"""What of the curvature H of a strategy stays when training examples are removed."""

from __future__ import annotations

import tensorflow as tf

from ..curvature.regularizer import RegularizerOperator
from ..ihvp.base import InverseHessianVectorProduct


class RegularizationCurvature:
    """``v ↦ (R'' + D) v``, where ``H = C + R'' + D`` with C of the mean loss and D the damping.

    A removal changes the mean over the examples and nothing else. The damping counts as a
    regulariser, whose gradient is zero at the trained parameters.

    Parameters
    ----------
    ihvp
        A fitted strategy.
    """

    def __init__(self, ihvp: InverseHessianVectorProduct) -> None:
        model = ihvp.model
        self._damping = tf.constant(ihvp.damping_diagonal(), model.dtype)
        # Strategies without that setting leave the regulariser out of H.
        included = ihvp.get_config().get("regularizer", False) and model.is_regularized
        self._regularizer = RegularizerOperator(model) if included else None

    def apply(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``(R'' + D) v`` for every row of ``vectors``, shape ``(k, p)``."""
        damped = vectors * self._damping
        return damped if self._regularizer is None else damped + self._regularizer.apply(vectors)
