"""The loss as a function of the logits, with labels or the model's own predictions as targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from ..errors import UnsupportedModelError
from ..linalg.checks import check_choice
from ..model.losses import PerExampleLoss
from ..types import Batch
from .head import Head

TARGETS = ("model", "labels")


@dataclass(frozen=True)
class _Family:
    """What losses of one kind have in common.

    Attributes
    ----------
    loss
        Makes the loss with probabilities, or values, as its targets.
    link
        Turns logits into such targets.
    """

    loss: Callable[..., keras.losses.Loss]
    link: Callable[[tf.Tensor], tf.Tensor]


_LOSSES = keras.losses
_CLASSES = _Family(_LOSSES.CategoricalCrossentropy, tf.nn.softmax)
_BITS = _Family(_LOSSES.BinaryCrossentropy, tf.sigmoid)
_VALUES = _Family(lambda **_: _LOSSES.MeanSquaredError(), tf.identity)

# Losses as objects and as the functions that their names stand for.
_FAMILIES: dict[Any, _Family] = {
    _LOSSES.CategoricalCrossentropy: _CLASSES,
    _LOSSES.categorical_crossentropy: _CLASSES,
    _LOSSES.SparseCategoricalCrossentropy: _CLASSES,
    _LOSSES.sparse_categorical_crossentropy: _CLASSES,
    _LOSSES.BinaryCrossentropy: _BITS,
    _LOSSES.binary_crossentropy: _BITS,
    _LOSSES.MeanSquaredError: _VALUES,
    _LOSSES.mean_squared_error: _VALUES,
}


def is_binary(head: Head) -> bool:
    """Tell whether one logit stands for two classes."""
    return head.num_outputs == 1 and _family_of(head.model.loss_function.loss) is _BITS


class LogitLoss:
    """The loss of each example as a function of its logits.

    Parameters
    ----------
    head
        The head, whose activation and loss these are.
    targets
        ``"labels"``, or ``"model"`` for what the head itself predicts.

    Raises
    ------
    ValueError
        For other targets.
    UnsupportedModelError
        If the loss takes no predictions as targets.
    """

    def __init__(self, head: Head, targets: str) -> None:
        check_choice("targets", targets, TARGETS)
        self._head = head
        self._link: Callable[[tf.Tensor], tf.Tensor] | None = None
        self._loss = head.model.loss_function
        if targets == "model":
            self._predict_targets()

    def targets(self, batch: Batch, features: tf.Tensor) -> tuple[Any, tf.Tensor]:
        """Return the targets and the sample weights ``(b,)`` of a batch; traceable."""
        _, labels, weights = self._head.model.process_batch_for_loss_fn(batch)
        if weights is None:
            weights = tf.ones(tf.shape(features)[:1], tf.float64)
        if self._link is None:
            return labels, weights
        logits = tf.matmul(tf.cast(features, tf.float64), self._head.weights())
        return self._link(self._head.activation(logits)), weights

    def __call__(self, logits: tf.Tensor, targets: Any, weights: tf.Tensor) -> tf.Tensor:
        """Return the losses ``(b,)`` for logits ``(b, c)``, in their dtype."""
        losses = self._loss(targets, self._head.activation(logits), weights)
        return tf.cast(losses, logits.dtype)

    def derivative(self, logits: tf.Tensor, targets: Any, weights: tf.Tensor) -> tf.Tensor:
        """Return ``∂ℓ_i/∂logits_i``, shape ``(b, c)``."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(logits)
            total = tf.reduce_sum(self(logits, targets, weights))
        return tape.gradient(total, logits, unconnected_gradients="zero")

    def _predict_targets(self) -> None:
        given = self._loss.loss
        family = _family_of(given)
        if family is None:
            message = (
                'Argument `targets` must be "labels" for losses other than the cross-entropies '
                'and the mean squared error of Keras. Received: targets="model" with the loss '
                f"{given!r}."
            )
            raise UnsupportedModelError(message)
        from_logits = bool(getattr(given, "from_logits", False))
        self._link = family.link if from_logits else tf.identity
        loss = family.loss(from_logits=from_logits)
        self._loss = PerExampleLoss(
            loss, self._loss.loss_weights, output_names=self._loss.output_names
        )


def _family_of(loss: Any) -> _Family | None:
    key = type(loss) if isinstance(loss, keras.losses.Loss) else loss
    return _FAMILIES.get(key) if callable(key) else None
