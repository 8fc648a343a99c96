"""The Hessian of one dense layer in closed form.

Where only one Dense layer is watched, its inputs φ do not depend on the watched weights, and

    ∇²ℓ(z_i) = φ_i φ_iᵀ ⊗ S_i,    S_i = ∂²ℓ(z_i) / ∂y²,

with y = Wᵀφ (φ extended by one for the bias) and S the c×c Hessian of the loss in the layer's
pre-activation outputs, which `dense_terms` gives. For softmax and cross-entropy after the last
layer, S = diag(π) - ππᵀ.
The frozen layers before it run once, and no second derivative passes through them.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ..gradients.engine import GradientEngine
from ..types import Batch
from .dense_layer import dense_terms


def has_closed_form(engine: GradientEngine) -> bool:
    """Tell whether the engine watches one dense layer, called once on plain rows."""
    if len(engine.ruled) != 1 or engine.fallback_variables:
        return False
    ruled = engine.ruled[0]
    # The matrix below has the kernel before the bias, as the parameters must.
    order = [v for v in ruled.rule.variables(ruled.layer) if v in engine.model.layout]
    in_order = all(a is b for a, b in zip(order, engine.model.weights, strict=True))
    return ruled.is_linear and ruled.input_ranks == (2,) and in_order


def closed_form_of_batch(engine: GradientEngine, batch: Batch) -> tf.Tensor:
    """Return ``Σ_i S_i[o, o'] φ_i φ_iᵀ`` for the pairs o ≤ o', shape ``(c(c+1)/2, r, r)``."""
    terms = dense_terms(engine, batch)
    features, curvature = terms.features, terms.curvature
    c = int(curvature.shape[1])
    rows, columns = np.triu_indices(c)
    pairs = tf.gather(tf.reshape(curvature, (-1, c * c)), rows * c + columns, axis=1)
    # One matrix product for all pairs is faster than a batch of small ones.
    num_pairs, r = int(pairs.shape[1]), int(features.shape[1])
    weighted = tf.reshape(pairs[:, :, None] * features[:, None, :], (-1, num_pairs * r))
    return tf.reshape(tf.matmul(weighted, features, transpose_a=True), (num_pairs, r, r))


def assemble_closed_form(engine: GradientEngine, blocks: np.ndarray) -> np.ndarray:
    """Arrange the blocks ``(c(c+1)/2, r, r)`` as the matrix ``(p, p)``, p = r·c."""
    r = blocks.shape[1]
    c = engine.model.nb_params // r
    full = np.empty((r, c, r, c))
    for block, o, q in zip(blocks, *np.triu_indices(c), strict=True):
        full[:, o, :, q] = block
        full[:, q, :, o] = block
    return full.reshape(r * c, r * c)
