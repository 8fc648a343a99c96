"""Rules for convolutions: plain, grouped, depthwise and separable, in one to three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ..blocks import GradientBlock, RowsBlock, SumBlock
from ..convolution import ConvolutionBlock, ConvolutionGeometry, depthwise_rows
from .base import LayerRule, LayerUse, OwnedBlock, Watched, owned


class ConvolutionRule(LayerRule):
    """Conv1D, Conv2D and Conv3D with strides, dilation, padding, groups, either data format."""

    layer_types = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)

    def variables(self, layer: keras.layers.Layer) -> Sequence[keras.Variable]:
        return [layer.kernel] if layer.bias is None else [layer.kernel, layer.bias]

    def blocks(
        self, layer: keras.layers.Layer, uses: Sequence[LayerUse], watched: Watched
    ) -> list[OwnedBlock]:
        geometry = _geometry(layer, layer.groups)
        pairs = [(_last(layer, use.inputs), _last(layer, use.delta)) for use in uses]
        return owned(
            layer.kernel,
            layer.bias,
            watched,
            lambda bias: _sum([ConvolutionBlock(x, d, geometry, bias) for x, d in pairs]),
            lambda: _bias_rows([d for _, d in pairs]),
        )


class DepthwiseConvolutionRule(LayerRule):
    """DepthwiseConv1D and DepthwiseConv2D."""

    layer_types = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)

    def variables(self, layer: keras.layers.Layer) -> Sequence[keras.Variable]:
        return [layer.kernel] if layer.bias is None else [layer.kernel, layer.bias]

    def blocks(
        self, layer: keras.layers.Layer, uses: Sequence[LayerUse], watched: Watched
    ) -> list[OwnedBlock]:
        pairs = [(_last(layer, use.inputs), _last(layer, use.delta)) for use in uses]
        geometry, multiplier = _geometry(layer), layer.depth_multiplier

        def kernel_block(bias: bool) -> GradientBlock:
            return _sum([_depthwise(x, d, geometry, multiplier, bias) for x, d in pairs])

        return owned(
            layer.kernel,
            layer.bias,
            watched,
            kernel_block,
            lambda: _bias_rows([d for _, d in pairs]),
        )


class SeparableConvolutionRule(LayerRule):
    """SeparableConv1D and SeparableConv2D: a depthwise convolution, then one of size one.

    The tensor between the two is not visible from outside, so it is computed again, which costs
    the depthwise part of one forward pass.
    """

    layer_types = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)

    def variables(self, layer: keras.layers.Layer) -> Sequence[keras.Variable]:
        kernels = [layer.depthwise_kernel, layer.pointwise_kernel]
        return kernels if layer.bias is None else [*kernels, layer.bias]

    def blocks(
        self, layer: keras.layers.Layer, uses: Sequence[LayerUse], watched: Watched
    ) -> list[OwnedBlock]:
        pairs = [(_last(layer, use.inputs), _last(layer, use.delta)) for use in uses]
        result = []
        if watched(layer.depthwise_kernel):
            rows = [self._depthwise_rows(layer, x, delta) for x, delta in pairs]
            result.append(OwnedBlock((layer.depthwise_kernel,), RowsBlock(tf.add_n(rows))))
        ones = (1,) * (pairs[0][0].shape.rank - 2)
        pointwise = ConvolutionGeometry(ones, ones, ones, "valid")
        result += owned(
            layer.pointwise_kernel,
            layer.bias,
            watched,
            lambda bias: _sum(
                [ConvolutionBlock(self._between(layer, x), d, pointwise, bias) for x, d in pairs]
            ),
            lambda: _bias_rows([d for _, d in pairs]),
        )
        return result

    def _depthwise_rows(
        self, layer: keras.layers.Layer, x: tf.Tensor, delta: tf.Tensor
    ) -> tf.Tensor:
        kernel = tf.cast(layer.pointwise_kernel.value, delta.dtype)
        matrix = tf.reshape(kernel, kernel.shape[-2:])
        inner = tf.tensordot(delta, matrix, axes=[[delta.shape.rank - 1], [1]])
        return depthwise_rows(x, inner, _geometry(layer), layer.depth_multiplier)

    def _between(self, layer: keras.layers.Layer, x: tf.Tensor) -> tf.Tensor:
        return keras.ops.depthwise_conv(
            x,
            tf.cast(layer.depthwise_kernel.value, x.dtype),
            strides=layer.strides,
            padding=layer.padding,
            data_format="channels_last",
            dilation_rate=layer.dilation_rate,
        )


def _geometry(layer: keras.layers.Layer, groups: int = 1) -> ConvolutionGeometry:
    return ConvolutionGeometry(
        tuple(layer.kernel_size),
        _per_axis(layer.strides, layer),
        _per_axis(layer.dilation_rate, layer),
        layer.padding,
        groups,
    )


def _per_axis(value: Any, layer: keras.layers.Layer) -> tuple[int, ...]:
    return (value,) * len(layer.kernel_size) if isinstance(value, int) else tuple(value)


def _last(layer: keras.layers.Layer, x: tf.Tensor) -> tf.Tensor:
    """Move the channels to the last axis."""
    if layer.data_format == "channels_last":
        return x
    return tf.transpose(x, (0, *range(2, x.shape.rank), 1))


def _depthwise(
    x: tf.Tensor, delta: tf.Tensor, geometry: ConvolutionGeometry, multiplier: int, bias: bool
) -> RowsBlock:
    rows = depthwise_rows(x, delta, geometry, multiplier)
    if bias:
        rows = tf.concat([rows, _bias_rows([delta]).rows()], axis=1)
    return RowsBlock(rows)


def _bias_rows(deltas: Sequence[tf.Tensor]) -> RowsBlock:
    sums = [tf.reduce_sum(d, axis=tuple(range(1, d.shape.rank - 1))) for d in deltas]
    return RowsBlock(tf.add_n(sums))


def _sum(blocks: Sequence[GradientBlock]) -> GradientBlock:
    return blocks[0] if len(blocks) == 1 else SumBlock(blocks)
