"""The loss of each example, made from any Keras loss whatever its reduction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ..errors import LabelError, MissingLossError
from .keras_internals import keras_mask


class PerExampleLoss:
    """Compute ``ℓ(z_i, θ)`` for every example of a batch.

    Parameters
    ----------
    loss
        A Keras loss object or name, a callable ``loss(targets, outputs)``, or a list or dict of
        them for a model with several outputs. The reduction of a Keras loss object is set aside.
    loss_weights
        Factors of the losses of several outputs, in the same structure; None means one each.
    over_positions
        ``"sum"`` or ``"mean"``: what becomes of loss axes beyond the batch (time, pixels).
        Positions that Keras masks are left out of either.
    """

    def __init__(self, loss: Any, loss_weights: Any = None, over_positions: str = "sum") -> None:
        if over_positions not in ("sum", "mean"):
            message = (
                'Argument `loss_over_positions` must be "sum" or "mean". '
                f"Received: {over_positions!r}."
            )
            raise ValueError(message)
        self.loss = _resolve(loss)
        self.loss_weights = loss_weights
        self.over_positions = over_positions

    def __call__(self, targets: Any, outputs: Any, sample_weight: Any = None) -> tf.Tensor:
        """Return the losses ``(b,)``, in the outputs' dtype or float32, whichever is wider."""
        if not isinstance(self.loss, (dict, list, tuple)) and not _is_nest(outputs):
            return self._one_output(self.loss, targets, outputs, sample_weight)
        total = None
        for loss, weight, target, output, importance in self._per_output(
            targets, outputs, sample_weight
        ):
            values = self._one_output(loss, target, output, importance)
            values = values if weight is None else values * tf.cast(weight, values.dtype)
            total = values if total is None else total + values
        if total is None:
            message = (
                "Argument `loss_function` must give a loss to at least one output of the model. "
                f"Received: {self.loss!r}."
            )
            raise MissingLossError(message)
        return total

    def _per_output(self, targets: Any, outputs: Any, sample_weight: Any) -> list[tuple]:
        """Line up loss, weight, target, output and sample weight of each output with a loss."""
        names = list(outputs) if isinstance(outputs, dict) else range(len(_as_list(outputs)))
        keys = list(names)
        losses = _spread(self.loss, keys, "loss_function")
        weights = _spread(self.loss_weights, keys, "loss_weights")
        wanted = _spread(targets, keys, "targets", share=False)
        importance = _spread(sample_weight, keys, "sample_weight")
        given = _spread(outputs, keys, "outputs", share=False)
        return [
            (losses[k], weights[k], wanted[k], given[k], importance[k])
            for k in keys
            if losses[k] is not None
        ]

    def _one_output(
        self, loss: Callable, target: Any, output: tf.Tensor, sample_weight: Any
    ) -> tf.Tensor:
        mask = keras_mask(output)
        output = tf.convert_to_tensor(output)
        if output.dtype in (tf.float16, tf.bfloat16):
            output = tf.cast(output, tf.float32)
        values = _raw_values(loss, target, output)
        return self._reduce(values, output, sample_weight, mask)

    def _reduce(
        self, values: tf.Tensor, output: tf.Tensor, sample_weight: Any, mask: Any
    ) -> tf.Tensor:
        """Weigh, mask and add up loss values ``(b, ...)`` into ``(b,)``."""
        if values.shape.rank == 0:
            message = (
                "Argument `loss_function` must return one loss per example, shape (b,) or more "
                "axes. Received: a function that returns a scalar, already reduced over the "
                'batch. Pass a Keras loss object, or build yours with reduction="none".'
            )
            raise ValueError(message)
        counted = None
        if mask is not None:
            counted = _match_rank(tf.cast(mask, values.dtype), values)
            values = values * counted
        if sample_weight is not None:
            weights = tf.cast(tf.convert_to_tensor(sample_weight), values.dtype)
            values = values * _match_rank(weights, values)
        if values.shape.rank == 1:
            return values
        values = tf.reshape(values, (tf.shape(output)[0], -1))
        total = tf.reduce_sum(values, axis=1)
        if self.over_positions == "sum":
            return total
        if counted is None:
            return total / tf.cast(tf.shape(values)[1], total.dtype)
        counted = tf.reshape(counted * tf.ones_like(values[:1, :1]), (tf.shape(output)[0], -1))
        return tf.math.divide_no_nan(total, tf.reduce_sum(counted, axis=1))


