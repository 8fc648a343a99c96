"""Models that can be split before the watched layers, and models that cannot."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

layers = keras.layers
N = 7


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape)


def tokens(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 5, shape)


class Argmax(layers.Layer):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.argmax(x, axis=-1)


def cnn() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(3, 3, activation="gelu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5, name="dropout"),
            layers.Flatten(name="flatten"),
            layers.Dense(5, activation="tanh", name="hidden"),
            layers.Dense(2, name="head"),
        ]
    )


def skips() -> keras.Model:
    """The stem is read by the watched layer and by two later ones, and so is the input."""
    inputs = keras.Input((5,))
    stem = layers.Dense(4, activation="tanh", name="stem")(inputs)
    unread = layers.Dense(6, name="unread")(stem)
    watched = layers.Dense(4, activation="tanh", name="watched")(stem + 1.0)
    joined = layers.Concatenate(name="joined")([watched * stem, inputs, 0.0 * unread[:, :1]])
    last = layers.Dense(4, name="last")(joined)
    return keras.Model(inputs, layers.Dense(2, name="head")(last + stem))


def repeated() -> keras.Model:
    """One layer runs twice before the watched one, and once after."""
    inputs, shared = keras.Input((5,)), layers.Dense(5, activation="tanh", name="shared")
    x = layers.Dense(5, name="watched")(shared(shared(inputs)))
    return keras.Model(inputs, layers.Dense(2, name="head")(shared(x) + inputs))


def watched_twice() -> keras.Model:
    inputs, watched = keras.Input((5,)), layers.Dense(5, activation="tanh", name="watched")
    stem = layers.Dense(5, activation="tanh", name="stem")(inputs)
    return keras.Model(inputs, layers.Dense(2, name="head")(watched(watched(stem)) + stem))


def nested() -> keras.Model:
    """A backbone with two outputs, whose own layer also runs outside it."""
    inputs = keras.Input((5,))
    shared = layers.Dense(5, activation="tanh", name="shared")
    low = shared(inputs)
    backbone = keras.Model(inputs, [low, shared(layers.Dense(5)(low))], name="backbone")
    outer = keras.Input((5,))
    low, high = backbone(shared(outer))
    x = layers.Dense(5, activation="tanh", name="watched")(high)
    return keras.Model(outer, layers.Dense(2, name="head")(x + shared(low)))


def recurrent() -> keras.Model:
    """A layer with several outputs, of which not all are read."""
    inputs = keras.Input((6, 4))
    sequence, state, _ = layers.LSTM(3, return_sequences=True, return_state=True, name="lstm")(
        inputs
    )
    pooled = layers.GlobalAveragePooling1D(name="pooled")(sequence)
    return keras.Model(inputs, layers.Dense(2, name="head")(pooled + state))


class Residual(keras.Model):
    """Not a functional model: operations between layers, a loop, and a dict of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = {"stem": layers.Dense(4, name="stem"), "watched": layers.Dense(4, name="mid")}
        self.head = layers.Dense(2, name="head")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        stem = tf.nn.softplus(self.parts["stem"](x))
        for _ in range(2):
            stem = stem + tf.sin(self.parts["stem"](tf.concat([stem, x[:, :1]], 1)))
        return self.head(tf.tanh(self.parts["watched"](stem)) + stem)


def residual() -> keras.Model:
    model = Residual()
    model(normal(2, 5))
    return model


class Positions(keras.Model):
    """Adds a learned table, which has no row per example, to an early output."""

    def __init__(self, stem: bool = True) -> None:
        super().__init__()
        self.table = layers.Embedding(6, 4, name="table")
        self.stem = layers.Dense(4, activation="tanh", name="stem") if stem else None
        self.watched, self.head = layers.Dense(4, name="watched"), layers.Dense(2, name="head")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        x = x if self.stem is None else self.stem(x)
        return self.head(tf.tanh(self.watched(x + self.table(tf.range(6)))))


def positions(stem: bool = True) -> keras.Model:
    model = Positions(stem)
    model(normal(2, 6, 4))
    return model


class Folded(layers.Layer):
    """Puts the time axis into the batch axis, or takes it out again."""

    def __init__(self, steps: int) -> None:
        super().__init__(name=f"folded_{steps}")
        self.steps = steps

    def call(self, x: tf.Tensor) -> tf.Tensor:
        shape = (-1, 4) if self.steps == 1 else (-1, self.steps, 4)
        return tf.reshape(x, shape)


def folded() -> keras.Model:
    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.parts = [layers.Dense(4, name="stem"), Folded(1), layers.Dense(4), Folded(6)]
            self.head = layers.Dense(2, name="head")

        def call(self, x: tf.Tensor) -> tf.Tensor:
            for part in self.parts:
                x = part(x)
            return self.head(x)

    model = Model()
    model(normal(2, 6, 4))
    return model


