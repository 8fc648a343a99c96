"""How much each position of an output counts in the loss of its example."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from ..types import Batch
from .influence_model import BaseInfluenceModel
from .keras_internals import copy_keras_mask, keras_mask
from .losses import PerExampleLoss


def position_weights(model: BaseInfluenceModel, batch: Batch, outputs: tf.Tensor) -> tf.Tensor:
    """Return the factor w of each loss value in the loss of its example, shape ``(b, ...)``.

    The loss of an example is linear in the values of its positions, so that its derivative in
    them is w, whatever weights, masks, ignored classes and means there are.

    Parameters
    ----------
    model
        A wrapped model with one loss.
    batch
        A batch of the dataset.
    outputs
        What the model returned for it, one tensor.
    """
    _, targets, sample_weight = model.process_batch_for_loss_fn(batch)
    loss = model.loss_function.loss
    evaluate = loss.call if isinstance(loss, keras.losses.Loss) else loss
    seen: list[tf.Tensor] = []
    with tf.GradientTape(watch_accessed_variables=False) as tape:

        def watched(targets: Any, outputs: tf.Tensor) -> tf.Tensor:
            given = tf.convert_to_tensor(evaluate(targets, outputs))
            values = tf.identity(given)
            copy_keras_mask(given, values)
            tape.watch(values)
            seen.append(values)
            return values

        reduced = PerExampleLoss(watched, None, model.loss_function.over_positions)
        total = tf.reduce_sum(reduced(targets, outputs, sample_weight))
    (values,) = seen
    weights = tf.stop_gradient(tape.gradient(total, values))
    # Keras tells so which labels a loss ignores.
    counted = keras_mask(values)
    return weights if counted is None else weights * tf.cast(counted, weights.dtype)


def weighs_positions(model: BaseInfluenceModel, batch: Batch, outputs: Any) -> bool:
    """Tell whether weights or an ignored class may leave out some positions of an output."""
    loss = model.loss_function.loss
    if tf.nest.is_nested(loss) or not isinstance(outputs, tf.Tensor) or outputs.shape.rank < 3:
        return False
    sample_weight = model.process_batch_for_loss_fn(batch)[2]
    weighted = sample_weight is not None and tf.convert_to_tensor(sample_weight).shape.rank > 1
    return weighted or getattr(loss, "ignore_class", None) is not None
