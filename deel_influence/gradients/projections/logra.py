"""LoGra: gradients projected on both sides of each layer's gradient matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ...model.influence_model import BaseInfluenceModel
from ..blocks import GradientBlock
from .layers import (
    LayerView,
    LayerwiseProjection,
    ProjectedLayer,
    ProjectedVector,
    checked_pair,
    layer_views,
)

DEFAULT_DIMS = (16, 16)
"""Features on both sides of each layer, unless told."""


class LoGraProjection(LayerwiseProjection):
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
        super().__init__(model, checked_pair("projection_dim", projection_dim), seed)
        self._layers = [
            _ProjectedMatrix(view, self.projection_dim, self.dtype)
            if len(view.shape) == 2
            else ProjectedVector(view, math.prod(self.projection_dim))
            for view in layer_views(self.layout)
        ]

    @classmethod
    def of_dim(cls, model: BaseInfluenceModel, projection_dim: Any, seed: int) -> LoGraProjection:
        """Return the projection of each layer to so many features; None takes ``(16, 16)``."""
        wanted = DEFAULT_DIMS if projection_dim is None else projection_dim
        return cls(model, wanted, seed)


class _ProjectedMatrix(ProjectedLayer):
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
