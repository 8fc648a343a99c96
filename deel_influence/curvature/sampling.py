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
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import UnsupportedModelError
from ..gradients.batch_gradients import BatchGradients
from ..gradients.engine import GradientEngine
from ..model.losses import PerExampleLoss
from ..types import Batch

MAX_DIFFERENTIATED = 4096
"""Up to this many logits of an example, S is computed by differentiation."""

PROBABILITY_MARGIN = 1e-7
"""Probabilities are kept so far from 0 and 1, as in the losses of Keras."""


def sampled_gradients(engine: GradientEngine, batch: Batch, seed: tf.Tensor) -> BatchGradients:
    """Return gradients ĝ for one draw of targets, with ``E ĝ_i ĝ_iᵀ = J_iᵀ S_i J_i``; traceable.

    Parameters
    ----------
    engine
        A prepared engine.
    batch
        A batch of the dataset, whose labels matter only to losses that leave some out.
    seed
        Two integers that fix the draw, shape ``(2,)``.
    """
    draw = _find_draw(engine.model.loss_function)
    seed = tf.reshape(seed, (2,))
    if draw is not None:
        return _along_draw(engine, batch, draw, seed)

    def column(root: tf.Tensor) -> list[tf.Tensor]:
        noise = tf.random.stateless_normal(tf.shape(root)[:2], seed, dtype=root.dtype)
        return [tf.linalg.matvec(root, noise)]

    return _along_columns(engine, batch, column)[0]


def expected_gradients(engine: GradientEngine, batch: Batch) -> list[BatchGradients]:
    """Return K sets of gradients whose mean outer product is exactly ``J_iᵀ S_i J_i``; traceable.

    K is the number of logits of an example: the columns of B, times ``√K``, each with its own
    backward pass. The expectation over `sampled_gradients`, at K times its cost.

    Parameters
    ----------
    engine
        A prepared engine.
    batch
        A batch of the dataset.
    """

    def columns(root: tf.Tensor) -> list[tf.Tensor]:
        scale = float(np.sqrt(root.shape[2]))
        return [scale * column for column in tf.unstack(root, axis=2)]

    return _along_columns(engine, batch, columns)


def square_root(matrices: tf.Tensor) -> tf.Tensor:
    """Return B with ``B Bᵀ`` the positive part of symmetric matrices ``(b, s, s)``."""
    matrices = (matrices + tf.linalg.matrix_transpose(matrices)) / 2
    eigenvalues, vectors = tf.linalg.eigh(matrices)
    return vectors * tf.sqrt(tf.maximum(eigenvalues, 0.0))[:, None, :]


@dataclass(frozen=True)
class _Draw:
    """How targets are drawn for one loss.

    Attributes
    ----------
    values
        Takes outputs ``(b, ..., c)``, a seed and whether they are logits; returns ``(b, ...)``,
        whose gradient in the logits is ξ but for the factor ``√w``.
    from_logits
        Whether the loss takes logits.
    ignored_class
        A label whose positions the loss leaves out, or None.
    """

    values: Callable[[tf.Tensor, tf.Tensor, bool], tf.Tensor]
    from_logits: bool = False
    ignored_class: int | None = None


