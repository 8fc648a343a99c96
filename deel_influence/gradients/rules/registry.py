"""Which rule serves which layer."""

from __future__ import annotations

import keras

from .base import LayerRule
from .convolution import ConvolutionRule, DepthwiseConvolutionRule, SeparableConvolutionRule
from .dense import DenseRule, EinsumDenseRule
from .embedding import EmbeddingRule
from .normalization import BatchNormalizationRule, GroupNormalizationRule, LayerNormalizationRule

RULES: tuple[LayerRule, ...] = (
    DenseRule(),
    EinsumDenseRule(),
    ConvolutionRule(),
    DepthwiseConvolutionRule(),
    SeparableConvolutionRule(),
    EmbeddingRule(),
    BatchNormalizationRule(),
    LayerNormalizationRule(),
    GroupNormalizationRule(),
)


def find_rule(layer: keras.layers.Layer) -> LayerRule | None:
    """Return the rule that serves ``layer``, or None."""
    if not layer.built:  # never used, and without variables
        return None
    return next((rule for rule in RULES if rule.applies(layer)), None)
