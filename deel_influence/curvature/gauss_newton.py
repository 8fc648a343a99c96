"""Products with the generalised Gauss-Newton matrix of the mean loss."""

from __future__ import annotations

import tensorflow as tf

from ..gradients.capture import forward_to_logits
from ..model.influence_model import BaseInfluenceModel
from ..types import Batch
from ..utils.kernels import Kernel
from .frozen import FrozenPart
from .operator import CurvatureOperator, Product, VectorMap, frozen_replayed, vector_by_vector


class GaussNewtonOperator(CurvatureOperator):
    """``v ↦ (1/n) Σ_i J_iᵀ S_i J_i v`` [1]_.

    J is the Jacobian of the model's outputs before their last activation, S the Hessian of the
    loss in them. Positive semidefinite for losses that are convex in these outputs, and equal to
    the Fisher matrix for cross-entropy and squared error. All k vectors share one forward and one
    backward pass; ``J v`` is the derivative of the vector-Jacobian product ``Jᵀw`` in w.

    Parameters
    ----------
    model, dataset, device, jit_compile, held_bytes
        As for `CurvatureOperator`.

    References
    ----------
    .. [1] N. N. Schraudolph. Fast Curvature Matrix-Vector Products for Second-Order Gradient
       Descent. Neural Computation 2002.
    """

    kind = "gauss_newton"

    def _kernel(self, single: bool) -> Kernel:
        return self._compiled("product", _gauss_newton_product, single)


def _gauss_newton_product(
    model: BaseInfluenceModel, part: FrozenPart | None, single: bool
) -> Product:
    def linearize(batch: Batch, features: tuple[tf.Tensor, ...]) -> VectorMap:
        linearized = _Linearized(model, part, batch, features)

        def along(vector: tf.Tensor) -> tf.Tensor:
            change = linearized.push_forward(model.layout.unflatten(vector))
            pulled = linearized.pull_back(linearized.curve(change))
            return model.layout.flatten([tf.cast(p, model.dtype) for p in pulled])

        return along

    return vector_by_vector(linearize, single)


class _Linearized:
    """The model around its weights: one forward and one backward pass for all vectors.

    Parameters
    ----------
    model, part, batch, features
        The wrapped model, its frozen part if any, and a batch with what that gives.
    """

    def __init__(
        self,
        model: BaseInfluenceModel,
        part: FrozenPart | None,
        batch: Batch,
        features: tuple[tf.Tensor, ...],
    ) -> None:
        self._values = [v.value for v in model.weights]
        self._jacobian, self._loss, self._linear = (
            tf.GradientTape(watch_accessed_variables=False, persistent=True) for _ in range(3)
        )
        with self._jacobian, self._loss:
            self._jacobian.watch(self._values)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                with frozen_replayed(part, features):
                    watching = [inner, self._loss]
                    forward, self._logits = forward_to_logits(model, [], batch, [], watching)
                total = tf.reduce_sum(forward.losses)
            self._residual = inner.gradient(total, self._logits)
        self._cotangent = tf.zeros_like(self._logits)
        with self._linear:
            self._linear.watch(self._cotangent)
            self._pulled = self.pull_back(self._cotangent)

    def push_forward(self, change: list[tf.Tensor]) -> tf.Tensor:
        """Return ``J v`` for a change of the weights."""
        seeds = [tf.cast(s, p.dtype) for s, p in zip(change, self._pulled, strict=True)]
        return self._linear.gradient(
            self._pulled, self._cotangent, output_gradients=seeds, unconnected_gradients="zero"
        )

    def curve(self, change: tf.Tensor) -> tf.Tensor:
        """Return ``S u`` for a change of the logits."""
        return self._loss.gradient(
            self._residual, self._logits, output_gradients=change, unconnected_gradients="zero"
        )

    def pull_back(self, cotangent: tf.Tensor) -> list[tf.Tensor]:
        """Return ``Jᵀ w``, a tensor for each weight."""
        parts = self._jacobian.gradient(
            self._logits, self._values, output_gradients=cotangent, unconnected_gradients="zero"
        )
        return [tf.convert_to_tensor(part) for part in parts]
