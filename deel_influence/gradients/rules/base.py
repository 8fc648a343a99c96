"""What a layer rule is: per-example gradients read off inputs and output gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import keras
import tensorflow as tf

from ..blocks import GradientBlock

Watched = Callable[[keras.Variable], bool]


@dataclass(frozen=True)
class LayerUse:
    """One call of a layer, as the backward pass left it.

    Attributes
    ----------
    inputs
        The layer's first argument, shape ``(b, ...)``.
    delta
        Gradient of the summed losses in the layer's pre-activation output, shape ``(b, ...)``.
    in_training
        Whether the layer was called with ``training=True``.
    mask
        Keras's mask of the inputs, bool, shape ``(b, ...)``; None without one.
    """

    inputs: tf.Tensor
    delta: tf.Tensor
    in_training: bool = False
    mask: tf.Tensor | None = None


@dataclass(frozen=True)
class OwnedBlock:
    """A block and the variables, in the order of its columns, whose gradients it holds."""

    variables: tuple[keras.Variable, ...]
    block: GradientBlock


class LayerRule(ABC):
    """How one family of layers turns its uses into gradient blocks.

    A new rule is one subclass with three hooks, and one entry in `rules.RULES`.

    Attributes
    ----------
    layer_types
        The exact classes served; a subclass of them may compute something else and is not.
    takes_indices
        Whether the inputs are indices, and left as they are; others come in the model's dtype.
    """

    layer_types: ClassVar[tuple[type, ...]]
    takes_indices: ClassVar[bool] = False

    def applies(self, layer: keras.layers.Layer) -> bool:
        """Tell whether the rule serves this layer with the options that it has."""
        plain = not getattr(layer, "lora_enabled", False)
        plain = plain and getattr(layer, "quantization_mode", None) is None
        return type(layer) in self.layer_types and plain and self._supports(layer)

    def _supports(self, layer: keras.layers.Layer) -> bool:  # noqa: ARG002
        """Tell whether the options of the layer are covered. May be overridden."""
        return True

    @abstractmethod
    def variables(self, layer: keras.layers.Layer) -> Sequence[keras.Variable]:
        """Return the trainable variables that the rule explains."""

    @abstractmethod
    def blocks(
        self, layer: keras.layers.Layer, uses: Sequence[LayerUse], watched: Watched
    ) -> list[OwnedBlock]:
        """Return the gradient blocks of the watched variables, for all uses together."""


def owned(
    kernel: keras.Variable,
    bias: keras.Variable | None,
    watched: Watched,
    make: Callable[[bool], GradientBlock],
    bias_rows: Callable[[], GradientBlock],
) -> list[OwnedBlock]:
    """Return the blocks of a kernel and its bias, of which only some may be watched.

    Parameters
    ----------
    kernel, bias
        The variables; the bias may be None.
    watched
        Tells which variables are watched.
    make
        Builds the kernel's block, with or without the bias as its last row.
    bias_rows
        Builds the block of the bias alone.
    """
    with_bias = bias is not None and watched(bias)
    if watched(kernel):
        variables = (kernel, bias) if with_bias else (kernel,)
        return [OwnedBlock(variables, make(with_bias))]
    return [OwnedBlock((bias,), bias_rows())] if with_bias else []
