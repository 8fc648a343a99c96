"""Rows that differ by how layers hang together: shared, nested, subclassed, with many outputs."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tests.models.case import (
    CLASSES,
    ModelCase,
    Refusal,
    classes,
    compiled,
    head,
    normal,
    reals,
    sequential,
)

layers = keras.layers
FEATURES = 4
ONE_OUTPUT = {"ekfac": Refusal("one output|single output")}


def shared_dense() -> keras.Model:
    inputs, shared = keras.Input((FEATURES,)), layers.Dense(FEATURES, "tanh", name="shared")
    return compiled(keras.Model(inputs, head()()(shared(shared(inputs)) + inputs)))


def siamese() -> keras.Model:
    """One branch for two inputs, compared."""
    left, right = keras.Input((FEATURES,)), keras.Input((FEATURES,))
    branch = keras.Sequential([keras.Input((FEATURES,)), layers.Dense(3, "tanh")], name="branch")
    distance = keras.ops.square(branch(left) - branch(right))
    output = layers.Dense(1, name="head")(distance)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    return compiled(keras.Model([left, right], output), loss)


def couples(generator: np.random.Generator, n: int) -> tuple:
    x = (reals(generator, n, FEATURES), reals(generator, n, FEATURES))
    return x, classes(generator, n, 1, count=2)


def nested_body() -> keras.Model:
    body = keras.Sequential([keras.Input((FEATURES,)), layers.Dense(5, "tanh")], name="body")
    inputs = keras.Input((FEATURES,))
    return compiled(keras.Model(inputs, head()()(body(inputs))))


def nested_head() -> keras.Model:
    top = keras.Sequential(
        [keras.Input((5,)), layers.Dense(4, "tanh"), layers.Dense(CLASSES, name="head")], name="top"
    )
    inputs = keras.Input((FEATURES,))
    return compiled(keras.Model(inputs, top(layers.Dense(5, "tanh")(inputs))))


class HeadFirst(keras.Model):
    """A subclassed model that makes its last layer first."""

    def __init__(self) -> None:
        super().__init__(name="head_first")
        self.out = layers.Dense(CLASSES, name="head")
        self.body = layers.Dense(5, activation="tanh", name="body")

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.out(self.body(inputs))


class Listed(keras.Model):
    """A subclassed residual model that keeps its layers in a list."""

    def __init__(self) -> None:
        super().__init__(name="listed")
        self.blocks = [layers.Dense(FEATURES, "tanh", name=f"block_{i}") for i in range(2)]
        self.out = layers.Dense(CLASSES, name="head")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        for block in self.blocks:
            inputs = inputs + block(inputs)
        return self.out(inputs)


class Scaled(layers.Layer):
    """A layer with a weight of its own, which no rule knows."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.math.sin(inputs) * self.scale


class Tied(layers.Layer):
    """An embedding whose table is also the output matrix."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.table = self.add_weight(shape=(6, 3), name="table")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        found = tf.gather(self.table.value, inputs)
        return tf.matmul(tf.tanh(found), self.table.value, transpose_b=True)


def called(make: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    """Return what builds a subclassed model by calling it once."""

    def build() -> keras.Model:
        model = make()
        model(np.zeros((1, FEATURES), "float32"))
        return compiled(model)

    return build


def two_outputs(as_dict: bool, loss: dict | list, loss_weights: dict | list) -> Callable:
    def build() -> keras.Model:
        inputs = keras.Input((FEATURES,))
        hidden = layers.Dense(4, "tanh")(inputs)
        kind = layers.Dense(CLASSES, name="kind")(hidden)
        size = layers.Dense(1, name="size")(hidden)
        outputs = {"kind": kind, "size": size} if as_dict else [kind, size]
        return compiled(keras.Model(inputs, outputs), loss, loss_weights=loss_weights)

    return build


def labels_of_two(as_dict: bool, weighted: bool = False) -> Callable:
    def draw(generator: np.random.Generator, n: int) -> tuple:
        x, kind, size = reals(generator, n, FEATURES), classes(generator, n), reals(generator, n, 1)
        y = {"kind": kind, "size": size} if as_dict else (kind, size)
        weights = generator.random((2, n)).astype("float32")
        weight = {"kind": weights[0], "size": weights[1]} if as_dict else tuple(weights)
        return (x, y, weight) if weighted else (x, y)

    return draw


def two_losses() -> tuple[keras.losses.Loss, str]:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True), "mse"


def regularised() -> keras.Model:
    l2 = keras.regularizers.L2(0.05)
    return sequential(
        lambda: layers.Dense(4, "tanh", kernel_regularizer=l2),
        head(kernel_regularizer=l2, bias_regularizer=keras.regularizers.L1L2(0.01, 0.02)),
        shape=(FEATURES,),
    )()


CASES = [
    ModelCase("shared-dense", shared_dense, normal(FEATURES), ("shared/",)),
    ModelCase("siamese", siamese, couples, ("branch/", "dense")),
    ModelCase("nested-body", nested_body, normal(FEATURES)),
    ModelCase("nested-head", nested_head, normal(FEATURES), ("top", "head")),
    ModelCase("subclassed-head-first", called(HeadFirst), normal(FEATURES)),
    ModelCase("subclassed-list", called(Listed), normal(FEATURES), ("block_0/", "head/")),
    ModelCase(
        "lambda-layers",
        sequential(
            lambda: layers.Lambda(lambda x: x / 3.7 - 0.31),
            lambda: layers.Dense(4, activation=lambda x: tf.tanh(1.3 * x)),
            lambda: layers.Lambda(lambda x: tf.concat([x, x**2], axis=-1)),
            head(),
            shape=(FEATURES,),
        ),
        normal(FEATURES),
        ("head/",),
    ),
    ModelCase(
        "layer-without-rule",
        sequential(lambda: Scaled(name="scaled"), head(), shape=(FEATURES,)),
        normal(FEATURES),
    ),
    ModelCase(
        "tied-table",
        sequential(
            lambda: Tied(name="tied"), layers.GlobalAveragePooling1D, shape=(3,), dtype="int32"
        ),
        lambda generator, n: (
            generator.integers(0, 6, (n, 3)),
            classes(generator, n, count=6),
        ),
    ),
    ModelCase("regularisers", regularised, normal(FEATURES)),
    ModelCase(
        "dict-of-outputs",
        two_outputs(
            True, dict(zip(("kind", "size"), two_losses(), strict=True)), {"kind": 0.5, "size": 2.0}
        ),
        labels_of_two(True),
        ("kind/", "size/"),
        refusals=ONE_OUTPUT,
    ),
    ModelCase(
        "list-of-outputs",
        two_outputs(False, list(two_losses()), [0.5, 2.0]),
        labels_of_two(False),
        ("kind/", "size/"),
        refusals=ONE_OUTPUT,
    ),
    ModelCase(
        "weights-by-output",
        two_outputs(
            True, dict(zip(("kind", "size"), two_losses(), strict=True)), {"kind": 0.5, "size": 2.0}
        ),
        labels_of_two(True, weighted=True),
        ("kind/", "size/"),
        refusals=ONE_OUTPUT,
    ),
    ModelCase(
        "output-without-loss",
        two_outputs(True, {"kind": two_losses()[0]}, {"kind": 1.0}),
        lambda generator, n: (reals(generator, n, FEATURES), {"kind": classes(generator, n)}),
        ("kind/",),
        refusals=ONE_OUTPUT,
    ),
]
