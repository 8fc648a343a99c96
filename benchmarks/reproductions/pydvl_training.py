"""How pyDVL's notebooks train their networks, in Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

_STEPS_PER_CALL = 50


class CosineWaves(keras.optimizers.schedules.LearningRateSchedule):
    """A cosine that falls to zero and rises again, over and over.

    The notebooks step PyTorch's cosine annealing after every batch, though its length is given in
    epochs: past its end it rises again.

    Parameters
    ----------
    peak
        The largest learning rate, which is the first.
    length
        How many steps it falls.
    """

    def __init__(self, peak: float, length: int) -> None:
        super().__init__()
        self.peak = peak
        self.length = length

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return self.peak / 2 * (1 + tf.cos(np.pi * tf.cast(step, tf.float32) / self.length))


def dense_layer(
    num_inputs: int, units: int, activation: str | None = None, weight_decay: float = 0.0
) -> keras.layers.Dense:
    """Return a dense layer that starts as PyTorch's do.

    Parameters
    ----------
    num_inputs, units, activation
        Of the layer.
    weight_decay
        What the gradient of each weight is raised by, times the weight.
    """
    limit = num_inputs**-0.5
    options: dict[str, Any] = {}
    if weight_decay:
        # Keras's L2 has no half in it.
        options["kernel_regularizer"] = keras.regularizers.L2(weight_decay / 2)
        options["bias_regularizer"] = keras.regularizers.L2(weight_decay / 2)
    return keras.layers.Dense(
        units,
        activation,
        kernel_initializer=keras.initializers.RandomUniform(-limit, limit),
        bias_initializer=keras.initializers.RandomUniform(-limit, limit),
        **options,
    )


def fit_in_order(
    model: keras.Model,
    inputs: np.ndarray,
    labels: np.ndarray,
    optimizer: keras.optimizers.Optimizer,
    loss: keras.losses.Loss,
    *,
    batch_size: int,
    epochs: int,
) -> keras.Model:
    """Train a model on batches that come in the same order every epoch, and return it.

    Parameters
    ----------
    model
        What is trained.
    inputs, labels
        Arrays of n rows.
    optimizer, loss, batch_size, epochs
        As in Keras.
    """
    batches = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(batch_size).cache()
    model.compile(optimizer, loss, steps_per_execution=_STEPS_PER_CALL)
    # All epochs are one for Keras, which saves most of the time that such small batches take.
    model.fit(batches.repeat(epochs), shuffle=False, verbose=0)
    return model
