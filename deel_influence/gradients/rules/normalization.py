"""Rules for the scale and offset of normalisation layers.

They share ``y = γ x̂ + β`` with x̂ free of γ and β, so that the gradients are ``Σ_t δ_t x̂_t`` and
``Σ_t δ_t``: short rows, kept as such. Only x̂ differs; it is computed again from the inputs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import keras
import tensorflow as tf

from ..blocks import RowsBlock
from .base import LayerRule, LayerUse, OwnedBlock, Watched


class NormalizationRule(LayerRule):
    """The part that the rules for normalisation layers share."""

    def variables(self, layer: keras.layers.Layer) -> Sequence[keras.Variable]:
        return [v for v in (layer.gamma, layer.beta) if v is not None]

    def blocks(
        self, layer: keras.layers.Layer, uses: Sequence[LayerUse], watched: Watched
    ) -> list[OwnedBlock]:
        axes = self._parameter_axes(layer, uses[0].inputs.shape.rank)
        result = []
        if layer.gamma is not None and watched(layer.gamma):
            rows = [self._scale_rows(layer, use, axes) for use in uses]
            result.append(OwnedBlock((layer.gamma,), RowsBlock(tf.add_n(rows))))
        if layer.beta is not None and watched(layer.beta):
            rows = [_keep(use.delta, axes) for use in uses]
            result.append(OwnedBlock((layer.beta,), RowsBlock(tf.add_n(rows))))
        return result

    def _parameter_axes(self, layer: keras.layers.Layer, rank: int) -> tuple[int, ...]:
        """Return the axes of the inputs along which the parameters vary."""
        axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
        return tuple(sorted(axis % rank for axis in axes))

    @abstractmethod
    def _scale_rows(
        self, layer: keras.layers.Layer, use: LayerUse, axes: tuple[int, ...]
    ) -> tf.Tensor:
        """Return ``Σ_t δ_t x̂_t`` of one use, shape ``(b, q)``. To be implemented by subclasses.

        Parameters
        ----------
        layer, use
            The layer, and one call of it.
        axes
            The axes of the inputs along which the parameters vary.
        """


class BatchNormalizationRule(NormalizationRule):
    """BatchNormalization: x̂ comes from the moving statistics, in training from the batch's."""

    layer_types = (keras.layers.BatchNormalization,)

    def _supports(self, layer: keras.layers.Layer) -> bool:
        return isinstance(layer.axis, int)

    def _scale_rows(
        self, layer: keras.layers.Layer, use: LayerUse, axes: tuple[int, ...]
    ) -> tf.Tensor:
        # All positions have the same: Σ δ x̂ = (Σ δ x - mean Σ δ) / std, in fewer passes over x.
        if use.in_training:
            mean, variance = _batch_moments(use, axes)
        else:
            mean = tf.cast(layer.moving_mean.value, use.delta.dtype)
            variance = tf.cast(layer.moving_variance.value, use.delta.dtype)
        products = _keep(use.delta * use.inputs, axes) - mean * _keep(use.delta, axes)
        return products * tf.math.rsqrt(variance + layer.epsilon)


class LayerNormalizationRule(NormalizationRule):
    """LayerNormalization: x̂ comes from the moments over the parameters' own axes."""

    layer_types = (keras.layers.LayerNormalization,)

    def _supports(self, layer: keras.layers.Layer) -> bool:
        return not getattr(layer, "rms_scaling", False)

    def _scale_rows(
        self, layer: keras.layers.Layer, use: LayerUse, axes: tuple[int, ...]
    ) -> tf.Tensor:
        mean, variance = tf.nn.moments(use.inputs, axes, keepdims=True)
        normalized = (use.inputs - mean) * tf.math.rsqrt(variance + layer.epsilon)
        return _keep(use.delta * normalized, axes)


class GroupNormalizationRule(NormalizationRule):
    """GroupNormalization: x̂ comes from the moments over all but batch and group."""

    layer_types = (keras.layers.GroupNormalization,)

    def _scale_rows(
        self, layer: keras.layers.Layer, use: LayerUse, axes: tuple[int, ...]
    ) -> tf.Tensor:
        x, (axis,) = use.inputs, axes
        order = (0, axis, *(i for i in range(1, x.shape.rank) if i != axis))
        first = tf.transpose(x, order)
        shape = tf.shape(first)
        channels = int(x.shape[axis])
        grouped = tf.reshape(first, (shape[0], layer.groups, channels // layer.groups, -1))
        mean, variance = tf.nn.moments(grouped, (2, 3), keepdims=True)
        scaled = (grouped - mean) * tf.math.rsqrt(variance + layer.epsilon)
        back = [order.index(i) for i in range(x.shape.rank)]
        normalized = tf.transpose(tf.reshape(scaled, shape), back)
        return _keep(use.delta * normalized, axes)


def _batch_moments(use: LayerUse, axes: tuple[int, ...]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return mean and variance over all axes but ``axes``, without what is masked."""
    x = use.inputs
    others = [i for i in range(x.shape.rank) if i not in axes]
    if use.mask is None:
        return tf.nn.moments(x, others)
    missing = x.shape.rank - use.mask.shape.rank
    weights = tf.reshape(use.mask, tf.concat([tf.shape(use.mask), [1] * missing], axis=0))
    return tf.nn.weighted_moments(
        x, others, tf.broadcast_to(tf.cast(weights, x.dtype), tf.shape(x))
    )


def _keep(x: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    """Sum ``(b, ...)`` over all axes but the batch and ``axes``, shape ``(b, q)``."""
    others = [i for i in range(1, x.shape.rank) if i not in axes]
    kept = tf.reduce_sum(x, axis=others) if others else x
    size = 1
    for axis in axes:
        size *= int(x.shape[axis])
    return tf.reshape(kept, (-1, size))
