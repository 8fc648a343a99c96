"""Models of every kind that the engine has to serve, small, in whatever float is the default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

layers = keras.layers
NUM_EXAMPLES = 7


@dataclass(frozen=True)
class ModelCase:
    """A model with what it takes.

    Attributes
    ----------
    build
        Makes the model.
    input_shape
        Of one example.
    vocabulary
        Number of indices if the inputs are indices.
    fallback
        Part of the paths of the variables that automatic differentiation has to serve; empty
        where the rules serve all of them.
    warns
        Part of the warning that preparing the engine has to give, if any.
    """

    id: str
    build: Callable[[], keras.Model]
    input_shape: tuple[int, ...]
    vocabulary: int | None = None
    fallback: tuple[str, ...] = ()
    warns: str | None = None

    def data(self, model: keras.Model, n: int = NUM_EXAMPLES) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(1)
        if self.vocabulary:
            x = generator.integers(0, self.vocabulary, (n, *self.input_shape))
        else:
            x = generator.normal(size=(n, *self.input_shape)).astype(keras.config.floatx())
        output_shape = model(x[:1]).shape[1:]
        y = generator.normal(size=(n, *output_shape)).astype(keras.config.floatx())
        return x, y


def sequential(*parts: keras.layers.Layer, shape: tuple[int, ...], dtype: str | None = None):
    return lambda: keras.Sequential([keras.Input(shape, dtype=dtype), *(p() for p in parts)])


def convolution(shape: tuple[int, ...], layer: Callable[[], keras.layers.Layer]) -> Callable:
    return sequential(layer, layers.Flatten, lambda: layers.Dense(2), shape=shape)


def transformer() -> keras.Model:
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 8)(inputs)
    x = layers.LayerNormalization()(layers.MultiHeadAttention(2, 4)(x, x) + x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def shared_dense() -> keras.Model:
    inputs, dense = keras.Input((5,)), layers.Dense(5, activation="tanh")
    return keras.Model(inputs, layers.Dense(2)(dense(dense(inputs)) + inputs))


def shared_convolution() -> keras.Model:
    inputs = keras.Input((6, 6, 2))
    shared = layers.Conv2D(2, 3, padding="same", activation="tanh")
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(shared(shared(inputs)) + inputs)))


def nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(4, activation="tanh")], name="inner")
    inputs = keras.Input((5,))
    return keras.Model(inputs, layers.Dense(2)(inner(inputs)))


class Positions(layers.Layer):
    """Adds learned positions, looked up without a batch axis, and a vector of its own."""

    def __init__(self) -> None:
        super().__init__(name="positions")
        self.table = layers.Embedding(6, 5, name="table")
        self.offset = self.add_weight(shape=(5,), name="offset")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x + self.table(tf.range(6)) + self.offset


class TiedOutput(layers.Layer):
    """An embedding whose table is also the output matrix."""

    def __init__(self) -> None:
        super().__init__(name="tied")
        self.embed = layers.Embedding(9, 5, name="embed")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.matmul(self.embed(x), self.embed.embeddings.value, transpose_b=True)


class DoubledDense(layers.Dense):
    """A subclass of Dense that computes something else."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return 2.0 * super().call(inputs)


class Subclassed(keras.Model):
    """A model without a functional graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = layers.Dense(4, activation="relu"), layers.Dense(2)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.second(self.first(x))


def subclassed() -> keras.Model:
    model = Subclassed()
    model(keras.ops.zeros((1, 5)))
    model.build((None, 5))
    return model


class Listed(keras.Model):
    """A model that keeps its layers in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = [layers.Dense(4, activation="tanh"), layers.Dense(3), layers.Dense(2)]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def listed() -> keras.Model:
    model = Listed()
    model(keras.ops.zeros((1, 5)))
    return model


def _conv2d(**options: object) -> Callable:
    return convolution((9, 8, 4), lambda: layers.Conv2D(6, 3, activation="gelu", **options))


