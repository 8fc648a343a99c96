"""Rows that differ by what the model is fed: texts, categories, integers, dicts."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tests.models.case import (
    CLASSES,
    Data,
    ModelCase,
    classes,
    compiled,
    head,
    indices,
    normal,
    reals,
    sequential,
)

layers = keras.layers
WORDS = np.array(["cat", "dog", "fish", "bird", "horse"])
Layer = Callable[[], keras.layers.Layer]


def texts(generator: np.random.Generator, n: int) -> tuple:
    """Texts of four words, in the shape ``(n, 1)`` that a model with a text layer takes."""
    drawn = WORDS[generator.integers(0, len(WORDS), (n, 4))]
    return np.array([[" ".join(row)] for row in drawn]), classes(generator, n)


def words(length: int) -> Data:
    return lambda generator, n: (
        WORDS[generator.integers(0, len(WORDS), (n, length))],
        classes(generator, n),
    )


def numbers(generator: np.random.Generator, n: int) -> tuple:
    return 10 * generator.integers(1, 5, (n, 2)), classes(generator, n)


def pixels(generator: np.random.Generator, n: int) -> tuple:
    return generator.integers(0, 256, (n, 4, 4, 1), dtype="uint8"), classes(generator, n)


def record(generator: np.random.Generator, n: int) -> tuple:
    x = {
        "age": reals(generator, n, 1),
        "city": WORDS[generator.integers(0, len(WORDS), (n, 1))],
        "visits": generator.integers(0, 9, (n, 1)),
    }
    return x, classes(generator, n)


def text_model(output_mode: str, *parts: Layer) -> Callable[[], keras.Model]:
    def vectorizer() -> keras.layers.Layer:
        length = 4 if output_mode == "int" else None
        made = layers.TextVectorization(output_mode=output_mode, output_sequence_length=length)
        made.adapt([" ".join(WORDS), "cat dog", "cat"])
        return made

    return sequential(vectorizer, *(parts or (head(),)), shape=(1,), dtype="string")


def lookup(output_mode: str) -> Layer:
    return lambda: layers.StringLookup(vocabulary=list(WORDS), output_mode=output_mode)


def integer_lookup(output_mode: str) -> Layer:
    return lambda: layers.IntegerLookup(vocabulary=[10, 20, 30, 40], output_mode=output_mode)


def normalised() -> keras.layers.Layer:
    layer = layers.Normalization()
    layer.adapt(np.arange(12.0).reshape(4, 3))
    return layer


def tabular() -> keras.Model:
    """Columns of three kinds, each encoded and joined."""
    inputs = {
        "age": keras.Input((1,), name="age"),
        "city": keras.Input((1,), name="city", dtype="string"),
        "visits": keras.Input((1,), name="visits", dtype="int64"),
    }
    city = layers.StringLookup(vocabulary=list(WORDS), output_mode="one_hot")(inputs["city"])
    visits = layers.Embedding(9, 2, name="visits_table")(inputs["visits"])
    joined = layers.Concatenate()([inputs["age"], city, layers.Flatten()(visits)])
    hidden = layers.Dense(4, activation="tanh")(joined)
    return compiled(keras.Model(inputs, layers.Dense(CLASSES, name="head")(hidden)))


class IntegerFeatures(keras.Model):
    """A subclassed model, to which Keras hands integers as they are."""

    def __init__(self) -> None:
        super().__init__(name="integers")
        self.body = layers.Dense(4, activation="tanh", name="body")
        self.out = layers.Dense(CLASSES, name="head")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.out(self.body(inputs))


def integer_features() -> keras.Model:
    model = IntegerFeatures()
    model(np.zeros((1, 5), "int64"))
    return compiled(model)


def embedded() -> list[Layer]:
    return [lambda: layers.Embedding(8, 3), layers.GlobalAveragePooling1D, head()]


CASES = [
    ModelCase("text-indices", text_model("int", *embedded()), texts, ("embedding",)),
    ModelCase("text-multi-hot", text_model("multi_hot"), texts),
    ModelCase("text-counts", text_model("count"), texts),
    ModelCase("text-tf-idf", text_model("tf_idf"), texts),
    ModelCase(
        "string-one-hot",
        sequential(lookup("one_hot"), head(), shape=(1,), dtype="string"),
        words(1),
    ),
    ModelCase(
        "string-counts", sequential(lookup("count"), head(), shape=(3,), dtype="string"), words(3)
    ),
    ModelCase(
        "integer-multi-hot",
        sequential(integer_lookup("multi_hot"), head(), shape=(2,), dtype="int64"),
        numbers,
    ),
    ModelCase(
        "integer-indices",
        sequential(integer_lookup("int"), *embedded(), shape=(2,), dtype="int64"),
        numbers,
        ("embedding",),
    ),
    ModelCase(
        "category-counts",
        sequential(lambda: layers.CategoryEncoding(6, "count"), head(), shape=(3,), dtype="int64"),
        indices(6, 3),
    ),
    ModelCase(
        "hashed-words",
        sequential(lambda: layers.Hashing(8), *embedded(), shape=(3,), dtype="string"),
        words(3),
        ("head/",),
    ),
    ModelCase(
        "binned-numbers",
        sequential(
            lambda: layers.Discretization([-0.5, 0.5], output_mode="one_hot"), head(), shape=(1,)
        ),
        normal(1),
    ),
    ModelCase("normalised-numbers", sequential(normalised, head(), shape=(3,)), normal(3)),
    ModelCase(
        "bytes",
        # Numbers up to 255 would make the prediction of a query certain, and its loss flat.
        sequential(
            layers.Flatten,
            lambda: layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(0, 0.01)),
            head(),
            shape=(4, 4, 1),
            dtype="uint8",
        ),
        pixels,
        ("head/",),
    ),
    ModelCase(
        "rescaled-bytes",
        sequential(
            lambda: layers.Rescaling(1 / 255),
            lambda: layers.Conv2D(2, 3),
            layers.Flatten,
            head(),
            shape=(4, 4, 1),
            dtype="uint8",
        ),
        pixels,
    ),
    ModelCase("integer-features", integer_features, indices(9, 5)),
    ModelCase("record-of-columns", tabular, record, ("head/", "visits_table")),
]
