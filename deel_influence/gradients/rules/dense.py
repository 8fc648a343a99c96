"""Rules for Dense and EinsumDense, and so for MultiHeadAttention, which is made of the latter."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from ..blocks import GradientBlock, OuterBlock, RowsBlock, SequenceBlock
from .base import LayerRule, LayerUse, OwnedBlock, Watched, owned


class DenseRule(LayerRule):
    """``y = a W + bias`` on the last axis; axes between it and the batch are positions."""

    layer_types = (keras.layers.Dense,)

    def variables(self, layer: keras.layers.Layer) -> Sequence[keras.Variable]:
        return [layer.kernel] if layer.bias is None else [layer.kernel, layer.bias]

    def blocks(
        self, layer: keras.layers.Layer, uses: Sequence[LayerUse], watched: Watched
    ) -> list[OwnedBlock]:
        pairs = [(_positions(use.inputs), _positions(use.delta)) for use in uses]
        single = len(uses) == 1 and uses[0].inputs.shape.rank == 2
        return owned(
            layer.kernel,
            layer.bias,
            watched,
            lambda bias: _linear_block(pairs, single, bias),
            lambda: _bias_block(pairs),
        )


@dataclass(frozen=True)
class _Axes:
    """The axes of an einsum equation by role, as positions in inputs, kernel and output."""

    inputs: tuple[int, ...]
    output: tuple[int, ...]
    contracted: int


class EinsumDenseRule(LayerRule):
    """``y = einsum(equation, a, W) + bias`` where the equation is a matrix product.

    Letters that the inputs share with the kernel are contracted, letters that only kernel and
    output share are produced, the rest are positions. Equations with a letter in all three
    (a separate matrix for each slice) or a letter that is summed without the kernel are left to
    automatic differentiation, as are kernels stored with produced before contracted axes.
    """

    layer_types = (keras.layers.EinsumDense,)

    def _supports(self, layer: keras.layers.Layer) -> bool:
        return _axes(layer) is not None and _bias_is_plain(layer)

    def variables(self, layer: keras.layers.Layer) -> Sequence[keras.Variable]:
        return [layer.kernel] if layer.bias is None else [layer.kernel, layer.bias]

    def blocks(
        self, layer: keras.layers.Layer, uses: Sequence[LayerUse], watched: Watched
    ) -> list[OwnedBlock]:
        axes = _plain_axes(layer, uses[0].inputs.shape.rank)
        kernel_shape = np.array(layer.kernel.shape, dtype=int)
        width_in = int(kernel_shape[: axes.contracted].prod())
        width_out = int(kernel_shape[axes.contracted :].prod())
        pairs = [
            (
                _fold(use.inputs, axes.inputs, width_in),
                _fold(use.delta, axes.output, width_out),
            )
            for use in uses
        ]
        single = len(uses) == 1 and len(axes.inputs) == 1 + axes.contracted
        return owned(
            layer.kernel,
            layer.bias,
            watched,
            lambda bias: _linear_block(pairs, single, bias),
            lambda: _bias_block(pairs),
        )


def _linear_block(
    pairs: Sequence[tuple[tf.Tensor, tf.Tensor]], single: bool, bias: bool
) -> GradientBlock:
    """Join ``(b, t, i)`` inputs and ``(b, t, o)`` gradients of all uses into one block."""
    if single:
        a, delta = pairs[0]
        return OuterBlock(tf.squeeze(a, 1), tf.squeeze(delta, 1), bias)
    a = tf.concat([a for a, _ in pairs], axis=1)
    return SequenceBlock(a, tf.concat([delta for _, delta in pairs], axis=1), bias)


def _bias_block(pairs: Sequence[tuple[tf.Tensor, tf.Tensor]]) -> RowsBlock:
    return RowsBlock(tf.add_n([tf.reduce_sum(delta, axis=1) for _, delta in pairs]))


def _positions(x: tf.Tensor) -> tf.Tensor:
    """Reshape ``(b, ..., i)`` to ``(b, t, i)``, keeping t static where it is known."""
    middle = x.shape[1:-1]
    t = math.prod(middle) if middle.is_fully_defined() else -1
    b = tf.shape(x)[0]
    return tf.reshape(x, (b, t, int(x.shape[-1])))


def _fold(x: tf.Tensor, order: tuple[int, ...], width: int) -> tf.Tensor:
    """Bring batch and positions to the front and merge the rest: ``(b, t, width)``."""
    if order != tuple(range(len(order))):
        x = tf.transpose(x, order)
    sizes = list(x.shape[1:])
    t = math.prod(sizes) // width if all(d is not None for d in sizes) else -1
    return tf.reshape(x, (tf.shape(x)[0], t, width))


def _axes(layer: keras.layers.Layer, rank: int | None = None) -> _Axes | None:
    """Sort the letters of the equation by role; None where it is no plain matrix product.

    An ellipsis stands for as many letters as inputs of that rank need, two if it is not given.
    """
    left, output = layer.equation.replace(" ", "").split("->")
    inputs, kernel = left.split(",")
    if "..." in layer.equation:
        if "..." in kernel or not (inputs.startswith("...") and output.startswith("...")):
            return None
        hidden = 2 if rank is None else rank - (len(inputs) - 3)
        unused = [c for c in string.ascii_letters if c not in layer.equation]
        lead = "".join(unused[:hidden])
        inputs, output = inputs.replace("...", lead), output.replace("...", lead)
    contracted = [c for c in kernel if c in inputs and c not in output]
    produced = [c for c in kernel if c in output and c not in inputs]
    shared = [c for c in inputs if c in output and c not in kernel]
    plain = (
        len(set(kernel)) == len(kernel)
        and kernel == "".join(contracted + produced)
        and set(inputs) == set(shared + contracted)
        and set(output) == set(shared + produced)
        and bool(shared)
        and inputs[0] == output[0] == shared[0]
    )
    if not plain:
        return None
    in_order = tuple(inputs.index(c) for c in shared + contracted)
    out_order = tuple(output.index(c) for c in shared + produced)
    return _Axes(in_order, out_order, len(contracted))


def _plain_axes(layer: keras.layers.Layer, rank: int | None = None) -> _Axes:
    """Return the axes of an equation that is known to be a matrix product."""
    axes = _axes(layer, rank)
    if axes is None:
        message = f"The equation {layer.equation!r} of layer {layer.name!r} is no matrix product."
        raise ValueError(message)
    return axes


def _bias_is_plain(layer: keras.layers.Layer) -> bool:
    """Tell whether the bias has one entry for each produced one, in the kernel's order."""
    if layer.bias is None:
        return True
    axes = _plain_axes(layer)
    produced = [int(d) for d in layer.kernel.shape[axes.contracted :]]
    trailing = axes.output[-len(produced) :] == tuple(
        range(len(axes.output) - len(produced), len(axes.output))
    )
    return trailing and [int(d) for d in layer.bias.shape if int(d) != 1] == [
        d for d in produced if d != 1
    ]
