"""Projections of the gradient matrix of each layer, apart from those of the others."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf

from ...linalg.checks import check_count
from ...model.parameters import ParameterLayout
from ..batch_gradients import BatchGradients, take_columns
from ..blocks import GradientBlock
from .base import Projection
from .sparse import SparseSigns


@dataclass(frozen=True)
class LayerView:
    """A kernel and its bias as one gradient matrix, or another variable as a vector.

    Attributes
    ----------
    parts
        The indices of the variables in the parameter layout.
    layer
        The layer, as an index in `ParameterLayout.blocks`.
    shape
        ``(r, s)`` of the matrix, the bias being its last row; or ``(q,)``.
    """

    parts: tuple[int, ...]
    layer: int
    shape: tuple[int, ...]


def layer_views(layout: ParameterLayout) -> list[LayerView]:
    """Return every watched variable once, in order, kernels together with their biases.

    A kernel is a variable of two axes or more. Its bias is the variable of the same layer that
    comes next, if its shape is what the kernel's shape ends with; what the bias runs along are the
    columns of the matrix.
    """
    views = []
    for layer, block in enumerate(layout.blocks):
        parts = list(block.parts)
        while parts:
            shape = layout.shapes[parts[0]]
            following = layout.shapes[parts[1]] if len(parts) > 1 else ()
            has_bias = 0 < len(following) < len(shape) and shape[-len(following) :] == following
            taken = tuple(parts[: 1 + has_bias])
            size = sum(layout.sizes[part] for part in taken)
            columns = math.prod(following) if has_bias else shape[-1] if len(shape) > 1 else None
            matrix = (size,) if columns is None else (size // columns, columns)
            views.append(LayerView(taken, layer, matrix))
            parts = parts[len(taken) :]
    return views


class ProjectedLayer(ABC):
    """The part of P that is a view's; what it draws comes with every call."""

    view: LayerView
    size: int
    num_tensors: int

    @abstractmethod
    def draw(self, seed: int) -> Iterator[tf.Tensor]:
        """Yield `num_tensors` tensors."""

    @abstractmethod
    def apply(self, rows: tf.Tensor, drawn: list[Any]) -> tf.Tensor:
        """Return the features ``(r, size)`` of columns ``(r, q)``."""

    @abstractmethod
    def adjoint(self, coordinates: tf.Tensor, drawn: list[Any]) -> tf.Tensor:
        """Return the columns ``(r, q)`` of features ``(r, size)``."""

    def project(self, block: GradientBlock, drawn: list[Any]) -> tf.Tensor:
        """Return the features ``(b, size)`` of a block of the same variables."""
        return self.apply(block.rows(), drawn)


class ProjectedVector(ProjectedLayer):
    """The entries as they are, or a sparse sign projection where they are too many."""

    def __init__(self, view: LayerView, most: int) -> None:
        (length,) = view.shape
        self.view = view
        self.size, self.num_tensors = min(length, most), int(length > most)
        self._signs = SparseSigns(self.size, length, 1, view.parts[0])

    def draw(self, seed: int) -> Iterator[tf.Tensor]:
        if self.num_tensors:
            yield tf.constant(seed, tf.int64)

    def apply(self, rows: tf.Tensor, drawn: list[Any]) -> tf.Tensor:
        return self._signs.apply(rows, *drawn) if drawn else rows

    def adjoint(self, coordinates: tf.Tensor, drawn: list[Any]) -> tf.Tensor:
        return self._signs.adjoint(coordinates, *drawn) if drawn else coordinates


class LayerwiseProjection(Projection):
    """A projection whose features belong to one layer each.

    To be implemented by subclasses: the constructor sets `_layers`, one for each of `layer_views`.
    """

    _layers: list[ProjectedLayer]

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self._layers)

    @property
    def layer_of_feature(self) -> np.ndarray:
        layers = [layer.view.layer for layer in self._layers]
        return np.repeat(layers, [layer.size for layer in self._layers])

    def draw(self, seed: int) -> Iterator[tf.Tensor]:
        """Yield the tensors of each layer."""
        for layer in self._layers:
            yield from layer.draw(seed)

    def project(self, gradients: BatchGradients) -> tf.Tensor:
        by_parts = {placed.parts: placed.block for placed in gradients.blocks}
        features = []
        for layer, drawn in self._drawn():
            parts = layer.view.parts
            if parts in by_parts:
                features.append(layer.project(by_parts[parts], drawn))
                continue
            # A kernel and its bias may be served apart from each other, or in another order.
            rows = [self._rows_of(gradients, part) for part in parts]
            features.append(layer.apply(tf.concat(rows, axis=1), drawn))
        return tf.concat(features, axis=1)

    def _drawn(self) -> Iterator[tuple[ProjectedLayer, list[Any]]]:
        """Yield each layer with its tensors."""
        tensors = iter(self.tensors)
        for layer in self._layers:
            yield layer, list(islice(tensors, layer.num_tensors))

    def _rows_of(self, gradients: BatchGradients, part: int) -> tf.Tensor:
        """Return the gradient rows ``(b, size)`` of one variable."""
        placed = next(block for block in gradients.blocks if part in block.parts)
        sizes = [self.layout.sizes[other] for other in placed.parts]
        return tf.split(placed.block.rows(), sizes, axis=1)[placed.parts.index(part)]

    def apply(self, vectors: tf.Tensor) -> tf.Tensor:
        features = [
            layer.apply(take_columns(vectors, layer.view.parts, self.layout), drawn)
            for layer, drawn in self._drawn()
        ]
        return tf.concat(features, axis=1)

    def adjoint(self, coordinates: tf.Tensor) -> tf.Tensor:
        split = tf.split(coordinates, [layer.size for layer in self._layers], axis=1)
        columns = [
            layer.adjoint(features, drawn)
            for (layer, drawn), features in zip(self._drawn(), split, strict=True)
        ]
        # The views follow the parameter vector, so that their columns need no sorting.
        return tf.concat(columns, axis=1)


def checked_pair(name: str, value: Any) -> list[int]:
    """Return two counts, or one for both; a list, which JSON keeps.

    Raises
    ------
    ValueError
        If they are none.
    """
    pair = list(value) if isinstance(value, (tuple, list)) else [value, value]
    if len(pair) != 2:
        message = (
            f"Argument `{name}` must be a number or a pair (inputs, outputs). Received: {value!r}."
        )
        raise ValueError(message)
    return [check_count(name, count) for count in pair]
