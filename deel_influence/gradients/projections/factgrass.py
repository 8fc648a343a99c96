"""FactGraSS: masked factors of each layer's gradient, and a sparse projection of their product."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ...linalg.checks import check_count
from ...model.influence_model import BaseInfluenceModel
from ..blocks import FactoredBlock, GradientBlock, OuterBlock, factored_block
from .layers import (
    LayerView,
    LayerwiseProjection,
    ProjectedLayer,
    ProjectedVector,
    checked_pair,
    layer_views,
)

DEFAULT_LAYER_DIM = 256
"""Features of each layer, unless told; as many as LoGra's."""


class FactGraSSProjection(LayerwiseProjection):
    """``S vec(G_i[I, J])``: a sparse projection of a part of each layer's gradient matrix [1]_.

    Of the inputs of a layer (a bias counts as one) some are drawn, I, and of its outputs J. The
    product ``Σ_t a_t[I] δ_t[J]ᵀ`` of what is left of the factors, times ``√(r/|I|) √(s/|J|)``, is a
    part of the gradient matrix ``(r, s)``. A sparse projection S adds each of its entries, with a
    random sign, to one of k features; a random order deals the entries out, so that all features
    get as many, up to one. No gradient row is built and no matrix is multiplied: an example costs
    ``|I|·|J|`` products and additions for each layer. I, J and S are independent of each other, so
    that ``E PᵀP = I``. Variables that are no matrix keep their entries up to k, and go through
    signs beyond.

    It is GraSS with random masks, for factored gradients. As of every mask, the error is large
    where few inputs or outputs make up the gradient.

    Parameters
    ----------
    model
        The wrapped model.
    projection_dim
        The number k of features of each layer.
    seed
        Fixes masks and signs.
    mask_dim
        How many inputs and outputs are drawn, ``(|I|, |J|)`` or one number for both. None takes
        ``2√k`` of each, 4k entries. A side that is not longer stays as it is.

    References
    ----------
    .. [1] P. Hu, J. Melkonian, W. Tang, H. Zhao, J. W. Ma. GraSS: Scalable Data Attribution with
       Gradient Sparsification and Sparse Projection. NeurIPS 2025.
    """

    name = "factgrass"

    def __init__(
        self,
        model: BaseInfluenceModel,
        projection_dim: int = DEFAULT_LAYER_DIM,
        seed: int = 0,
        mask_dim: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__(model, check_count("projection_dim", projection_dim), seed)
        widest = 2 * math.isqrt(self.projection_dim) if mask_dim is None else mask_dim
        self.mask_dim = checked_pair("mask_dim", widest)
        self._layers = [
            _MaskedMatrix(view, self.projection_dim, self.mask_dim, self.dtype)
            if len(view.shape) == 2
            else ProjectedVector(view, self.projection_dim)
            for view in layer_views(self.layout)
        ]

    @classmethod
    def of_dim(
        cls, model: BaseInfluenceModel, projection_dim: Any, seed: int
    ) -> FactGraSSProjection:
        """Return the projection of each layer to so many features; None takes 256."""
        return cls(model, DEFAULT_LAYER_DIM if projection_dim is None else projection_dim, seed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mask_dim": self.mask_dim}


class _MaskedMatrix(ProjectedLayer):
    """``G ↦ S vec(G[I, J])``; a side that is no longer than its mask has none, nor has S then."""

    def __init__(self, view: LayerView, most: int, widths: Sequence[int], dtype: tf.DType) -> None:
        self.view, self._dtype = view, dtype
        self._shape = tuple(min(pair) for pair in zip(view.shape, widths, strict=True))
        self._sides = [side for side in (0, 1) if self._shape[side] < view.shape[side]]
        self._scale = math.sqrt(math.prod(view.shape) / math.prod(self._shape))
        self.size = min(most, math.prod(self._shape))
        self._count = math.prod(self._shape)
        self._is_summed = self.size < self._count
        self.num_tensors = len(self._sides) + 2 * self._is_summed

    def draw(self, seed: int) -> Iterator[tf.Tensor]:
        for side in self._sides:
            generator = np.random.default_rng([seed, self.view.parts[0], side])
            size, width = self.view.shape[side], self._shape[side]
            drawn = generator.choice(size, width, replace=False, shuffle=False)
            yield tf.constant(np.sort(drawn), tf.int64)
        if self._is_summed:
            generator = np.random.default_rng([seed, self.view.parts[0], len(self._shape)])
            terms = -(-self._count // self.size)  # of a feature; the last may be none
            order, signs = np.zeros((2, terms * self.size), np.int64)
            order[: self._count] = generator.permutation(self._count)
            signs[: self._count] = generator.choice((-1, 1), self._count)
            yield tf.constant(order)
            yield tf.constant(signs, self._dtype)

    def project(self, block: GradientBlock, drawn: list[Any]) -> tf.Tensor:
        if block.matrix_shape != self.view.shape or not isinstance(block, FactoredBlock):
            return super().project(block, drawn)
        factors = list(block.positions())
        for side in self._sides:
            factors[side] = tf.gather(factors[side], self._places(side, drawn), axis=2)
        masked = factored_block(*factors)
        if not isinstance(masked, OuterBlock):
            return self._summed(tf.transpose(masked.rows()), drawn)
        left, right = tf.transpose(masked.inputs), tf.transpose(masked.deltas)
        products = left[:, None] * right[None]
        return self._summed(tf.reshape(products, (self._count, -1)), drawn)

    def apply(self, rows: tf.Tensor, drawn: list[Any]) -> tf.Tensor:
        matrices = tf.reshape(rows, (-1, *self.view.shape))
        for side in self._sides:
            matrices = tf.gather(matrices, self._places(side, drawn), axis=1 + side)
        return self._summed(tf.transpose(tf.reshape(matrices, (-1, self._count))), drawn)

    def adjoint(self, coordinates: tf.Tensor, drawn: list[Any]) -> tf.Tensor:
        entries = coordinates
        if self._is_summed:
            order, signs = self._terms(drawn)
            repeated = tf.tile(coordinates, (1, order.shape[0] // self.size)) * signs
            entries = tf.gather(repeated, tf.math.invert_permutation(order[: self._count]), axis=1)
        matrices = tf.reshape(entries * self._scale, (-1, *self._shape))
        for side in self._sides:
            places = tf.one_hot(self._places(side, drawn), self.view.shape[side], dtype=self._dtype)
            product = ("bij,ir->brj", "bij,js->bis")[side]
            matrices = tf.einsum(product, matrices, places)
        return tf.reshape(matrices, (-1, math.prod(self.view.shape)))

    def _places(self, side: int, drawn: list[Any]) -> tf.Tensor:
        """Return which inputs, side 0, or outputs, side 1, are kept."""
        places = tf.convert_to_tensor(drawn[self._sides.index(side)])
        return tf.ensure_shape(places, (self._shape[side],))

    def _terms(self, drawn: list[Any]) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the entries that features have for terms, one for each feature at a time."""
        order, signs = (tf.convert_to_tensor(tensor) for tensor in drawn[-2:])
        shape = (-(-self._count // self.size) * self.size,)
        return tf.ensure_shape(order, shape), tf.ensure_shape(signs, shape)

    def _summed(self, entries: tf.Tensor, drawn: list[Any]) -> tf.Tensor:
        """Return the features ``(b, k)`` of entries ``(|I|·|J|, b)``.

        With the examples last, what is gathered are rows, which takes a third of the time.
        """
        if self._is_summed:
            order, signs = self._terms(drawn)
            terms = tf.gather(entries, order) * signs[:, None]
            shape = (order.shape[0] // self.size, self.size, tf.shape(entries)[1])
            entries = tf.reduce_sum(tf.reshape(terms, shape), axis=0)
        return tf.transpose(entries) * self._scale
