"""The parts of gradient and Hessian of each example where one Dense layer is watched.

With φ the layer's input (extended by one where the bias is watched too) and y = Wᵀφ its output
before the activation,

    g_i = φ_i ⊗ s_i,    s_i = ∂ℓ(z_i)/∂y,
    h_i = φ_i φ_iᵀ ⊗ S_i,    S_i = ∂²ℓ(z_i)/∂y².

Both are exact whatever comes after the layer, since φ does not depend on the watched weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from ..gradients.blocks import OuterBlock
from ..gradients.engine import GradientEngine
from ..types import Batch


@dataclass(frozen=True)
class DenseTerms:
    """φ, s and S for the b examples of a batch, in the model's dtype.

    Attributes
    ----------
    features
        φ, shape ``(b, r)``.
    deltas
        s, shape ``(b, c)``.
    curvature
        S, shape ``(b, c, c)``.
    """

    features: tf.Tensor
    deltas: tf.Tensor
    curvature: tf.Tensor

    def rows(self, deltas: tf.Tensor) -> OuterBlock:
        """Return the vectors ``φ_i ⊗ t_i`` for deltas t ``(b, c)``, p = r·c, as a block."""
        return OuterBlock(self.features, deltas, bias=False)

    def outputs_of(self, matrices: tf.Tensor) -> tf.Tensor:
        """Return ``V_iᵀ φ_i`` for parameter vectors ``(b, p)`` as matrices V, shape ``(b, c)``."""
        r, c = int(self.features.shape[1]), int(self.deltas.shape[1])
        return tf.einsum("br,brc->bc", self.features, tf.reshape(matrices, (-1, r, c)))


def dense_terms(engine: GradientEngine, batch: Batch) -> DenseTerms:
    """Return φ, s and S of a batch, from one forward pass; traceable.

    Parameters
    ----------
    engine
        A prepared engine for which `deel_influence.curvature.closed_form.has_closed_form` holds.
    batch
        A batch of the dataset.
    """
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            forward = engine.forward(batch, [inner, outer])
            total = tf.reduce_sum(forward.losses)
        outputs = forward.taps[0][0].output
        delta = inner.gradient(total, outputs, unconnected_gradients="zero")
    dtype = engine.model.dtype
    # The gradient of a loss in Python code (`tf.py_function`) comes without a shape.
    delta.set_shape(outputs.shape)
    # Zero where the number is linear in the outputs, as a measured logit is.
    jacobian = outer.batch_jacobian(delta, outputs, unconnected_gradients="zero")
    curvature = tf.cast(jacobian, dtype)
    delta = tf.cast(delta, dtype)
    (placed,) = engine.assemble(batch, forward, [delta]).blocks
    if isinstance(placed.block, OuterBlock):
        return DenseTerms(placed.block.inputs, delta, curvature)
    # Only the bias is watched: its input is one.
    return DenseTerms(tf.ones_like(delta[:, :1]), delta, curvature)
