"""Rows with recurrent layers and masks.

Second derivatives of recurrent cells take long to compile, so that curvature is that of the head.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from tests.models.case import CLASSES, ModelCase, classes, compiled, head, sequential

layers = keras.layers
STEPS, VOCABULARY = 4, 7
Layer = Callable[[], keras.layers.Layer]


def padded(generator: np.random.Generator, n: int) -> tuple:
    """Sequences of different lengths, padded by zeros."""
    x = generator.integers(1, VOCABULARY, (n, STEPS))
    x[np.arange(STEPS) >= generator.integers(1, STEPS + 1, n)[:, None]] = 0
    return x, classes(generator, n)


def tagged(generator: np.random.Generator, n: int) -> tuple:
    x, _ = padded(generator, n)
    return x, np.where(x > 0, classes(generator, n, STEPS), 0)


def measured(generator: np.random.Generator, n: int) -> tuple:
    """Sequences of measurements, padded by steps that are -1 throughout."""
    x = generator.normal(size=(n, STEPS, 2)).astype("float32")
    x[np.arange(STEPS) >= generator.integers(1, STEPS + 1, n)[:, None]] = -1.0
    return x, classes(generator, n)


def embedded(*parts: Layer, length: int | None = STEPS) -> Callable[[], keras.Model]:
    table = lambda: layers.Embedding(VOCABULARY, 3, mask_zero=True)  # noqa: E731 - as the others
    return sequential(table, *parts, head(), shape=(length,), dtype="int32")


def tagger() -> keras.Model:
    """A class for each step; Keras leaves the masked ones out of the loss."""
    inputs = keras.Input((STEPS,), dtype="int32")
    x = layers.Embedding(VOCABULARY, 3, mask_zero=True)(inputs)
    x = layers.Dense(4, activation="tanh", name="hidden")(x)
    return compiled(keras.Model(inputs, layers.Dense(CLASSES, name="head")(x)))


def recurrent(id: str, layer: Layer, **options: object) -> ModelCase:
    return ModelCase(id, embedded(layer), padded, ("head/",), **options)


CASES = [
    ModelCase("masked-steps", tagger, tagged, ("head/",)),
    ModelCase(
        "masked-average", embedded(layers.GlobalAveragePooling1D), padded, ("embedding", "head/")
    ),
    recurrent("gru-with-mask", lambda: layers.GRU(3)),
    recurrent("lstm-with-mask", lambda: layers.LSTM(3)),
    recurrent("bidirectional-lstm", lambda: layers.Bidirectional(layers.LSTM(2))),
    recurrent("simple-rnn", lambda: layers.SimpleRNN(3)),
    ModelCase(
        "stacked-gru",
        embedded(lambda: layers.GRU(3, return_sequences=True), lambda: layers.GRU(2)),
        padded,
        ("head/",),
    ),
    ModelCase(
        "masking-of-measurements",
        sequential(lambda: layers.Masking(-1.0), lambda: layers.LSTM(3), head(), shape=(STEPS, 2)),
        measured,
        ("head/",),
    ),
    ModelCase(
        "lstm-for-each-step",
        embedded(lambda: layers.LSTM(3, return_sequences=True)),
        tagged,
        ("head/",),
    ),
    ModelCase(
        "convolutional-lstm",
        sequential(
            lambda: layers.ConvLSTM1D(2, 2),
            layers.Flatten,
            head(),
            shape=(3, 4, 1),
        ),
        lambda generator, n: (
            generator.normal(size=(n, 3, 4, 1)).astype("float32"),
            classes(generator, n),
        ),
        ("head/",),
    ),
]
