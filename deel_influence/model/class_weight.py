"""Class weights as `fit` takes them, made into sample weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import LabelError
from ..types import Batch, BatchProcessor, ProcessedBatch


def with_class_weight(
    process: BatchProcessor, class_weight: Mapping[int, float] | None
) -> BatchProcessor:
    """Return a processor of batches that gives each example the weight of its class.

    Parameters
    ----------
    process
        Turns what the dataset yields into ``(inputs, targets, sample_weight or None)``.
    class_weight
        Finite factors of at least 0 by class; classes that are left out have 1. None changes
        nothing.

    Raises
    ------
    ValueError
        If it is no such dict.
    LabelError
        While reading a batch with sample weights, which `fit` does not take beside class weights,
        or with targets that are no labels of one output.
    """
    if class_weight is None:
        return process
    table = tf.constant(_table(class_weight), keras.config.floatx())

    def weighted(batch: Batch) -> ProcessedBatch:
        inputs, targets, sample_weight = process(batch)
        if sample_weight is not None:
            message = (
                "Argument `class_weight` must be None for data with sample weights, as in `fit`. "
                "Received: both. Multiply them in the dataset."
            )
            raise LabelError(message)
        classes = _classes(targets)
        known = classes < tf.shape(table)[0]
        factors = tf.gather(table, tf.where(known, classes, 0))
        return inputs, targets, tf.where(known, factors, tf.ones_like(factors))

    return weighted


def _table(class_weight: Any) -> np.ndarray:
    """Return the factors of the classes from 0 to the highest that is named."""
    good = isinstance(class_weight, Mapping) and bool(class_weight)
    if good:
        keys, values = list(class_weight), list(class_weight.values())
        good = all(_is_class(key) for key in keys) and all(_is_factor(value) for value in values)
    if not good:
        message = (
            "Argument `class_weight` must be a dict from class indices to finite factors >= 0. "
            f"Received: {class_weight!r}."
        )
        raise ValueError(message)
    table = np.ones(max(keys) + 1)
    table[keys] = values
    return table


def _is_class(key: Any) -> bool:
    whole = isinstance(key, (int, np.integer)) and not isinstance(key, bool)
    return bool(whole and key >= 0)


def _is_factor(value: Any) -> bool:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return bool(number and np.isfinite(value) and value >= 0)


def _classes(targets: Any) -> tf.Tensor:
    """Return class indices, int32, shape ``(b,)``, of indices ``(b,)``, ``(b, 1)`` or one-hot."""
    if tf.nest.is_nested(targets):
        message = (
            "Argument `class_weight` needs a model with one output, as in `fit`. Received: targets "
            f"in a {type(targets).__name__}. Pass sample weights by output in the dataset."
        )
        raise LabelError(message)
    targets = tf.convert_to_tensor(targets)
    if targets.shape.rank == 2 and targets.shape[1] != 1:
        return tf.argmax(targets, axis=1, output_type=tf.int32)
    if targets.shape.rank not in (1, 2):
        message = (
            "Argument `class_weight` needs one label for each example. Received: targets of shape "
            f"{targets.shape}. Pass sample weights for each position in the dataset."
        )
        raise LabelError(message)
    labels = tf.reshape(targets, (-1,))
    return tf.cast(tf.round(labels) if labels.dtype.is_floating else labels, tf.int32)