RULED_CASES = [
    ModelCase(
        "dense",
        sequential(
            lambda: layers.Dense(4, activation="tanh"),
            lambda: layers.Dense(3, use_bias=False),
            lambda: layers.Dense(2),
            shape=(5,),
        ),
        (5,),
    ),
    ModelCase(
        "dense-wide",
        sequential(lambda: layers.Dense(3), lambda: layers.Dense(2), shape=(150,)),
        (150,),
    ),
    ModelCase(
        "dense-on-sequence",
        sequential(
            lambda: layers.Dense(4, activation="tanh"),
            layers.LayerNormalization,
            lambda: layers.Dense(3),
            shape=(6, 5),
        ),
        (6, 5),
    ),
    ModelCase(
        "dense-on-short-sequence-gram",
        sequential(lambda: layers.Dense(14), lambda: layers.Dense(3), shape=(2, 15)),
        (2, 15),
    ),
    ModelCase(
        "dense-on-grid",
        sequential(
            lambda: layers.Dense(4), layers.Flatten, lambda: layers.Dense(2), shape=(3, 2, 5)
        ),
        (3, 2, 5),
    ),
    ModelCase("conv2d", _conv2d(), (9, 8, 4)),
    ModelCase("conv2d-strides", _conv2d(strides=2), (9, 8, 4)),
    ModelCase("conv2d-same-strides", _conv2d(strides=(2, 3), padding="same"), (9, 8, 4)),
    ModelCase("conv2d-same-no-bias", _conv2d(padding="same", use_bias=False), (9, 8, 4)),
    ModelCase("conv2d-dilation", _conv2d(dilation_rate=2), (9, 8, 4)),
    ModelCase("conv2d-dilation-same", _conv2d(dilation_rate=(2, 3), padding="same"), (9, 8, 4)),
    ModelCase("conv2d-groups", _conv2d(groups=2), (9, 8, 4)),
    ModelCase(
        "conv2d-groups-same-strides-no-bias",
        _conv2d(groups=2, strides=2, padding="same", use_bias=False),
        (9, 8, 4),
    ),
    ModelCase(
        "conv2d-many-channels-gram",
        convolution((2, 2, 20), lambda: layers.Conv2D(30, 2, padding="same")),
        (2, 2, 20),
    ),
    ModelCase(
        "conv2d-sliding",
        convolution((12, 12, 8), lambda: layers.Conv2D(3, 2, padding="valid")),
        (12, 12, 8),
    ),
    ModelCase(
        "conv2d-sliding-dilated-same",
        convolution((40, 41, 8), lambda: layers.Conv2D(2, (2, 3), dilation_rate=2, padding="same")),
        (40, 41, 8),
    ),
    ModelCase(
        "conv1d-sliding-causal",
        convolution((30, 16), lambda: layers.Conv1D(3, 3, padding="causal")),
        (30, 16),
    ),
    ModelCase(
        "conv3d-sliding-groups",
        convolution((14, 15, 1, 8), lambda: layers.Conv3D(4, (2, 2, 1), groups=2)),
        (14, 15, 1, 8),
    ),
    ModelCase(
        "conv1d-causal-dilated-batch-normalisation",
        sequential(
            lambda: layers.Conv1D(6, 3, padding="causal", dilation_rate=2),
            layers.BatchNormalization,
            lambda: layers.Conv1D(3, 2, strides=2),
            layers.Flatten,
            lambda: layers.Dense(2),
            shape=(9, 4),
        ),
        (9, 4),
    ),
    ModelCase(
        "conv3d-group-normalisation",
        sequential(
            lambda: layers.Conv3D(4, (2, 3, 2), strides=(1, 2, 1), padding="same"),
            lambda: layers.GroupNormalization(2),
            layers.Flatten,
            lambda: layers.Dense(2),
            shape=(4, 5, 4, 2),
        ),
        (4, 5, 4, 2),
    ),
    ModelCase(
        "depthwise2d",
        convolution(
            (9, 8, 4),
            lambda: layers.DepthwiseConv2D(
                3, depth_multiplier=2, strides=2, padding="same", activation="tanh"
            ),
        ),
        (9, 8, 4),
    ),
    ModelCase(
        "depthwise1d-no-bias",
        convolution((9, 4), lambda: layers.DepthwiseConv1D(3, use_bias=False)),
        (9, 4),
    ),
    ModelCase(
        "separable2d-dilated",
        convolution(
            (9, 8, 4),
            lambda: layers.SeparableConv2D(
                5, 3, depth_multiplier=2, dilation_rate=2, activation="tanh"
            ),
        ),
        (9, 8, 4),
    ),
    ModelCase(
        "separable1d-strides",
        convolution((9, 4), lambda: layers.SeparableConv1D(5, 3, strides=2, padding="same")),
        (9, 4),
    ),
    ModelCase(
        "normalisations-without-scale-or-offset",
        sequential(
            lambda: layers.Dense(4),
            lambda: layers.BatchNormalization(scale=False),
            lambda: layers.LayerNormalization(center=False),
            lambda: layers.LayerNormalization(axis=(1, 2)),
            layers.Flatten,
            lambda: layers.Dense(2),
            shape=(3, 5),
        ),
        (3, 5),
    ),
    ModelCase(
        "group-normalisation-with-a-group-for-each-channel",
        convolution((5, 4), lambda: layers.GroupNormalization(groups=-1)),
        (5, 4),
    ),
    ModelCase(
        "group-normalisation-of-the-first-axis",
        convolution((4, 5, 3), lambda: layers.GroupNormalization(2, axis=1)),
        (4, 5, 3),
    ),
    ModelCase(
        "batch-normalisation-of-the-first-axis",
        convolution((4, 5, 3), lambda: layers.BatchNormalization(axis=1)),
        (4, 5, 3),
    ),
    ModelCase("transformer", transformer, (6,), vocabulary=9),
    ModelCase("shared-dense", shared_dense, (5,)),
    ModelCase("shared-convolution", shared_convolution, (6, 6, 2)),
    ModelCase("nested", nested, (5,)),
    ModelCase("subclassed", subclassed, (5,)),
    ModelCase("subclassed-with-a-list-of-layers", listed, (5,)),
    ModelCase(
        "einsum-ellipsis",
        convolution((6, 5), lambda: layers.EinsumDense("...x,xy->...y", (3,), bias_axes="y")),
        (6, 5),
    ),
]

