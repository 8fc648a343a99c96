"""The small convolutional network of the demonstration."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers
from tqdm.auto import tqdm

_BATCH_SIZE = 64
# Weight decay and dropout keep the network from learning wrong labels by heart: what it has
# learned by heart it no longer finds strange.
_WEIGHT_DECAY = 1e-3
_DROPOUT = 0.3


def digits_network() -> keras.Model:
    """Return the untrained network: images ``(b, 8, 8, 1)`` in 0..255 to logits ``(b, 10)``."""
    decay = keras.regularizers.L2(_WEIGHT_DECAY)
    convolution = {"padding": "same", "activation": "relu", "kernel_regularizer": decay}
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, **convolution),
            layers.Conv2D(32, 3, **convolution),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(_DROPOUT),
            layers.Dense(64, activation="relu", kernel_regularizer=decay),
            layers.Dense(10, kernel_regularizer=decay, name="logits"),
        ],
        name="digits_network",
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss)
    return model


def train_digits_network(
    images: np.ndarray,
    labels: np.ndarray,
    epochs: int,
    seed: int,
    show_progress: bool | None = None,
) -> keras.Model:
    """Return the network trained on the digits, under a progress bar.

    Parameters
    ----------
    images
        Images, shape ``(n, 8, 8, 1)``, in 0..255.
    labels
        Labels, shape ``(n,)``, possibly wrong.
    epochs
        Passes over the data.
    seed
        Seed of the first weights, the order of the examples and the dropout.
    show_progress
        Whether to show the bar; None shows it on a terminal only.
    """
    # Seeded here, because preparing the digits, which happens once, draws random numbers too.
    keras.utils.set_random_seed(seed)
    model = digits_network()
    disable = None if show_progress is None else not show_progress
    for epoch in tqdm(range(epochs), desc="Training", unit="epoch", disable=disable):
        model.fit(
            images,
            labels,
            batch_size=_BATCH_SIZE,
            initial_epoch=epoch,
            epochs=epoch + 1,
            verbose=0,
        )
    return model
