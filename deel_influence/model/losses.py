"""The loss of each example, made from any Keras loss whatever its reduction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from ..errors import LabelError, LossShapeError, MissingLossError
from ..utils.running import reason_of
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
        Positions that Keras masks, in the outputs or in the loss (``ignore_class``), are left out
        of either.
    output_names
        Names of the outputs, by which dicts of losses, weights and targets refer to them where
        the model returns a list.
    argument
        What messages call the loss.

    Attributes
    ----------
    has_positions, has_masked_positions
        Whether loss values with axes beyond the batch were met so far, and masks of them.
    """

    def __init__(
        self,
        loss: Any,
        loss_weights: Any = None,
        over_positions: str = "sum",
        output_names: Sequence[str] | None = None,
        argument: str = "loss_function",
    ) -> None:
        if over_positions not in ("sum", "mean"):
            message = (
                'Argument `loss_over_positions` must be "sum" or "mean". '
                f"Received: {over_positions!r}."
            )
            raise ValueError(message)
        self.loss = _resolve(loss)
        self.loss_weights = loss_weights
        self.over_positions = over_positions
        self.output_names = list(output_names or [])
        self.argument = argument
        self.has_positions = False
        self.has_masked_positions = False

    @property
    def description(self) -> str:
        """What messages call the loss: what it stands for, and its name or names."""
        names = sorted({_name(part) for part in tf.nest.flatten(self.loss) if part is not None})
        what = "loss" if self.argument == "loss_function" else self.argument
        return f"{what} {', '.join(names)}"

    def __call__(self, targets: Any, outputs: Any, sample_weight: Any = None) -> tf.Tensor:
        """Return the losses ``(b,)``, in the outputs' dtype or float32, whichever is wider."""
        nests = (self.loss, outputs, targets, sample_weight)
        if self.loss_weights is None and not any(_is_nest(part) for part in nests):
            return self._one_output(self.loss, targets, outputs, sample_weight)
        total = None
        for loss, weight, target, output, importance in self.per_output(
            targets, outputs, sample_weight
        ):
            values = self._one_output(loss, target, output, importance)
            values = values if weight is None else values * tf.cast(weight, values.dtype)
            total = values if total is None else total + values
        if total is None:
            message = (
                f"Argument `{self.argument}` must give a loss to at least one output of the model. "
                f"Received: {self.loss!r}."
            )
            raise MissingLossError(message)
        return total

    def per_output(self, targets: Any, outputs: Any, sample_weight: Any) -> list[tuple]:
        """Line up loss, weight, target, output and sample weight of each output with a loss.

        Parameters
        ----------
        targets, outputs, sample_weight
            Those of a batch, in any nest.
        """
        nests = (self.loss, self.loss_weights, targets, outputs, sample_weight)
        return _lined_up(*nests, self.output_names)

    def _one_output(
        self, loss: Callable, target: Any, output: tf.Tensor, sample_weight: Any
    ) -> tf.Tensor:
        mask = keras_mask(output)
        output = tf.convert_to_tensor(output)
        if output.dtype in (tf.float16, tf.bfloat16):
            output = tf.cast(output, tf.float32)
        values = self._raw_values(loss, target, output)
        self._check_shape(values, output)
        return self._reduce(values, output, sample_weight, [mask, keras_mask(values)])

    def _raw_values(self, loss: Callable, target: Any, output: tf.Tensor) -> tf.Tensor:
        """Evaluate one loss without reduction, turning misfits into a `LabelError`."""
        target = tf.convert_to_tensor(target)
        if target.dtype == tf.string:
            message = (
                "Labels must be numbers (class indices, one-hot rows or targets). Received: labels "
                f"of dtype {target.dtype.name}, shape {target.shape}. Encode them first, for "
                "instance with keras.layers.StringLookup."
            )
            raise LabelError(message)
        # As `fit` does, so that integer labels meet losses written for floats.
        target = _align(tf.cast(target, output.dtype), output)
        # `Loss.call` is the public hook without reduction; going through `Loss.__call__` would
        # cast float64 models to float32.
        evaluate = loss.call if isinstance(loss, keras.losses.Loss) else loss
        try:
            return tf.convert_to_tensor(evaluate(target, output))
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            is_loss = self.argument == "loss_function"
            what = "loss" if is_loss else self.argument
            remedy = (
                "Check their shape and encoding (class indices go with sparse losses, one-hot "
                "rows with the others)"
                if is_loss
                else f"Argument `{self.argument}` must be a function of labels and outputs that "
                "returns a tensor of numbers, shape (b,)"
            )
            message = (
                f"The labels do not fit the {what} {_name(loss)}. Received: labels of shape "
                f"{target.shape} for outputs of shape {output.shape}. {remedy}. "
                f"The {what} said: {reason_of(error)}."
            )
            raise LabelError(message) from error

    def _check_shape(self, values: tf.Tensor, output: tf.Tensor) -> None:
        """Refuse loss values that cannot be those of single examples."""
        size = output.shape[0] if output.shape.rank else None
        if values.dtype in (tf.string, tf.bool) or values.dtype.is_complex:
            found = f"values of dtype {values.dtype.name}"
            remedy = "so that it returns real numbers"
        elif values.shape.rank == 0:
            found, remedy = "a scalar, already reduced over the batch", 'with reduction="none"'
        elif size is not None and values.shape[0] not in (None, size):
            found = f"shape {tuple(values.shape)} for a batch of {size}"
            remedy = "so that axes beyond the first alone are reduced"
        else:
            return
        if self.argument == "loss_function":
            remedy = f"Pass a Keras loss object, or build yours {remedy}."
        else:
            remedy = "Return a tensor with the examples first, such as outputs[:, 0]."
        message = (
            f"Argument `{self.argument}` must return one number per example, shape (b,) or more "
            f"axes. Received: a function that returns {found}. {remedy}"
        )
        raise LossShapeError(message)

    def _reduce(
        self, values: tf.Tensor, output: tf.Tensor, sample_weight: Any, masks: Sequence[Any]
    ) -> tf.Tensor:
        """Weigh, mask and add up loss values ``(b, ...)`` into ``(b,)``."""
        counted = None
        for mask in masks:
            if mask is not None:
                factor = _match_rank(tf.cast(mask, values.dtype), values)
                values = values * factor
                counted = factor if counted is None else counted * factor
        if sample_weight is not None:
            weights = tf.cast(tf.convert_to_tensor(sample_weight), values.dtype)
            values = values * _match_rank(weights, values)
        if values.shape.rank == 1:
            return values
        self.has_positions = True
        self.has_masked_positions |= counted is not None
        if counted is not None:
            counted = tf.reshape(counted * tf.ones_like(values), (tf.shape(output)[0], -1))
        values = tf.reshape(values, (tf.shape(output)[0], -1))
        total = tf.reduce_sum(values, axis=1)
        if self.over_positions == "sum":
            return total
        if counted is None:
            return total / tf.cast(tf.shape(values)[1], total.dtype)
        return tf.math.divide_no_nan(total, tf.reduce_sum(counted, axis=1))


