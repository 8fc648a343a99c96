"""TRAK as a dense implementation in NumPy, and networks and data small enough for it."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from deel_influence.gradients.projections import Projection
from deel_influence.model import BaseInfluenceModel

layers = keras.layers
N, M, CLASSES = 30, 5, 3


def data(n: int = N, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, 4)), generator.integers(0, CLASSES, n)


def batches(n: int = N, seed: int = 0, size: int = 8) -> tf.data.Dataset:
    """Batches of unknown number, the last of which is partial."""
    dataset = tf.data.Dataset.from_tensor_slices(data(n, seed))
    return dataset.batch(size).filter(lambda *_: True)


TRAIN, QUERIES = (N, 0), (M, 1)


def network(activation: str | None = None) -> keras.Model:
    """A functional network with a skip."""
    inputs = keras.Input((4,))
    x = layers.Dense(5, activation="tanh")(inputs)
    y = layers.Add()([x, layers.Dense(5, activation="tanh")(x)])
    return keras.Model(inputs, layers.Dense(CLASSES, activation)(y))


def wrapped(net: keras.Model) -> BaseInfluenceModel:
    from_logits = net.layers[-1].activation is keras.activations.linear
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    return BaseInfluenceModel(net, loss_function=loss)


def margins(net: keras.Model, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return gradient rows ``(n, p)`` of ``log π_y - log(1 - π_y)``, and ``1 - π_y``."""
    rows, pulls = [], []
    for i, label in enumerate(y):
        values = [v.value for v in net.trainable_variables]
        with tf.GradientTape() as tape:
            outputs = net(x[i : i + 1])[0]
            is_probable = net.layers[-1].activation is keras.activations.softmax
            correct = (outputs if is_probable else tf.nn.softmax(outputs))[label]
            value = tf.math.log(correct) - tf.math.log(1 - correct)
        parts = tape.gradient(value, values, unconnected_gradients="zero")
        rows.append(np.concatenate([np.ravel(tf.convert_to_tensor(part)) for part in parts]))
        pulls.append(1 - float(correct))
    return np.stack(rows), np.array(pulls)


def dense_trak(
    nets: list[keras.Model], matrices: list[np.ndarray], damping: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores ``(m, n)`` and ``(n, n)`` of queries and training set.

    The matrices P are ``(k, p)``, one for each network.
    """
    x, y = (np.concatenate(parts) for parts in zip(data(*TRAIN), data(*QUERIES), strict=True))
    products, pulls = [], []
    for net, matrix in zip(nets, matrices, strict=True):
        rows, pull = margins(net, x, y)
        features, train = rows @ matrix.T, rows[:N] @ matrix.T
        kernel = train.T @ train + damping * np.eye(len(matrix))
        products.append(features @ np.linalg.inv(kernel) @ train.T)
        pulls.append(pull[:N])
    scores = np.mean(products, axis=0) * np.mean(pulls, axis=0)
    return scores[N:], scores[:N]


def matrix_of(projection: Projection) -> np.ndarray:
    return projection.apply(np.eye(projection.layout.size)).numpy().T