def masked(*late: layers.Layer, nest: bool = False) -> keras.Model:
    early = [layers.Embedding(5, 4, mask_zero=True, name="embedding"), layers.Dense(4, name="stem")]
    if nest:
        early = [keras.Sequential([keras.Input((6,), dtype="int32"), *early], name="encoder")]
    return keras.Sequential([keras.Input((6,), dtype="int32"), *early, *late])


def masked_loss() -> keras.Model:
    return masked(layers.Dense(4, activation="tanh", name="watched"), layers.Dense(2))


def masked_pooling() -> keras.Model:
    return masked(layers.Dense(4, name="watched"), layers.GlobalAveragePooling1D(), layers.Dense(2))


def masked_in_nested_model() -> keras.Model:
    return masked(layers.Dense(4, name="watched"), layers.Dense(3, name="head"), nest=True)


def masked_by_values() -> keras.Model:
    """The mask itself depends on an early layer."""
    return keras.Sequential(
        [
            keras.Input((6, 4)),
            layers.Dense(4, activation="relu", kernel_initializer="identity", name="stem"),
            layers.Masking(),
            layers.Dense(4, name="watched"),
            layers.GlobalAveragePooling1D(),
        ]
    )


# Model, inputs, first and last watched layer, layers whose outputs are kept.
SPLITS: dict[str, tuple[Callable[[], keras.Model], np.ndarray, str, str, list[str]]] = {
    "cnn-head": (cnn, normal(N, 8, 8, 2), "head", "head", ["hidden"]),
    "cnn-two-layers": (cnn, normal(N, 8, 8, 2), "hidden", "head", ["flatten"]),
    "cnn-batch-normalisation": (cnn, normal(N, 8, 8, 2), "norm", "head", ["conv"]),
    "skips": (skips, normal(N, 5), "watched", "watched", ["stem", "unread"]),
    "skips-head": (skips, normal(N, 5), "head", "head", ["stem", "last"]),
    "repeated": (repeated, normal(N, 5), "watched", "watched", ["shared"]),
    "watched-twice": (watched_twice, normal(N, 5), "watched", "watched", ["stem"]),
    "nested": (nested, normal(N, 5), "watched", "watched", ["shared", "backbone"]),
    "nested-head": (nested, normal(N, 5), "head", "head", ["shared", "watched"]),
    "recurrent": (recurrent, normal(N, 6, 4), "head", "head", ["lstm", "pooled"]),
    "subclassed": (residual, normal(N, 5), "mid", "mid", ["stem"]),
    "positions": (positions, normal(N, 6, 4), "watched", "head", ["stem"]),
    "masked-loss": (masked_loss, tokens(N, 6), "watched", "watched", ["stem"]),
    "masked-pooling": (masked_pooling, tokens(N, 6), "watched", "watched", ["stem"]),
    "masked-nested": (masked_in_nested_model, tokens(N, 6), "watched", "head", ["stem"]),
    "masked-by-values": (masked_by_values, normal(N, 6, 4), "watched", "watched", ["stem"]),
}


class Leak(layers.Layer):
    """Leaves a tensor of its inside where others find it."""

    def __init__(self) -> None:
        super().__init__(name="leak")
        self.inside = layers.Dense(4, name="inside")
        self.left: list = []

    def call(self, x: tf.Tensor) -> tf.Tensor:
        self.left = [self.inside(x) + 1.0]
        return tf.tanh(self.left[0])


class Leaky(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.leak, self.head = Leak(), layers.Dense(2, name="head")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.head(self.leak(x) + self.leak.left[0])


def leaky() -> keras.Model:
    model = Leaky()
    model(normal(2, 5))
    return model


class Centered(layers.Layer):
    """Lets the examples of a batch influence each other."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x - tf.reduce_mean(x, axis=0)


class Noise(layers.Layer):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x + tf.random.normal(tf.shape(x), dtype=x.dtype)


def two_dense(between: layers.Layer) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        head = layers.Dense(2, name="head")
        return keras.Sequential([keras.Input((5,)), layers.Dense(4, name="stem"), between, head])

    return build


# Model, inputs, watched layer, and what is said of why the whole model runs.
WHOLE: dict[str, tuple[Callable[[], keras.Model], np.ndarray, str, str]] = {
    "first-layer": (cnn, normal(N, 8, 8, 2), "conv", "no layer with weights runs before"),
    "positions": (
        lambda: positions(stem=False),
        normal(N, 6, 4),
        "watched",
        r"the outputs of the layers \['table'\] .* one row per example",
    ),
    "leak": (leaky, normal(N, 5), "head", r"cannot be continued from .*'leak'"),
    "coupled": (two_dense(Centered()), normal(N, 5), "head", "not the same .* in another batch"),
    "random": (two_dense(Noise()), normal(N, 5), "head", "not the same .* in another batch"),
}