def _resolve(loss: Any) -> Any:
    """Turn names into losses, in a single loss or in a list or dict of them."""
    if loss is None:
        message = (
            "The model must have a loss. Received: a model that has no loss. Pass "
            "`loss_function=` (a Keras loss, its name, or a callable), or compile the model first: "
            "model.compile(loss=...)."
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


def _lined_up(
    loss: Any, weight: Any, target: Any, output: Any, importance: Any, names: Sequence[str] = ()
) -> list[tuple]:
    """Line up loss, weight, target, output and sample weight of all single outputs in a nest."""
    if isinstance(output, dict):
        keys, given = list(output), list(output.values())
    else:
        given = _as_list(output)
        keys = list(names) if len(names) == len(given) else list(range(len(given)))
    ordered = not isinstance(output, dict)
    nests = [_packed(nest, output, names) for nest in (loss, weight, target, importance)]
    parts = zip(
        _spread(nests[0], keys, "loss_function", ordered),
        _spread(nests[1], keys, "loss_weights", ordered),
        _spread(nests[2], keys, "targets", ordered, share=False),
        given,
        _spread(nests[3], keys, "sample_weight", ordered),
        strict=True,
    )
    found = []
    for key, part in zip(keys, parts, strict=True):
        if part[0] is None:
            continue
        if _is_nest(part[3]):
            found += _lined_up(part[0], part[1], part[2], part[3], part[4])
        elif _is_nest(part[0]):
            raise _no_single_loss(key, part[0])
        else:
            found.append(part)
    return found


def _packed(nest: Any, output: Any, names: Sequence[str]) -> Any:
    """Give a flat list, or a dict by names, the form of a nest of nests of outputs."""
    parts = output.values() if isinstance(output, dict) else _as_list(output)
    count = len(tf.nest.flatten(output))
    if not any(map(_is_nest, parts)):
        return nest
    if isinstance(nest, dict) and set(nest) == set(names) and len(names) == count:
        nest = [nest[name] for name in names]
    is_flat = isinstance(nest, (list, tuple)) and not any(map(_is_nest, nest))
    return tf.nest.pack_sequence_as(output, nest) if is_flat and len(nest) == count else nest


def _no_single_loss(key: Any, loss: Any) -> LabelError:
    kind = "dict" if isinstance(loss, dict) else "list"
    message = (
        f"Argument `loss_function` must have one loss for each output. Received: a {kind} of "
        f"{len(loss)} for the single output {key!r}. Pass the loss itself, as in {{'a': loss}}; "
        "several of one output are added up in a function of labels and outputs."
    )
    return LabelError(message)


def _is_nest(outputs: Any) -> bool:
    return isinstance(outputs, (dict, list, tuple))


def _as_list(outputs: Any) -> list:
    return list(outputs) if _is_nest(outputs) else [outputs]


def _spread(value: Any, keys: list, what: str, ordered: bool, share: bool = True) -> list:
    """Return the part of ``value`` for each output; a single value is shared if ``share``."""
    if value is None:
        return [None] * len(keys)
    if isinstance(value, dict):
        unknown = sorted(set(value) - set(keys), key=str)
        if unknown:
            message = (
                f"The keys of `{what}` must be outputs of the model, {keys}. Received: {unknown}."
            )
            raise LabelError(message)
        return [value.get(key) for key in keys]
    if isinstance(value, (list, tuple)):
        if not ordered or len(value) != len(keys):
            rule = f"be a dict with keys among {keys}" if not ordered else f"have {len(keys)} parts"
            message = (
                f"`{what}` must {rule}, one for each output of the model. Received: a list of "
                f"{len(value)}. Name the parts by output, or pass one for each."
            )
            raise LabelError(message)
        return list(value)
    if share or len(keys) == 1:
        return [value] * len(keys)
    message = (
        f"`{what}` must be a list or dict with one part for each output, {keys}. "
        f"Received: {type(value).__name__}."
    )
    raise LabelError(message)


def _name(loss: Any) -> str:
    return str(getattr(loss, "name", None) or getattr(loss, "__name__", None) or loss)
