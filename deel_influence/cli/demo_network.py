"""The small convolutional network of the demonstration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    callbacks: Sequence[keras.callbacks.Callback] = (),
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
    callbacks
        What watches the training.
    """
    # Seeded here, so that the network does not depend on what was drawn before.
    keras.utils.set_random_seed(seed)
    model = digits_network()
    bar = _Bar(None if show_progress is None else not show_progress)
    model.fit(
        images,
        labels,
        batch_size=_BATCH_SIZE,
        epochs=epochs,
        verbose=0,
        callbacks=[bar, *callbacks],
    )
    return model


class _Bar(keras.callbacks.Callback):
    """A progress bar over the epochs.

    Parameters
    ----------
    disable
        As in tqdm: None shows it on a terminal only.
    """

    def __init__(self, disable: bool | None) -> None:
        super().__init__()
        self._disable = disable

    def on_train_begin(self, logs: Any = None) -> None:
        """Show the bar."""
        self._bar = tqdm(
            total=self.params["epochs"], desc="Training", unit="epoch", disable=self._disable
        )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Move it on."""
        self._bar.update()

    def on_train_end(self, logs: Any = None) -> None:
        """Close it."""
        self._bar.close()