# Recurrent layers go over few steps: each costs as much to trace as a layer of its own.
FALLBACK_CASES = [
    ModelCase(
        "lstm",
        sequential(
            lambda: layers.Dense(4),
            lambda: layers.LSTM(3, name="rnn"),
            lambda: layers.Dense(2),
            shape=(3, 5),
        ),
        (3, 5),
        fallback=("rnn/",),
    ),
    ModelCase(
        "gru-and-bidirectional",
        sequential(
            lambda: layers.Dense(4),
            lambda: layers.GRU(3, return_sequences=True, name="rnn_one"),
            lambda: layers.Bidirectional(layers.LSTM(2), name="rnn_two"),
            lambda: layers.Dense(2),
            shape=(2, 5),
        ),
        (2, 5),
        fallback=("rnn_one/", "rnn_two/"),
    ),
    ModelCase(
        "einsum-with-bias-per-position",
        convolution(
            (6, 5),
            lambda: layers.EinsumDense("abc,cd->abd", (6, 3), bias_axes="bd", name="einsum"),
        ),
        (6, 5),
        fallback=("einsum/",),
    ),
    ModelCase(
        "custom-layer-with-positions",
        convolution((6, 5), Positions),
        (6, 5),
        fallback=("positions/", "table/"),
        warns="'table' .Embedding. is not called once per batch of examples",
    ),
    ModelCase(
        "tied-weights",
        sequential(TiedOutput, lambda: layers.Dense(3), shape=(6,), dtype="int32"),
        (6,),
        vocabulary=9,
        fallback=("embed/",),
        warns="'embed' .Embedding. does not agree with automatic differentiation",
    ),
    ModelCase(
        "subclass-of-dense",
        sequential(lambda: DoubledDense(4, name="doubled"), lambda: layers.Dense(2), shape=(5,)),
        (5,),
        fallback=("doubled/",),
    ),
]
