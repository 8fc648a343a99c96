from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.gradients import GradientEngine, fallback
from deel_influence.model import BaseInfluenceModel

layers = keras.layers
SHAPE = (4, 6)


class Scale(layers.Layer):
    """A layer with a weight of its own, which no rule serves."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x * self.scale


class OwnProduct(layers.Layer):
    """A layer that multiplies each step by a matrix, as users write it."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.matrix = self.add_weight(shape=(shape[-1], 3))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.matmul(x, self.matrix)


def projection() -> list[keras.layers.Layer]:
    return [layers.EinsumDense("btd,de->bte", (SHAPE[0], 3)), Scale()]


def attention() -> list[keras.layers.Layer]:
    inputs = keras.Input(SHAPE)
    return [keras.Model(inputs, layers.MultiHeadAttention(2, 3)(inputs, inputs)), Scale()]


def wrapped(parts: list[keras.layers.Layer]) -> BaseInfluenceModel:
    model = keras.Sequential([keras.Input(SHAPE), *parts, layers.Flatten(), layers.Dense(2)])
    return BaseInfluenceModel(model, loss_function="mse")


def batch(n: int = 5) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.random.normal((n, *SHAPE)), tf.random.normal((n, 2))


def broken_products(model: BaseInfluenceModel) -> list[tuple]:
    """Return the shapes of products that TensorFlow computes beyond its buffers.

    These are ``(b, 1, t, i)`` by fewer matrices.
    """
    engine = GradientEngine(model)
    rows = tf.function(engine.plan.fallback_rows, autograph=False).get_concrete_function(batch())
    products = [
        [tuple(tensor.shape) for tensor in op.inputs]
        for op in rows.graph.get_operations()
        if op.type.startswith("BatchMatMul")
    ]
    return [
        (left, right)
        for left, right in products
        if len(left) == 4 and left[1] == 1 and right[:-2] != left[:-2]
    ]


@pytest.mark.parametrize(
    "parts", [projection, attention, lambda: [OwnProduct()]], ids=["projection", "attention", "own"]
)
def test_no_product_of_an_example_alone_is_written_beyond_its_buffer(
    parts: Callable[[], list[keras.layers.Layer]], monkeypatch: pytest.MonkeyPatch
):
    model = wrapped(parts())
    assert broken_products(model) == []
    monkeypatch.setattr(fallback, "copies_of_example", lambda *_: 1)
    assert broken_products(model) != []


def test_copies_leave_the_gradients_as_they_are():
    model, data = wrapped([OwnProduct()]), batch()
    engine = GradientEngine(model)
    rows = tf.concat(engine.plan.fallback_rows(data), axis=1)
    for i, row in enumerate(rows):
        alone = tf.nest.map_structure(lambda t, i=i: t[i : i + 1], data)
        variables = [v.value for v in engine.fallback_variables]
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model.per_example_losses(alone))
        expected = tf.concat([tf.reshape(g, -1) for g in tape.gradient(loss, variables)], 0)
        # Some ten terms in another order.
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_models_without_such_products_get_one_copy():
    model = wrapped([layers.GRU(3, return_sequences=True), Scale()])
    assert fallback.copies_of_example(model.per_example_losses, batch()) == 1
