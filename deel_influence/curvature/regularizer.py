"""Products with the Hessian of the model's regularisers."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ..linalg.linear_operator import LinearOperator
from ..model.influence_model import BaseInfluenceModel


class RegularizerOperator(LinearOperator):
    """``v ↦ ∇²R(θ) v``.

    Parameters
    ----------
    model
        The wrapped model.
    """

    def __init__(self, model: BaseInfluenceModel) -> None:
        super().__init__(model.nb_params, model.dtype)
        self._model = model

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        if not self._model.is_regularized:
            return tf.zeros_like(vectors)
        values = [v.value for v in self._model.weights]
        with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
            tape.watch(values)
            gradient = self._model.regularization_gradient()

        def along(vector: tf.Tensor) -> tf.Tensor:
            parts = tape.gradient(
                gradient, values, output_gradients=vector, unconnected_gradients="zero"
            )
            return self._model.layout.flatten(
                [tf.cast(tf.convert_to_tensor(part), self.dtype) for part in parts]
            )

        return tf.stack([along(vector) for vector in tf.unstack(vectors)])


def regularizer_diagonal(model: BaseInfluenceModel) -> np.ndarray | None:
    """Return the diagonal ``(p,)`` of ``∇²R(θ)``, float64, or None where it is not diagonal.

    A diagonal matrix times a vector of ones gives its diagonal; a second product, with random
    signs, tells whether there is anything beside it.
    """
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (1, model.nb_params))
    probes = tf.constant(np.concatenate([np.ones((1, model.nb_params)), signs]), model.dtype)
    diagonal, probed = RegularizerOperator(model).apply(probes).numpy().astype(np.float64)
    scale = np.abs(diagonal).max(initial=0.0)
    is_diagonal = np.allclose(probed, diagonal * signs[0], rtol=1e-3, atol=1e-5 * scale)
    return diagonal if is_diagonal else None
