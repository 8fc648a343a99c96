"""Rows that differ by the layer in their middle."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from tests.models.case import (
    CLASSES,
    ModelCase,
    classes,
    compiled,
    head,
    normal,
    reals,
    sequential,
)

layers = keras.layers
VOID = 255
Layer = Callable[[], keras.layers.Layer]


def around(shape: tuple[int, ...], *parts: Layer) -> Callable[[], keras.Model]:
    """Return what builds a network with some layers before a flat head."""
    return sequential(*parts, layers.Flatten, head(), shape=shape)


def middle(id: str, shape: tuple[int, ...], layer: Layer, **options: object) -> ModelCase:
    """Make a row whose layer, named after it, is the one that is watched for curvature."""
    options = {"curved": ("middle/",), **options}
    return ModelCase(id, around(shape, layer), normal(*shape), **options)


def trained_statistics() -> keras.Model:
    """Batch normalisation with statistics that are not those of a new layer."""
    model = around(
        (5, 3),
        lambda: layers.Conv1D(4, 2, activation="tanh"),
        lambda: layers.BatchNormalization(name="middle"),
    )()
    generator = np.random.default_rng(2)
    gamma, beta, mean, variance = model.get_layer("middle").get_weights()
    model.get_layer("middle").set_weights(
        [gamma + 0.5, beta - 0.2, mean + generator.normal(size=4), variance + generator.random(4)]
    )
    return model


def attention(layer: keras.layers.Layer) -> keras.Model:
    inputs = keras.Input((4, 6))
    x = layers.LayerNormalization()(inputs + layer(inputs, inputs))
    return compiled(
        keras.Model(inputs, layers.Dense(CLASSES, name="head")(layers.GlobalAveragePooling1D()(x)))
    )


def segmenter() -> keras.Model:
    """A U-Net of one level, with a class for each pixel and a void one."""
    inputs = keras.Input((8, 8, 2))
    fine = layers.Conv2D(3, 3, padding="same", activation="relu", name="down")(inputs)
    coarse = layers.Conv2D(4, 3, padding="same", activation="relu")(layers.MaxPooling2D()(fine))
    up = layers.Conv2DTranspose(3, 2, strides=2, name="up")(coarse)
    joined = layers.Concatenate()([fine, up])
    outputs = layers.Conv2D(CLASSES, 1, name="pixels")(joined)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=VOID)
    return compiled(keras.Model(inputs, outputs), loss)


def segmented(generator: np.random.Generator, n: int) -> tuple:
    labels = classes(generator, n, 8, 8)
    labels[generator.random(labels.shape) < 0.3] = VOID
    return reals(generator, n, 8, 8, 2), labels


def conv(kind: type, filters: int, size: int, **options: object) -> Layer:
    return lambda: kind(filters, size, activation="tanh", name="middle", **options)


CASES = [
    middle("conv1d", (6, 3), conv(layers.Conv1D, 3, 2, padding="causal", dilation_rate=2)),
    middle("conv2d-strided", (6, 5, 2), conv(layers.Conv2D, 3, 3, strides=2, padding="same")),
    middle("conv3d", (3, 4, 3, 2), conv(layers.Conv3D, 2, 2)),
    middle("conv2d-transpose", (3, 3, 2), conv(layers.Conv2DTranspose, 3, 2, strides=2)),
    middle("separable-conv2d", (5, 5, 2), conv(layers.SeparableConv2D, 3, 3)),
    middle(
        "depthwise-conv2d",
        (5, 5, 2),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, activation="tanh", name="middle"),
    ),
    middle(
        "time-distributed-dense",
        (4, 3),
        lambda: layers.TimeDistributed(layers.Dense(3, activation="tanh"), name="middle"),
    ),
    middle(
        "time-distributed-conv",
        (2, 5, 5, 1),
        lambda: layers.TimeDistributed(layers.Conv2D(2, 3, activation="tanh"), name="middle"),
    ),
    middle(
        "prelu",
        (6, 3),
        lambda: layers.PReLU(shared_axes=[1], alpha_initializer="uniform", name="middle"),
    ),
    middle(
        "spectral-normalisation",
        (4,),
        lambda: layers.SpectralNormalization(layers.Dense(5, activation="tanh"), name="middle"),
    ),
    ModelCase("batch-normalisation", trained_statistics, normal(5, 3), ("middle/",)),
    middle("layer-normalisation", (4, 3), lambda: layers.LayerNormalization(name="middle")),
    middle("rms-normalisation", (4, 3), lambda: layers.RMSNormalization(name="middle")),
    middle("group-normalisation", (5, 4), lambda: layers.GroupNormalization(2, name="middle")),
    middle("unit-normalisation", (5, 4), layers.UnitNormalization, curved=("head/",)),
    middle(
        "einsum-with-heads",
        (4, 3),
        lambda: layers.EinsumDense("btd,dhk->bthk", (4, 2, 3), bias_axes="hk", name="middle"),
    ),
    middle(
        "dropout-in-inference", (4,), lambda: layers.Dropout(0.5, name="middle"), curved=("head/",)
    ),
    ModelCase(
        "multi-head-attention",
        lambda: attention(layers.MultiHeadAttention(2, 3, name="middle")),
        normal(4, 6),
        ("layer_norm", "head/"),
    ),
    ModelCase(
        "grouped-query-attention",
        lambda: attention(layers.GroupQueryAttention(3, 4, 2, name="middle")),
        normal(4, 6),
        ("layer_norm", "head/"),
    ),
    ModelCase("u-net-with-void-pixels", segmenter, segmented, ("pixels/", "up/")),
]
