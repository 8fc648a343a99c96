"""Inputs of every type that Keras's layers take, against plain autodiff of Keras's own loss."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.gradients import GradientEngine
from deel_influence.ihvp import IHVPCalculator
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from tests.oracles import assert_close

layers = keras.layers
B = 6
# In float32 and in another order of summation than autodiff's.
RTOL = 1e-5

RULED = {
    "Dense": (lambda: layers.Dense(3), (4,)),
    "Dense on positions": (lambda: layers.Dense(3), (3, 4)),
    "EinsumDense": (lambda: layers.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"), (3, 4)),
    "BatchNormalization": (layers.BatchNormalization, (4,)),
    "Embedding": (lambda: layers.Embedding(5, 3), (4,)),
}


class Plain(keras.Model):
    """A subclassed model, which gets its inputs as they are: Keras casts no integers."""

    def __init__(self, *parts: layers.Layer) -> None:
        super().__init__()
        self.parts = list(parts)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        for part in self.parts:
            inputs = part(inputs)
        return inputs


def gradients_alone(model: keras.Model, x: tf.Tensor, y: np.ndarray) -> np.ndarray:
    """Return the gradients ``(b, p)`` of the loss that Keras computes of each example alone."""
    values, rows = [v.value for v in model.trainable_variables], []
    for i in range(len(y)):
        with tf.GradientTape() as tape:
            outputs = model(x[i : i + 1], training=False)
            loss = model.compute_loss(x[i : i + 1], y[i : i + 1], outputs)
        gradients = tape.gradient(loss, values, unconnected_gradients="zero")
        rows.append(np.concatenate([np.ravel(tf.convert_to_tensor(g)) for g in gradients]))
    return np.stack(rows)


def check(model: keras.Model, x: tf.Tensor) -> None:
    outputs = model(x)
    y = np.random.default_rng(1).normal(size=outputs.shape).astype("float32")
    model.compile("sgd", "mse")
    engine = GradientEngine(BaseInfluenceModel(model, loss_over_positions="mean"))
    engine.prepare((x, y))
    found = tf.function(lambda: engine.gradients((x, y)).materialize())()
    assert not engine.fallback_variables
    assert_close(found, gradients_alone(model, x, y), RTOL)


@pytest.mark.parametrize(
    "dtype", ["int64", "int32", "int8", "uint8", "uint16", "bool", "float16", "float64"]
)
@pytest.mark.parametrize("case", RULED.values(), ids=RULED)
def test_every_rule_takes_the_types_that_its_layer_takes(case, dtype):
    make, shape = case
    values = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 5, (B, *shape))
    model = Plain(make(), layers.Flatten(), layers.Dense(2))
    check(model, tf.constant(values.astype(dtype)))


def test_pictures_of_bytes_are_taken_as_numbers():
    pictures = np.random.default_rng(0).integers(0, 256, (B, 3, 3, 1)).astype("uint8")
    inputs = keras.Input((3, 3, 1), dtype="uint8")
    check(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(inputs))), tf.constant(pictures))


def test_indices_beyond_what_a_float_holds_stay_what_they_are():
    rows = 2**24 + 4
    embedding = layers.Embedding(rows, 1, embeddings_initializer="zeros")
    model = Plain(embedding, layers.Flatten())
    x = np.array([[rows - 1], [rows - 2], [rows - 3]])
    model(x)
    engine = GradientEngine(BaseInfluenceModel(model, loss_function="mse"))
    batch = (tf.constant(x), np.ones((3, 1), "float32"))
    # The gradient is that of one row each: -2 · 1, and only equal rows have a product.
    engine.prepare(tuple(part[:1] for part in batch))
    products = engine.plan.gradients(batch)
    np.testing.assert_allclose(products.inner(products), 4 * np.eye(3))


def text_encoder(mode: str) -> Callable[[], layers.Layer]:
    def make() -> layers.Layer:
        layer = layers.TextVectorization(output_mode=mode)
        layer.adapt(np.array(["a b c a", "b d", "c c e"]))
        return layer

    return make


TEXTS = np.array([["a b"], ["c c d"], ["e"], ["a a a b"], ["d e b"], ["c"]])
NAMES = np.array([["a"], ["b"], ["c"], ["z"], ["b"], ["a"]])
NUMBERS = np.array([[1], [2], [4], [9], [2], [1]])
ENCODERS = {
    "TextVectorization multi_hot": (text_encoder("multi_hot"), TEXTS, "string"),
    "TextVectorization count": (text_encoder("count"), TEXTS, "string"),
    "TextVectorization tf_idf": (text_encoder("tf_idf"), TEXTS, "string"),
    "StringLookup one_hot": (
        lambda: layers.StringLookup(vocabulary=["a", "b", "c"], output_mode="one_hot"),
        NAMES,
        "string",
    ),
    "IntegerLookup one_hot": (
        lambda: layers.IntegerLookup(vocabulary=[1, 2, 4], output_mode="one_hot"),
        NUMBERS,
        "int64",
    ),
    "IntegerLookup count": (
        lambda: layers.IntegerLookup(vocabulary=[1, 2, 4], output_mode="count"),
        NUMBERS,
        "int64",
    ),
    "CategoryEncoding": (
        lambda: layers.CategoryEncoding(10, output_mode="multi_hot"),
        NUMBERS,
        "int64",
    ),
    "Discretization": (
        lambda: layers.Discretization([1.5, 3.0], output_mode="one_hot"),
        NUMBERS.astype("float32"),
        "float32",
    ),
}


@pytest.mark.parametrize("case", ENCODERS.values(), ids=ENCODERS)
def test_what_encodes_texts_and_categories_may_stand_before_a_dense_layer(case):
    make, values, dtype = case
    model = keras.Sequential([keras.Input((1,), dtype=dtype), make(), layers.Dense(2)])
    check(model, tf.constant(values))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("strategy", [member.value.name for member in IHVPCalculator])
def test_counts_score_as_the_same_numbers_do_as_floats(strategy):
    generator = np.random.default_rng(0)
    counts, labels = generator.integers(0, 4, (12, 3)), generator.integers(0, 2, 12)
    model = Plain(layers.Dense(2))
    model(counts)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    scores = []
    for x in (counts, counts.astype("float64")):
        data = tf.data.Dataset.from_tensor_slices((x, labels)).batch(5)
        keras.utils.set_random_seed(0)
        influence = FirstOrderInfluenceCalculator(
            InfluenceModel(model, loss_function=loss), data, strategy
        )
        scores.append(influence.score(data).values)
    # The same operations on the same numbers.
    assert_close(*scores, 1e-9)
