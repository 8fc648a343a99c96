"""LoGra: gradients projected on both sides of each layer's gradient matrix."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf

from ...linalg.checks import check_count
from ...model.influence_model import BaseInfluenceModel
from ...model.parameters import ParameterLayout
from ..batch_gradients import BatchGradients, take_columns
from ..blocks import GradientBlock
from .base import Projection
from .sparse import SparseSigns

DEFAULT_DIMS = (16, 16)
"""Features on both sides of each layer, unless told."""


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


class LoGraProjection(Projection):
    """``leftᵀ G_i right`` for the gradient matrix ``G_i`` of each layer [1]_.

    The two small matrices act on a layer's inputs and on the gradients in its outputs, so that the
    features of a dense layer are ``(leftᵀ a) (rightᵀ δ)ᵀ``, and no gradient row is ever built.
    They are random orthonormal columns, scaled to ``E left leftᵀ = I``; a side that is not longer
    than its projection stays as it is. Variables that are no matrix keep their entries up to as
    many as a matrix gets features, and go through a sparse sign projection beyond.

    Parameters
    ----------
    model
        The wrapped model.
    projection_dim
        Features ``(k_i, k_o)`` on the side of each layer's inputs and of its outputs, k_i·k_o in
        all for each layer; one number stands for both.
    seed
        Fixes the matrices.

    References
    ----------
    .. [1] S. K. Choe, H. Ahn, J. Bae, K. Zhao, M. Kang, Y. Chung, A. Pratapa, W. Neiswanger, E.
       Strubell, T. Mitamura, J. Schneider, E. Hovy, R. Grosse, E. Xing. What is Your Data Worth to
       GPT? LLM-Scale Data Valuation with Influence Functions. arXiv:2405.13954, 2024.
    """

    name = "logra"

    def __init__(
        self,
        model: BaseInfluenceModel,
        projection_dim: int | Sequence[int] = DEFAULT_DIMS,
        seed: int = 0,
    ) -> None:
        super().__init__(model, _checked_dim(projection_dim), seed)
        self._layers = [
            _ProjectedMatrix(view, self.projection_dim, self.dtype)
            if len(view.shape) == 2
            else _ProjectedVector(view, math.prod(self.projection_dim))
            for view in layer_views(self.layout)
        ]

    @classmethod
    def of_dim(cls, model: BaseInfluenceModel, projection_dim: Any, seed: int) -> LoGraProjection:
        """Return the projection of each layer to so many features; None takes ``(16, 16)``."""
        wanted = DEFAULT_DIMS if projection_dim is None else projection_dim
        return cls(model, wanted, seed)

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self._layers)

    @property
    def layer_of_feature(self) -> np.ndarray:
        layers = [layer.view.layer for layer in self._layers]
        return np.repeat(layers, [layer.size for layer in self._layers])

    def draw(self, seed: int) -> Iterator[tf.Tensor]:
        """Yield the bases ``(r, k_i)`` and ``(s, k_o)`` of each layer, or the seed of its signs.

        Sides that stay as they are have none.
        """
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

    def _drawn(self) -> Iterator[tuple[_ProjectedLayer, list[Any]]]:
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


class _ProjectedLayer(ABC):
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


class _ProjectedMatrix(_ProjectedLayer):
    """``G ↦ leftᵀ G right`` with two bases; a side that is no longer than its width has none."""

    def __init__(self, view: LayerView, widths: Sequence[int], dtype: tf.DType) -> None:
        self.view, self._dtype = view, dtype
        self._shape = tuple(min(pair) for pair in zip(view.shape, widths, strict=True))
        self._sides = [side for side in (0, 1) if self._shape[side] < view.shape[side]]
        self.size, self.num_tensors = math.prod(self._shape), len(self._sides)

    def draw(self, seed: int) -> Iterator[tf.Tensor]:
        for side in self._sides:
            size, width = self.view.shape[side], self._shape[side]
            generator = np.random.default_rng([seed, self.view.parts[0], side])
            basis, upper = np.linalg.qr(generator.standard_normal((size, width)))
            # The signs are LAPACK's choice; the projector on random directions has the
            # expectation width/size.
            basis *= np.sign(np.diag(upper)) * np.sqrt(size / width)
            yield tf.constant(basis, self._dtype)

    def _bases(self, drawn: list[Any]) -> list[tf.Tensor | None]:
        """Return the bases ``(r, k_i)`` and ``(s, k_o)``, None for a side that stays as it is."""
        by_side = dict(zip(self._sides, map(tf.convert_to_tensor, drawn), strict=True))
        return [by_side.get(side) for side in (0, 1)]

    def project(self, block: GradientBlock, drawn: list[Any]) -> tf.Tensor:
        if block.matrix_shape != self.view.shape or not self._sides:
            return super().project(block, drawn)
        bases = [
            tf.eye(size, dtype=self._dtype) if basis is None else basis
            for size, basis in zip(self.view.shape, self._bases(drawn), strict=True)
        ]
        return block.rotate(*bases).rows()

    def apply(self, rows: tf.Tensor, drawn: list[Any]) -> tf.Tensor:
        left, right = self._bases(drawn)
        matrices = tf.reshape(rows, (-1, *self.view.shape))
        if left is not None:
            matrices = tf.matmul(left, matrices, transpose_a=True)
        if right is not None:
            matrices = tf.matmul(matrices, right)
        return tf.reshape(matrices, (-1, self.size))

    def adjoint(self, coordinates: tf.Tensor, drawn: list[Any]) -> tf.Tensor:
        left, right = self._bases(drawn)
        matrices = tf.reshape(coordinates, (-1, *self._shape))
        if left is not None:
            matrices = tf.matmul(left, matrices)
        if right is not None:
            matrices = tf.matmul(matrices, right, transpose_b=True)
        return tf.reshape(matrices, (-1, math.prod(self.view.shape)))


class _ProjectedVector(_ProjectedLayer):
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


def _checked_dim(projection_dim: Any) -> list[int]:
    """Return both widths; a list, which JSON keeps."""
    listed = isinstance(projection_dim, (tuple, list))
    dims = list(projection_dim) if listed else [projection_dim, projection_dim]
    if len(dims) != 2:
        message = (
            "Argument `projection_dim` of LoGra must be a number or a pair (inputs, outputs). "
            f"Received: {projection_dim!r}."
        )
        raise ValueError(message)
    return [check_count("projection_dim", dim) for dim in dims]
