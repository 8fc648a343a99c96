"""The one place that reads what Keras keeps private, because no public way exists.

`tests/model/test_keras_internals.py` fails when an upgrade of Keras takes these away.
"""

from __future__ import annotations

import keras
import tensorflow as tf


def keras_mask(tensor: tf.Tensor) -> tf.Tensor | None:
    """Return the mask that Keras attached to an output, or None.

    The losses of Keras leave out masked positions, so an exact per-example loss must too; layers
    pass masks on as an attribute of their outputs, for which Keras has no public reader.
    """
    return getattr(tensor, "_keras_mask", None)


def copy_keras_mask(source: tf.Tensor, target: tf.Tensor) -> None:
    """Give ``target`` the mask of ``source``, if it has one."""
    mask = keras_mask(source)
    if mask is not None:
        target._keras_mask = mask


def is_decayed(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> bool:
    """Tell whether the weight decay of an optimizer reaches a variable.

    `Optimizer.exclude_from_weight_decay` writes what has no public reader. Keras asks it with the
    variable of TensorFlow, and so with other names and identities than it was told.
    """
    return bool(optimizer._use_weight_decay(variable.value))


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the model and every layer inside it, however deeply nested, each once.

    `tf.train.TrackableView`, the public way, does not see layers kept in lists and dicts.
    """
    return list(model._flatten_layers())