def _draw_class(outputs: tf.Tensor, seed: tf.Tensor, from_logits: bool) -> tf.Tensor:
    # Probabilities need not add up to one: both operations below normalise.
    tiny = outputs.dtype.as_numpy_dtype(np.finfo(outputs.dtype.as_numpy_dtype).tiny)
    logits = outputs if from_logits else tf.math.log(tf.maximum(outputs, tiny))
    flat = tf.reshape(tf.stop_gradient(logits), (-1, tf.shape(logits)[-1]))
    drawn = tf.random.stateless_categorical(flat, 1, seed, dtype=tf.int32)
    labels = tf.reshape(drawn, tf.shape(logits)[:-1])
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def _draw_bits(outputs: tf.Tensor, seed: tf.Tensor, from_logits: bool) -> tf.Tensor:
    logits = outputs
    if not from_logits:
        kept = tf.clip_by_value(outputs, PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
        logits = tf.math.log(kept) - tf.math.log1p(-kept)
    uniform = tf.random.stateless_uniform(tf.shape(logits), seed, dtype=logits.dtype)
    bits = tf.cast(uniform < tf.sigmoid(logits), logits.dtype)
    values = tf.nn.sigmoid_cross_entropy_with_logits(bits, logits)
    return tf.reduce_sum(values, axis=-1) * tf.math.rsqrt(_width(logits))


def _draw_normal(outputs: tf.Tensor, seed: tf.Tensor, from_logits: bool) -> tf.Tensor:  # noqa: ARG001
    noise = tf.random.stateless_normal(tf.shape(outputs), seed, dtype=outputs.dtype)
    return tf.reduce_sum(noise * outputs, axis=-1) * tf.sqrt(2 / _width(outputs))


def _width(outputs: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.shape(outputs)[-1], outputs.dtype)


_LOSSES = keras.losses

# Losses as objects and as the functions that their names stand for.
_DRAWS: dict[Any, Callable[[tf.Tensor, tf.Tensor, bool], tf.Tensor]] = {
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
    return _Draw(values, getattr(loss, "from_logits", False), getattr(loss, "ignore_class", None))


def _along_draw(
    engine: GradientEngine, batch: Batch, draw: _Draw, seed: tf.Tensor
) -> BatchGradients:
    with (
        tf.GradientTape(watch_accessed_variables=False) as taps_tape,
        tf.GradientTape(watch_accessed_variables=False) as logits_tape,
    ):
        forward, logits = engine.forward_to_logits(batch, [taps_tape], [logits_tape])
        outputs = tf.cast(forward.outputs, engine.model.dtype)
        values = draw.values(outputs, seed, draw.from_logits)
        factors = _position_factors(engine, batch, forward.outputs, draw.ignored_class)
        total = tf.reduce_sum(tf.sqrt(tf.cast(factors, values.dtype)) * values)
    cotangent = tf.convert_to_tensor(logits_tape.gradient(total, logits))
    flat = [tap.output for taps in forward.taps for tap in taps]
    deltas = taps_tape.gradient(
        logits, flat, output_gradients=cotangent, unconnected_gradients="zero"
    )
    return engine.assemble(batch, forward, deltas, cotangent)


def _position_factors(
    engine: GradientEngine, batch: Batch, outputs: tf.Tensor, ignored_class: int | None
) -> tf.Tensor:
    """Return the factor w of each loss value in the loss of its example, shape ``(b, ...)``.

    The loss of an example is linear in the values of its positions, so that its derivative in
    them is w, whatever weights, masks and reductions there are.
    """
    model = engine.model
    _, targets, sample_weight = model.process_batch_for_loss_fn(batch)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        values = tf.ones(tf.shape(outputs)[:-1], model.dtype)
        values = tf.ensure_shape(values, outputs.shape[:-1])
        tape.watch(values)
        reduced = PerExampleLoss(
            lambda _, __: tf.identity(values), None, model.loss_function.over_positions
        )
        total = tf.reduce_sum(reduced(targets, outputs, sample_weight))
    factors = tf.stop_gradient(tape.gradient(total, values))
    if ignored_class is None:
        return factors
    counted = tf.cast(targets, tf.int64) != tf.cast(ignored_class, tf.int64)
    return factors * tf.cast(tf.reshape(counted, tf.shape(factors)), factors.dtype)


def _along_columns(
    engine: GradientEngine,
    batch: Batch,
    cotangents_of: Callable[[tf.Tensor], Sequence[tf.Tensor]],
) -> list[BatchGradients]:
    """Return the gradients along the cotangents ``(b, s)`` made of the roots B ``(b, s, s)``."""
    with (
        tf.GradientTape(watch_accessed_variables=False, persistent=True) as taps_tape,
        tf.GradientTape(watch_accessed_variables=False) as outer,
    ):
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            forward, logits = engine.forward_to_logits(batch, [taps_tape], [outer, inner])
            total = tf.reduce_sum(forward.losses)
        residual = inner.gradient(total, logits)
    size = _known_size(logits)
    zero = tf.UnconnectedGradients.ZERO
    hessian = outer.batch_jacobian(residual, logits, unconnected_gradients=zero)
    root = square_root(tf.reshape(hessian, (-1, size, size)))
    flat = [tap.output for taps in forward.taps for tap in taps]
    results = []
    for column in cotangents_of(root):
        cotangent = tf.cast(tf.reshape(column, tf.shape(logits)), logits.dtype)
        deltas = taps_tape.gradient(
            logits, flat, output_gradients=cotangent, unconnected_gradients="zero"
        )
        results.append(engine.assemble(batch, forward, deltas, cotangent))
    return results


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