def _resolve(loss: Any) -> Any:
    """Turn names into losses, in a single loss or in a list or dict of them."""
    if loss is None:
        message = (
            "The model has no loss. Pass `loss_function=` (a Keras loss, its name, or a "
            "callable), or compile the model first: model.compile(loss=...)."
        )
        raise MissingLossError(message)
    if isinstance(loss, dict):
        return {name: None if part is None else _resolve(part) for name, part in loss.items()}
    if isinstance(loss, (list, tuple)):
        return [None if part is None else _resolve(part) for part in loss]
    try:
        return keras.losses.get(loss)
    except ValueError as error:
        message = (
            "Argument `loss_function` must be a Keras loss, the name of one, or a callable "
            f"loss(targets, outputs). Received: {loss!r}."
        )
        raise ValueError(message) from error


def _raw_values(loss: Callable, target: Any, output: tf.Tensor) -> tf.Tensor:
    """Evaluate one loss without reduction, turning misfits into a `LabelError`."""
    target = tf.convert_to_tensor(target)
    if target.dtype == tf.string:
        message = (
            "Labels must be numbers (class indices, one-hot rows or targets). Received: labels "
            f"of dtype {target.dtype.name}, shape {target.shape}. Encode them first, for "
            "instance with keras.layers.StringLookup."
        )
        raise LabelError(message)
    target = _align(target, output)
    # `Loss.call` is the public hook without reduction; going through `Loss.__call__` would cast
    # float64 models to float32.
    evaluate = loss.call if isinstance(loss, keras.losses.Loss) else loss
    try:
        return tf.convert_to_tensor(evaluate(target, output))
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        message = (
            f"The labels do not fit the loss {_name(loss)}. Received: labels of shape "
            f"{target.shape} and dtype {target.dtype.name} for outputs of shape {output.shape}. "
            "Check their shape and encoding (class indices go with sparse losses, one-hot rows "
            f"with the others). The loss said: {error}"
        )
        raise LabelError(message) from error


def _align(target: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
    """Give the labels the rank of the outputs where one of them only lacks an axis of size one.

    Without this, labels ``(b,)`` against outputs ``(b, 1)`` would broadcast silently to (b, b).
    """
    if target.shape.rank is None or output.shape.rank is None:
        return target
    if target.shape.rank == output.shape.rank - 1 and output.shape[-1] == 1:
        return tf.expand_dims(target, -1)
    if target.shape.rank == output.shape.rank + 1 and target.shape[-1] == 1:
        return tf.squeeze(target, -1)
    return target


def _match_rank(weights: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Reshape weights ``(b, ...)`` so that they multiply loss values ``(b, ...)``."""
    while weights.shape.rank > values.shape.rank and weights.shape[-1] == 1:
        weights = tf.squeeze(weights, -1)
    while weights.shape.rank < values.shape.rank:
        weights = tf.expand_dims(weights, -1)
    if weights.shape.rank != values.shape.rank:
        message = (
            "Sample weights must have one value per example, or one per loss value. Received: "
            f"weights of shape {weights.shape} for losses of shape {values.shape}."
        )
        raise LabelError(message)
    return weights


def _is_nest(outputs: Any) -> bool:
    return isinstance(outputs, (dict, list, tuple))


def _as_list(outputs: Any) -> list:
    return list(outputs) if _is_nest(outputs) else [outputs]


def _spread(value: Any, keys: list, what: str, share: bool = True) -> dict:
    """Give each output its part of ``value``; a single value is shared if ``share``."""
    if value is None:
        return dict.fromkeys(keys)
    if isinstance(value, dict):
        unknown = sorted(set(value) - set(keys), key=str)
        if unknown:
            message = (
                f"The keys of `{what}` must be outputs of the model, {keys}. Received: {unknown}."
            )
            raise LabelError(message)
        return {key: value.get(key) for key in keys}
    if isinstance(value, (list, tuple)):
        if len(value) != len(keys):
            message = (
                f"`{what}` must have one part for each of the {len(keys)} outputs. "
                f"Received: {len(value)} parts."
            )
            raise LabelError(message)
        return dict(zip(keys, value, strict=True))
    if share or len(keys) == 1:
        return dict.fromkeys(keys, value)
    message = (
        f"`{what}` must be a list or dict with one part for each output, {keys}. "
        f"Received: {type(value).__name__}."
    )
    raise LabelError(message)


def _name(loss: Any) -> str:
    return str(getattr(loss, "name", None) or getattr(loss, "__name__", None) or loss)
