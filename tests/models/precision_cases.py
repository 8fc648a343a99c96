"""Rows in half precision, quantised, or with low-rank updates beside frozen weights."""

from __future__ import annotations

from collections.abc import Callable

import keras

from tests.models.case import CLASSES, ModelCase, compiled, head, indices, normal, shaken

layers = keras.layers
RANK = 2

# Sums in ten and in seven bits of mantissa.
HALF_RTOL = {"mixed_float16": 1e-2, "mixed_bfloat16": 1e-2}
LORA = ("lora_kernel", "lora_embeddings")


def half(policy: str) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        model = keras.Sequential(
            [
                keras.Input((5, 3)),
                layers.Conv1D(4, 2, activation="tanh", dtype=policy),
                layers.LayerNormalization(dtype=policy),
                layers.Flatten(dtype=policy),
                layers.Dense(CLASSES, dtype=policy, name="head"),
            ]
        )
        return compiled(model)

    return build


def double() -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="float64"),
            layers.Dense(4, "tanh", dtype="float64"),
            layers.Dense(CLASSES, dtype="float64", name="head"),
        ]
    )
    return compiled(model)


def updated(layer: Callable[[], keras.layers.Layer], shape: tuple[int, ...], dtype: str | None):
    """Return what builds a network around a layer with a low-rank update that is not zero."""

    def build() -> keras.Model:
        middle = layer()
        model = keras.Sequential(
            [keras.Input(shape, dtype=dtype), middle, layers.Flatten(), head()()]
        )
        middle.enable_lora(RANK)
        return compiled(shaken(model))

    return build


def quantised(mode: str, lora: bool = False) -> Callable[[], keras.Model]:
    """A network whose body is in integers, of which the head and, maybe, an update is trained."""

    def build() -> keras.Model:
        body = layers.Dense(6, activation="tanh", name="body")
        model = keras.Sequential([keras.Input((4,)), body, head()()])
        body.quantize(mode)
        if lora:
            body.enable_lora(RANK)
        return compiled(shaken(model))

    return build


CASES = [
    *(
        ModelCase(policy.replace("_", "-"), half(policy), normal(5, 3), ("head/",), rtol=rtol)
        for policy, rtol in HALF_RTOL.items()
    ),
    # `compute_loss` takes the outputs of a float64 model in float32.
    ModelCase("float64", double, normal(4)),
    ModelCase(
        "lora-dense",
        updated(lambda: layers.Dense(5, activation="tanh"), (4,), None),
        normal(4),
        LORA,
    ),
    ModelCase(
        "lora-einsum",
        updated(lambda: layers.EinsumDense("btd,de->bte", (4, 3), activation="tanh"), (4, 5), None),
        normal(4, 5),
        LORA,
    ),
    ModelCase(
        "lora-embedding",
        updated(lambda: layers.Embedding(7, 4), (3,), "int32"),
        indices(7, 3),
        LORA,
    ),
    ModelCase(
        "lora-conv",
        updated(lambda: layers.Conv2D(3, 2, activation="tanh"), (4, 4, 2), None),
        normal(4, 4, 2),
        LORA,
    ),
    ModelCase("int8", quantised("int8"), normal(4)),
    ModelCase("int4", quantised("int4"), normal(4)),
    ModelCase("int8-with-lora", quantised("int8", lora=True), normal(4)),
]
