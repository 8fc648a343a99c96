"""Gradients for targets drawn from the model: what the Fisher matrix is made of.

The distribution is the one that the loss is the negative log-likelihood of. What a draw has to
give is a random cotangent ξ in the logits (the outputs before their last activation) with mean
zero and ``E ξξᵀ = S``, the Hessian of the example's loss in its logits: the gradients
``ĝ = Jᵀξ`` then have ``E ĝĝᵀ = Jᵀ S J``, the Gauss-Newton matrix. Losses add up over the positions
of an output (time steps, pixels), each with a factor w: sample weight, mask, and 1/t where the
mean over positions is taken. S carries w, so that ξ carries ``√w``:

=====================================  ==========================  =================================
loss of one position with c outputs    drawn                       ξ, with ``E ξξᵀ = S``
=====================================  ==========================  =================================
cross-entropy of classes               y ~ π = softmax(logits)     ``√w (π - e_y)``
mean of c binary cross-entropies       y_j ~ σ_j = sigmoid(.)      ``√(w/c) (σ - y)``
mean of c squared errors, S = 2w/c I   ε ~ N(0, I)                 ``√(2w/c) ε``
any other, S by differentiation        ε ~ N(0, I)                 ``B ε`` with ``B Bᵀ = S⁺``
=====================================  ==========================  =================================

Behind another activation (squared errors of a tanh, probabilities that no softmax gave) the first
three rows give the score of the same distribution, and so still the Fisher matrix. The last row
takes the positive part of S; it differentiates c, or t·c, times through the loss.

What is drawn for a position depends on the seed, the example, and how many positions with a part in
the loss come before it, and on nothing else: see `deel_influence.curvature.draws`. Neither other
batches nor padding, before a sequence or after it, change it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from ..errors import UnsupportedModelError
from ..gradients.batch_gradients import BatchGradients
from ..gradients.engine import GradientEngine
from ..model.loss_weights import position_weights
from ..model.losses import PerExampleLoss
from ..types import Batch
from .draws import Draws

MAX_DIFFERENTIATED = 4096
"""Up to this many logits of an example, S is computed by differentiation."""

PROBABILITY_MARGIN = 1e-7
"""Probabilities are kept so far from 0 and 1, as in the losses of Keras."""


def sampled_gradients(engine: GradientEngine, batch: Batch, draws: Draws) -> BatchGradients:
    """Return gradients ĝ for one draw of targets, with ``E ĝ_i ĝ_iᵀ = J_iᵀ S_i J_i``; traceable.

    Parameters
    ----------
    engine
        A prepared engine.
    batch
        A batch of the dataset, whose labels matter only to losses that leave some out.
    draws
        The random numbers of its examples.
    """
    draw = _find_draw(engine.model.loss_function)
    if draw is not None:
        return _along_draw(engine, batch, draw, draws)

    def column(root: tf.Tensor, with_part: tf.Tensor) -> list[tf.Tensor]:
        noise = draws.normals(_order(tf.reduce_any(with_part, axis=2)), with_part.shape[2])
        return [tf.linalg.matvec(root, tf.cast(tf.reshape(noise, tf.shape(root)[:2]), root.dtype))]

    return _along_columns(engine, batch, column)[0]


def expected_gradients(engine: GradientEngine, batch: Batch) -> list[BatchGradients]:
    """Return K sets of gradients whose mean outer product is exactly ``J_iᵀ S_i J_i``; traceable.

    K is the number of logits of an example: `summed_gradients` times ``√K``. The expectation over
    `sampled_gradients`, at K times its cost.

    Parameters
    ----------
    engine
        A prepared engine.
    batch
        A batch of the dataset.
    """
    return _along_columns(
        engine, batch, lambda root, _: tf.unstack(float(np.sqrt(root.shape[2])) * root, axis=2)
    )


def summed_gradients(engine: GradientEngine, batch: Batch) -> list[BatchGradients]:
    """Return K sets of gradients whose outer products add up to ``J_iᵀ S_i J_i``; traceable.

    They are the columns of B, each with its own backward pass. K may differ between batches of
    sequences of different lengths.

    Parameters
    ----------
    engine, batch
        As for `expected_gradients`.
    """
    return _along_columns(engine, batch, lambda root, _: tf.unstack(root, axis=2))


def square_root(matrices: tf.Tensor) -> tf.Tensor:
    """Return the symmetric B with ``B Bᵀ`` the positive part of symmetric matrices ``(b, s, s)``.

    Of all square roots it is the one that depends continuously on the matrix, and that keeps apart
    what the matrix keeps apart, such as positions.
    """
    return _of_eigenvalues(matrices, lambda values: tf.sqrt(tf.maximum(values, 0.0)))


def positive_part(matrices: tf.Tensor) -> tf.Tensor:
    """Return symmetric matrices ``(b, s, s)`` without their negative eigenvalues."""
    return _of_eigenvalues(matrices, lambda values: tf.maximum(values, 0.0))


def _of_eigenvalues(matrices: tf.Tensor, function: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    values, vectors = tf.linalg.eigh((matrices + tf.linalg.matrix_transpose(matrices)) / 2)
    return tf.matmul(vectors * function(values)[:, None, :], vectors, transpose_b=True)


Values: TypeAlias = Callable[[tf.Tensor, Draws, tf.Tensor, bool], tf.Tensor]
"""Takes outputs ``(b, ..., c)``, random numbers, the places ``(b, ...)`` of the positions among
those that have a part in the loss, and whether the outputs are logits; returns ``(b, ...)``, whose
gradient in the logits is ξ but for the factor ``√w``."""


@dataclass(frozen=True)
class _Draw:
    """How targets are drawn for one loss.

    Attributes
    ----------
    values
        The number whose gradient is wanted.
    from_logits
        Whether the loss takes logits.
    """

    values: Values
    from_logits: bool = False


def _draw_class(
    outputs: tf.Tensor, draws: Draws, places: tf.Tensor, from_logits: bool
) -> tf.Tensor:
    # Probabilities need not add up to one: both operations below normalise.
    tiny = outputs.dtype.as_numpy_dtype(np.finfo(outputs.dtype.as_numpy_dtype).tiny)
    logits = outputs if from_logits else tf.math.log(tf.maximum(outputs, tiny))
    # In float64, whose sums of many small probabilities are still in order.
    probabilities = tf.nn.softmax(tf.cast(tf.stop_gradient(logits), tf.float64))
    below = tf.cumsum(probabilities, axis=-1)
    reached = below[..., :-1] <= draws.uniforms(places, 1) * below[..., -1:]
    labels = tf.reduce_sum(tf.cast(reached, tf.int32), axis=-1)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def _draw_bits(outputs: tf.Tensor, draws: Draws, places: tf.Tensor, from_logits: bool) -> tf.Tensor:
    logits = outputs
    if not from_logits:
        kept = tf.clip_by_value(outputs, PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
        logits = tf.math.log(kept) - tf.math.log1p(-kept)
    uniform = draws.uniforms(places, tf.shape(logits)[-1])
    bits = tf.cast(uniform < tf.sigmoid(tf.cast(logits, tf.float64)), logits.dtype)
    values = tf.nn.sigmoid_cross_entropy_with_logits(bits, logits)
    return tf.reduce_sum(values, axis=-1) * tf.math.rsqrt(_width(logits))


def _draw_normal(
    outputs: tf.Tensor,
    draws: Draws,
    places: tf.Tensor,
    from_logits: bool,  # noqa: ARG001 - squared errors take what they are given
) -> tf.Tensor:
    noise = tf.cast(draws.normals(places, tf.shape(outputs)[-1]), outputs.dtype)
    return tf.reduce_sum(noise * outputs, axis=-1) * tf.sqrt(2 / _width(outputs))


def _width(outputs: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.shape(outputs)[-1], outputs.dtype)


_LOSSES = keras.losses

# Losses as objects and as the functions that their names stand for.
_DRAWS: dict[Any, Values] = {
    _LOSSES.CategoricalCrossentropy: _draw_class,
    _LOSSES.categorical_crossentropy: _draw_class,
    _LOSSES.SparseCategoricalCrossentropy: _draw_class,
    _LOSSES.sparse_categorical_crossentropy: _draw_class,
    _LOSSES.BinaryCrossentropy: _draw_bits,
    _LOSSES.binary_crossentropy: _draw_bits,
    _LOSSES.MeanSquaredError: _draw_normal,
    _LOSSES.mean_squared_error: _draw_normal,
}


def _find_draw(loss_function: PerExampleLoss) -> _Draw | None:
    """Return how targets of a loss are drawn; None where S is to be differentiated."""
    if loss_function.loss_weights is not None:
        return None
    loss = loss_function.loss
    is_object = isinstance(loss, keras.losses.Loss)
    key = type(loss) if is_object else loss
    values = _DRAWS.get(key) if callable(key) else None
    if values is None or not is_object:
        return None if values is None else _Draw(values)
    if getattr(loss, "axis", -1) != -1:
        return None
    # Label smoothing moves the gradient, but not its Hessian: the draw stays that of the model.
    return _Draw(values, getattr(loss, "from_logits", False))


def _along_draw(engine: GradientEngine, batch: Batch, draw: _Draw, draws: Draws) -> BatchGradients:
    with (
        tf.GradientTape(watch_accessed_variables=False) as taps_tape,
        tf.GradientTape(watch_accessed_variables=False) as logits_tape,
    ):
        forward, logits = engine.forward_to_logits(batch, [taps_tape], [logits_tape])
        outputs = tf.cast(forward.outputs, engine.model.dtype)
        weights = position_weights(engine.model, batch, forward.outputs)
        values = draw.values(outputs, draws, _order(weights != 0), draw.from_logits)
        total = tf.reduce_sum(tf.sqrt(tf.cast(weights, values.dtype)) * values)
    cotangent = tf.convert_to_tensor(logits_tape.gradient(total, logits))
    flat = [tap.output for taps in forward.taps for tap in taps]
    deltas = taps_tape.gradient(
        logits, flat, output_gradients=cotangent, unconnected_gradients="zero"
    )
    return engine.assemble(batch, forward, deltas, cotangent)


def _order(with_part: tf.Tensor) -> tf.Tensor:
    """Return how many positions with a part in the loss come before each, int32, ``(b, ...)``."""
    flat = tf.reshape(with_part, (tf.shape(with_part)[0], -1))
    before = tf.cumsum(tf.cast(flat, tf.int32), axis=1, exclusive=True)
    return tf.reshape(before, tf.shape(with_part))


@dataclass(frozen=True)
class Linearized:
    """The model around its weights for a batch: what comes from its logits by a backward pass.

    Attributes
    ----------
    residuals
        Gradients of the losses in the logits, shape ``(b, s)``.
    hessians
        S, shape ``(b, s, s)``, with s logits for each example.
    pull
        Turns cotangents ``(b, s)`` into the gradients ``Jᵀ w``; one backward pass.
    width
        The number c of logits at one position.
    """

    residuals: tf.Tensor
    hessians: tf.Tensor
    pull: Callable[[tf.Tensor], BatchGradients]
    width: int


def linearized(engine: GradientEngine, batch: Batch) -> Linearized:
    """Return a batch's gradients and curvature in the logits, and the way back; traceable.

    Parameters
    ----------
    engine, batch
        As for `expected_gradients`.

    Raises
    ------
    UnsupportedModelError
        If an example has more than `MAX_DIFFERENTIATED` logits, or an unknown number.
    """
    with (
        tf.GradientTape(watch_accessed_variables=False, persistent=True) as taps_tape,
        tf.GradientTape(watch_accessed_variables=False) as outer,
    ):
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            forward, logits = engine.forward_to_logits(batch, [taps_tape], [outer, inner])
            total = tf.reduce_sum(forward.losses)
        zero = tf.UnconnectedGradients.ZERO
        residual = inner.gradient(total, logits, unconnected_gradients=zero)
    size = _known_size(logits)
    hessian = outer.batch_jacobian(residual, logits, unconnected_gradients=zero)
    flat = [tap.output for taps in forward.taps for tap in taps]

    def pull(cotangents: tf.Tensor) -> BatchGradients:
        cotangent = tf.cast(tf.reshape(cotangents, tf.shape(logits)), logits.dtype)
        deltas = taps_tape.gradient(
            logits, flat, output_gradients=cotangent, unconnected_gradients=zero
        )
        return engine.assemble(batch, forward, deltas, cotangent)

    width = int(logits.shape[-1]) if logits.shape.rank > 1 else 1
    shape = (-1, size)
    return Linearized(tf.reshape(residual, shape), tf.reshape(hessian, (*shape, size)), pull, width)


def _along_columns(
    engine: GradientEngine,
    batch: Batch,
    cotangents_of: Callable[[tf.Tensor, tf.Tensor], Sequence[tf.Tensor]],
) -> list[BatchGradients]:
    """Return the gradients along cotangents of the logits.

    Parameters
    ----------
    engine, batch
        As for `sampled_gradients`.
    cotangents_of
        Makes cotangents ``(b, s)`` of the roots B ``(b, s, s)``, and of which logits have a part
        in the loss, bool, shape ``(b, t, c)`` with ``t·c = s``.
    """
    found = linearized(engine, batch)
    hessian = found.hessians
    with_part = tf.reduce_any(hessian != 0, axis=2)
    # Exactly zero where S is, which rounding need not leave so.
    both = with_part[:, :, None] & with_part[:, None, :]
    root = tf.where(both, square_root(hessian), tf.zeros_like(hessian))
    with_part = tf.reshape(with_part, (-1, hessian.shape[1] // found.width, found.width))
    return [found.pull(column) for column in cotangents_of(root, with_part)]


def _known_size(logits: tf.Tensor) -> int:
    shape = logits.shape[1:]
    if shape.is_fully_defined() and shape.num_elements() <= MAX_DIFFERENTIATED:
        return int(shape.num_elements())
    message = (
        "The Fisher matrix of this loss needs outputs of a known shape with at most "
        f"{MAX_DIFFERENTIATED} entries for each example. Received: {logits.shape}. Use the "
        "empirical Fisher matrix, or a cross-entropy or squared error of Keras."
    )
    raise UnsupportedModelError(message)
