"""What is looked at on a query: its loss, or another number that the model's outputs give."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from ..errors import UnsupportedModelError
from ..types import Batch, ProcessedBatch
from .influence_model import BaseInfluenceModel
from .logit_reading import seems_from_logits, told_from_logits
from .losses import PerExampleLoss

Measurement: TypeAlias = str | Callable[[Any, Any], tf.Tensor] | None
"""``"loss"`` or None, ``"margin"``, ``"logit"``, or ``measurement(targets, outputs) -> (b,)``."""


def measured_model(model: BaseInfluenceModel, measurement: Measurement) -> BaseInfluenceModel:
    """Return the same model and weights with a measurement in place of the loss.

    Parameters
    ----------
    model
        The wrapped model.
    measurement
        None or ``"loss"``: the loss itself, sample weights included. ``"margin"``: the log-odds
        ``log(π_y / (1 - π_y))`` of the label's class. ``"logit"``: the output for the label's
        class, of models that give logits. Or a function of targets and outputs that returns one
        number, or several to be added up, for each example, shape ``(b,)`` or more axes. Sample
        weights belong to the loss and have no part in the others.

    Notes
    -----
    What a measurement needs is kept with the model, as long as that lives: define functions once.

    Raises
    ------
    ValueError
        If it is none of these, or the model gives probabilities and a logit is asked for.
    UnsupportedModelError
        If ``"margin"`` or ``"logit"`` is asked of a model that is no classifier with one label for
        each example.
    """
    if measurement is None or (isinstance(measurement, str) and measurement == "loss"):
        if model.class_weight is None:
            return model
        # The weights of classes belong to the training, and not to the loss of a query.
        unweighted = model.unweighted_process
        return model.resource("unweighted", lambda: model.rewrapped(process=unweighted))
    function = _function_of(model, measurement)

    def without_weights(batch: Batch) -> ProcessedBatch:
        inputs, targets, _ = model.process_batch_for_loss_fn(batch)
        return inputs, targets, None

    def make() -> BaseInfluenceModel:
        over_positions = model.loss_function.over_positions
        measured = PerExampleLoss(function, None, over_positions, argument="measurement")
        return model.rewrapped(loss_function=measured, process=without_weights)

    # What is kept holds the measurement, so that no other object gets its id.
    key = measurement if isinstance(measurement, Hashable) else id(measurement)
    return model.resource(("measured", key), make)


def gives_logits(model: BaseInfluenceModel) -> bool:
    """Tell whether the model's outputs are logits rather than probabilities.

    The loss says so where it has a ``from_logits``, or shows it on one output; else the activation
    of the last layer does.
    """
    loss = model.loss_function.loss
    told = told_from_logits(loss)
    if told is None and tuple(getattr(model.model, "output_shape", None) or ())[-1:] == (1,):
        told = seems_from_logits(loss)
    if told is not None:
        return told
    last = model.model.layers[-1] if model.model.layers else None
    activation = getattr(last, "activation", None)
    probable = (keras.activations.softmax, keras.activations.sigmoid)
    return activation not in probable and not isinstance(last, keras.layers.Softmax)


def label_indices(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return the label's class, int32, shape ``(b,)``, from indices or one-hot rows.

    Parameters
    ----------
    targets
        Shape ``(b,)``, ``(b, 1)`` or ``(b, c)``.
    outputs
        Shape ``(b, c)``; with c = 1 the label is 0 or 1.
    """
    c = outputs.shape[-1]
    if targets.shape.rank == outputs.shape.rank and c > 1 and targets.shape[-1] == c:
        return tf.argmax(targets, axis=-1, output_type=tf.int32)
    return tf.cast(tf.round(tf.reshape(targets, (-1,))), tf.int32)


def log_odds(targets: tf.Tensor, outputs: tf.Tensor, from_logits: bool) -> tf.Tensor:
    """Return ``log(π_y / (1 - π_y))`` of the label's class y, shape ``(b,)``.

    Parameters
    ----------
    targets
        Class indices ``(b,)``, or one-hot rows ``(b, c)``.
    outputs
        Logits or probabilities, shape ``(b, c)``, or ``(b, 1)`` for two classes.
    from_logits
        Which of them.
    """
    labels = label_indices(targets, outputs)
    # float32 holds no positive number below `tiny`, and nothing between 1 - eps / 2 and 1. A wider
    # clip would leave confident predictions without a gradient.
    limits = np.finfo(outputs.dtype.as_numpy_dtype)
    if outputs.shape[-1] == 1:
        positive = outputs[:, 0]
        if not from_logits:
            below = tf.math.log1p(-tf.minimum(positive, 1 - limits.eps / 2))
            positive = tf.math.log(tf.maximum(positive, limits.tiny)) - below
        return tf.where(labels == 1, positive, -positive)
    logits = outputs if from_logits else tf.math.log(tf.maximum(outputs, limits.tiny))
    mine = tf.gather(logits, labels, batch_dims=1)
    own = tf.one_hot(labels, int(outputs.shape[-1]), True, False)
    others = tf.where(own, tf.constant(-float("inf"), logits.dtype), logits)
    return mine - tf.reduce_logsumexp(others, axis=1)


def _function_of(model: BaseInfluenceModel, measurement: Any) -> Callable[[Any, Any], tf.Tensor]:
    if callable(measurement):
        return measurement
    if measurement in ("margin", "logit"):
        _check_classifier(model)
    from_logits = gives_logits(model)
    if measurement == "margin":
        return lambda targets, outputs: log_odds(targets, outputs, from_logits)
    if measurement == "logit" and from_logits:
        return _label_logit
    remedy = "Use 'margin', which probabilities give too." if measurement == "logit" else ""
    message = (
        "Argument `measurement` must be 'loss', 'margin', 'logit' (of a model that gives logits) "
        f"or a function of targets and outputs. Received: {measurement!r}. {remedy}"
    )
    raise ValueError(message.rstrip())


def is_binary_loss(loss: Any) -> bool:
    """Tell whether a loss takes each output for a yes or no of its own."""
    kinds = (keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy)
    functions = (keras.losses.binary_crossentropy, keras.losses.binary_focal_crossentropy)
    return isinstance(loss, kinds) or loss in functions


def knows_logits(loss: Any) -> bool:
    """Tell whether a loss can be told that it gets logits, as those of classifiers can."""
    return told_from_logits(loss) is not None


def _check_classifier(model: BaseInfluenceModel) -> None:
    """Refuse a model that does not choose one class for each example."""
    loss = model.loss_function.loss
    shape = getattr(model.model, "output_shape", None)
    single = isinstance(shape, tuple) and not any(isinstance(part, tuple) for part in shape)
    sizes = shape if single and shape is not None else (None, 1)
    several = len(sizes) > 2 or (is_binary_loss(loss) and sizes[-1] != 1)
    unclear = not isinstance(loss, (dict, list, tuple)) and not knows_logits(loss)
    if isinstance(loss, (dict, list, tuple)) or several or (unclear and gives_logits(model)):
        message = (
            "The measurements 'margin' and 'logit' need a classifier with one output and one label "
            f"for each example. Received: the loss {loss!r} on outputs of shape {shape}. Pass a "
            "function of targets and outputs."
        )
        raise UnsupportedModelError(message)


def _label_logit(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return the logit of the label's class, shape ``(b,)``; of one logit, with its sign."""
    labels = label_indices(targets, outputs)
    if outputs.shape[-1] == 1:
        return tf.where(labels == 1, outputs[:, 0], -outputs[:, 0])
    return tf.gather(outputs, labels, batch_dims=1)
