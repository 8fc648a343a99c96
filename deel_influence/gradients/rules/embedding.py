"""The rule for Embedding."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from ..lookup_block import LookupBlock
from .base import LayerRule, LayerUse, OwnedBlock, Watched


class EmbeddingRule(LayerRule):
    """``y_t = E[index_t]``; several uses are further positions."""

    layer_types = (keras.layers.Embedding,)
    takes_indices = True

    def variables(self, layer: keras.layers.Layer) -> Sequence[keras.Variable]:
        return [layer.embeddings]

    def blocks(
        self,
        layer: keras.layers.Layer,
        uses: Sequence[LayerUse],
        watched: Watched,  # noqa: ARG002 - the only variable is watched, or the rule not asked
    ) -> list[OwnedBlock]:
        indices, deltas = [], []
        for use in uses:
            b = tf.shape(use.inputs)[0]
            indices.append(tf.reshape(tf.cast(use.inputs, tf.int32), (b, -1)))
            deltas.append(tf.reshape(use.delta, (b, -1, layer.output_dim)))
        block = LookupBlock(tf.concat(indices, 1), tf.concat(deltas, 1), layer.input_dim)
        return [OwnedBlock((layer.embeddings,), block)]
