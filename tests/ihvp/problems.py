"""Small problems with dense curvature, on which strategies are checked."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from deel_influence.curvature import CURVATURES, regularizer_hessian
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from tests.oracles import gradient_rows

layers = keras.layers
N, FEATURES, CLASSES = 30, 4, 3


def data(n: int = N) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(n, FEATURES)), generator.integers(0, CLASSES, n)


def batches(size: int = 8, n: int = N) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(data(n)).batch(size)


def streamed() -> tf.data.Dataset:
    """Batches of another size, of unknown number."""
    return batches().unbatch().batch(7).filter(lambda *_: True).prefetch(1)


def queries(m: int = 5) -> tf.data.Dataset:
    generator = np.random.default_rng(7)
    x, y = generator.normal(size=(m, FEATURES)), generator.integers(0, CLASSES, m)
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(2)


def convex() -> InfluenceModel:
    """Logistic regression with an L2 regulariser."""
    head = layers.Dense(CLASSES, kernel_regularizer=keras.regularizers.L2(0.02))
    model = keras.Sequential([keras.Input((FEATURES,)), head])
    return _wrapped(model)


def skips() -> BaseInfluenceModel:
    """A functional network with a skip, far from a minimum: its Hessian is indefinite."""
    inputs = keras.Input((FEATURES,))
    x = layers.Dense(5, activation="tanh")(inputs)
    y = layers.Dense(5, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.01))(x)
    return _wrapped(keras.Model(inputs, layers.Dense(CLASSES)(layers.Add()([x, y]))))


def _wrapped(model: keras.Model) -> BaseInfluenceModel:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return BaseInfluenceModel(model, loss_function=loss)


PROBLEMS = {"convex": convex, "skips": skips}


def dense(model: BaseInfluenceModel, kind: str, seed: int | None = None) -> np.ndarray:
    """Return the curvature with the regulariser, from products with all unit vectors."""
    options = {"seed": seed} if kind == "fisher" else {}
    operator = CURVATURES[kind](model, batches(), **options)
    return operator.to_dense() + regularizer_hessian(model)


def right_hand_sides(model: BaseInfluenceModel, k: int = 4) -> np.ndarray:
    """Return gradients, and one vector that is none."""
    other = np.random.default_rng(3).normal(size=(1, model.nb_params))
    return np.concatenate([gradient_rows(model, *data(k)), other])


def damping_for(model: BaseInfluenceModel, damping: object) -> tuple[object, np.ndarray]:
    """Return a damping that fits the model, and its diagonal."""
    if not isinstance(damping, tuple):
        return damping, np.full(model.nb_params, damping)
    values = damping[: len(model.layout.blocks)]
    sizes = [block.size for block in model.layout.blocks]
    return values, np.repeat(values, sizes)
