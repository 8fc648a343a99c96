"""Small fits, and what they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_influence.model import BaseInfluenceModel
from deel_influence.training_dynamics import RecordedDynamics, TrainingDynamics

layers = keras.layers
N, BATCH, CLASSES = 23, 8, 3
SPARSE = keras.losses.SparseCategoricalCrossentropy


def data(n: int = N, features: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(n, features)).astype(keras.config.floatx())
    return x, generator.integers(0, CLASSES, n)


def batches(*arrays: np.ndarray, size: int = 5) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


def classifier(dropout: float = 0.0, **options: object) -> keras.Model:
    """Return a compiled network, the same at each call."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, "tanh"),
            *([layers.Dropout(dropout)] if dropout else []),
            layers.Dense(CLASSES),
        ]
    )
    options = {"jit_compile": False, **options}
    model.compile(keras.optimizers.SGD(0.5), SPARSE(from_logits=True), **options)
    return model


def fit(
    model: keras.Model, *callbacks: keras.callbacks.Callback, epochs: int = 3, **options: object
) -> keras.Model:
    """Fit to the data in batches of which the last is partial; the order is the same each time."""
    keras.utils.set_random_seed(1)
    options = {"batch_size": BATCH, "verbose": 0, **options}
    model.fit(*data(), epochs=epochs, callbacks=list(callbacks), **options)
    return model


def wrapped(model: keras.Model) -> BaseInfluenceModel:
    return BaseInfluenceModel(model)


def same_record(left: RecordedDynamics, right: RecordedDynamics) -> bool:
    fields = ("names", "epochs", "keys", "values", "next_epoch")
    return all(np.array_equal(getattr(left, f), getattr(right, f)) for f in fields)


def weights_of(model: keras.Model) -> np.ndarray:
    return np.concatenate([np.ravel(v.numpy()) for v in model.weights])


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def statistics_of(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return margin, loss and error ``(b, 3)`` from logits ``(b, c)``, the slow way."""
    rows = []
    for logits, label, p in zip(z, y, softmax(z), strict=True):
        other = max(value for j, value in enumerate(logits) if j != label)
        onehot = np.eye(len(logits))[label]
        rows.append((logits[label] - other, -np.log(p[label]), np.linalg.norm(p - onehot)))
    return np.array(rows)


def softmax_regression(
    x: np.ndarray, y: np.ndarray, kernel: np.ndarray, epochs: int, rate: float
) -> np.ndarray:
    """Train by hand in the order of the data; return ``(epochs, n, 3)`` before each update."""
    kernel, bias, history = kernel.copy(), np.zeros(CLASSES), []
    for _ in range(epochs):
        rows = []
        for start in range(0, len(x), BATCH):
            part, labels = x[start : start + BATCH], y[start : start + BATCH]
            z = part @ kernel + bias
            rows.append(statistics_of(z, labels))
            delta = (softmax(z) - np.eye(CLASSES)[labels]) / len(part)
            kernel -= rate * part.T @ delta
            bias -= rate * delta.sum(axis=0)
        history.append(np.concatenate(rows))
    return np.stack(history)


def forgotten(right: np.ndarray) -> Sequence[float]:
    """Count the changes from right to wrong of ``(t, n)``, the slow way."""
    scores = []
    for column in right.T:
        steps = list(zip(column[:-1], column[1:], strict=True))
        events = sum(bool(before and not after) for before, after in steps)
        scores.append(float(events) if column.any() else float(len(column)))
    return scores


def recorded_copy(
    model: BaseInfluenceModel,
    dataset: tf.data.Dataset,
    recorder_of: Callable[[BaseInfluenceModel], Any] = lambda _: TrainingDynamics(),
) -> Any:
    """Train a copy of a model for two epochs and return what was recorded."""
    copy = keras.models.clone_model(model.model)
    copy.compile(keras.optimizers.SGD(0.5), model.loss_function.loss, run_eagerly=True)
    dynamics = recorder_of(BaseInfluenceModel(copy))
    copy.fit(dataset, epochs=2, shuffle=False, verbose=0, callbacks=[dynamics])
    return dynamics
