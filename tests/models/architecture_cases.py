"""Rows with whole architectures of `keras.applications` and KerasHub, small and without training.

Convolutional ones keep their depth, on pictures of 32 x 32 pixels; transformers are of one block.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import keras
import numpy as np

from tests.models.case import (
    CLASSES,
    Data,
    ModelCase,
    classes,
    compiled,
    normal,
    shaken,
)

layers = keras.layers
VOCABULARY, STEPS = 11, 6
BLOCK = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 12,
    "max_sequence_length": STEPS,
}
LORA_RANK = 2

# Rounding adds up over a hundred layers and more.
DEEP_RTOL = 2e-5


def convolutional(name: str, **options: Any) -> Callable[[], keras.Model]:
    """Return what builds an architecture with a small head.

    Layer normalisation keeps the logits moderate, as trained batch statistics would.
    """

    def build() -> keras.Model:
        make = getattr(keras.applications, name)
        base = make(
            weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3), **options
        )
        neck = layers.LayerNormalization()(layers.Dense(8, name="neck")(base.output))
        return compiled(keras.Model(base.input, layers.Dense(CLASSES, name="head")(neck)))

    return build


def hub() -> ModuleType:
    """Import KerasHub, which takes seconds, where a row needs it."""
    import keras_hub

    return keras_hub.models


def bert(lora: bool = False) -> keras.Model:
    backbone = hub().BertBackbone(**BLOCK)
    model = hub().BertTextClassifier(backbone, num_classes=CLASSES)
    return _finished(model, lora)


def vision_transformer() -> keras.Model:
    backbone = hub().ViTBackbone(
        image_shape=(8, 8, 3), patch_size=4, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=12
    )
    return _finished(hub().ViTImageClassifier(backbone, num_classes=CLASSES), lora=False)


def gpt2() -> keras.Model:
    backbone = hub().GPT2Backbone(**BLOCK)
    return _finished(hub().GPT2CausalLM(backbone), lora=False)


# Gemma's rotary embedding makes products that TensorFlow does not run in a vectorised map.
NOT_VECTORISED = "Automatic differentiation cannot be vectorised"


def gemma(lora: bool = False) -> keras.Model:
    backbone = hub().GemmaBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=8,
        intermediate_dim=12,
        head_dim=4,
    )
    return _finished(hub().GemmaCausalLM(backbone), lora)


def sentences(segments: bool) -> Data:
    """Return what draws padded token sequences, with a class each."""

    def draw(generator: np.random.Generator, n: int) -> tuple:
        x = _padded_tokens(generator, n)
        if segments:
            x["segment_ids"] = generator.integers(0, 2, (n, STEPS))
        return x, classes(generator, n)

    return draw


def continuations(generator: np.random.Generator, n: int) -> tuple:
    """Padded sequences with the next token at each step, and no weight where there is none."""
    x = _padded_tokens(generator, n)
    return x, np.roll(x["token_ids"], -1, axis=1), x["padding_mask"].astype("float32")


def _padded_tokens(generator: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    mask = np.arange(STEPS) < generator.integers(2, STEPS + 1, n)[:, None]
    tokens = generator.integers(1, VOCABULARY, (n, STEPS))
    return {"token_ids": tokens * mask, "padding_mask": mask.astype("int32")}


def _finished(model: keras.Model, lora: bool) -> keras.Model:
    if lora:
        model.backbone.enable_lora(LORA_RANK)
    return compiled(shaken(model))


CASES = [
    ModelCase(
        "mobilenet-v3",
        convolutional("MobileNetV3Small", include_preprocessing=False),
        normal(32, 32, 3),
        curved=("conv_bn/", "head/"),
        differentiated=("conv/", "conv_bn/", "expanded_conv_3_", "neck/", "head/"),
        rtol=DEEP_RTOL,
    ),
    ModelCase(
        "efficientnet-v2",
        convolutional("EfficientNetV2B0", include_preprocessing=False),
        normal(32, 32, 3),
        curved=("stem_bn/", "head/"),
        differentiated=("stem", "block4a", "block6h_project", "head/"),
        rtol=DEEP_RTOL,
    ),
    ModelCase(
        "resnet-50",
        convolutional("ResNet50"),
        normal(32, 32, 3),
        curved=("neck/bias", "head/"),
        differentiated=("conv1_", "conv3_block1_0", "conv5_block3_1_bn", "head/"),
        rtol=DEEP_RTOL,
    ),
    ModelCase("bert", bert, sentences(segments=True), ("pooled_dense/", "logits/")),
    ModelCase("bert-with-lora", lambda: bert(lora=True), sentences(segments=True), ("lora",)),
    ModelCase(
        "vision-transformer",
        vision_transformer,
        normal(8, 8, 3),
        ("ln_1/", "predictions/"),
        warns="'position_embedding' .Embedding. is not called once per batch of examples",
    ),
    ModelCase("gpt-2", gpt2, continuations, ("value/", "layer_norm/")),
    ModelCase("gemma", gemma, continuations, ("query/", "norm"), warns=NOT_VECTORISED),
    ModelCase("gemma-with-lora", lambda: gemma(lora=True), continuations, warns=NOT_VECTORISED),
]
