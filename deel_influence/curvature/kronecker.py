"""Kronecker-factored Fisher matrices, layer by layer.

The gradient of example i in a layer with inputs a_t and output gradients δ_t at the positions t
(of a sequence, of an image, of several uses; one for a plain dense layer) is the matrix
``G_i = Σ_t a_t δ_tᵀ``, ``(r, s)``, the bias being the row of a constant input of one. With rows one
after the other, ``a δᵀ`` flattens to ``a ⊗ δ``, so that the layer's block of the mean over the n
examples is

    F = (1/n) Σ_i Σ_t Σ_t' E (a_t a_t'ᵀ) ⊗ (δ_t δ_t'ᵀ)   ≈   A ⊗ G.

*expand* [2]_ drops the terms with t ≠ t' and takes inputs and output gradients of the N = Σ_i t_i
positions for independent, ``Σ x⊗y ≈ (Σ x) ⊗ (Σ y) / N``:

    A = (1/N) Σ_it a_it a_itᵀ,     G = (1/n) Σ_it δ_it δ_itᵀ.

Padding is no position: see `counted_positions`. It is exact where positions reach the loss side by
side and the layers are linear with a squared loss: then the draws of two positions are
uncorrelated, and δ does not depend on a.

*reduce* [2]_ takes one input and one gradient for each example, ``â_i = mean_t a_it`` and
``δ̂_i = Σ_t δ_it``, as if every position had the gradient δ̂_i / t:

    A = (1/n) Σ_i â_i â_iᵀ,        G = (1/n) Σ_i δ̂_i δ̂_iᵀ.

It is exact where a mean over the positions follows linear layers with a squared loss. With one
position both are the A and G of Martens & Grosse [1]_, and one example is reproduced exactly.

A layer without such a form gets its exact block ``(1/n) Σ g_i g_iᵀ`` if that is small, and
otherwise the diagonal of it.

References
----------
.. [1] J. Martens, R. Grosse. Optimizing Neural Networks with Kronecker-factored Approximate
   Curvature. ICML 2015.
.. [2] R. Eschenhagen, A. Immer, R. E. Turner, F. Schneider, P. Hennig. Kronecker-Factored
   Approximate Curvature for Modern Neural Network Architectures. NeurIPS 2023.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ..errors import CurvatureWarning
from ..gradients.batch_gradients import BatchGradients
from ..gradients.blocks import FactoredBlock, factored_block
from ..model.parameters import ParameterLayout
from .kronecker_basis import EigenBlock
from .kronecker_passes import Factors, FisherPass, HeldFactors, Parts, summed
from .sums import DenseSums, DiagonalSums, KroneckerSums, PlainSum

APPROXIMATIONS = ("expand", "reduce")

MAX_DENSE = 1024
"""Up to this many parameters, a layer without a Kronecker form gets its exact block."""


def fit_kronecker(
    fisher: FisherPass, approximation: str, held: HeldFactors | None = None
) -> list[EigenBlock]:
    """Return eigenvalues and eigenvectors of ``A ⊗ G``, or of what stands in for it, by layer.

    Parameters
    ----------
    fisher
        Model, data and gradients.
    approximation
        ``"expand"`` or ``"reduce"``: see the module.
    held
        Takes the inputs and output gradients, for `correct_eigenvalues`.

    Warns
    -----
    CurvatureWarning
        If layers get a diagonal only; the message names them.
    """
    holds = held is not None

    def sums(sets: list[BatchGradients]) -> tuple[dict, list[Factors]]:
        factors = [_factors_of(gradients) for gradients in sets]
        added = summed(sets, _plain_sums)
        counted = counted_positions(sets, factors)
        for parts, (inputs, _) in factors[0].items():
            deltas = [of_set[parts][1] for of_set in factors]
            added[parts] = _kronecker_sums(inputs, deltas, counted.get(parts), approximation)
        # In the order of the blocks, which that of the curvature has to be.
        added = {placed.parts: added[placed.parts] for placed in sets[0].blocks}
        return added, factors if holds else []

    name = ("covariances", approximation, holds)
    totals, count = fisher.total(name, sums, "Covariances", held=held)
    dtype = fisher.engine.model.dtype.as_numpy_dtype
    blocks = [total.eigen_block(parts, count, dtype) for parts, total in totals.items()]
    _name_exceptions(fisher.engine.model.layout, blocks)
    return blocks


def correct_eigenvalues(
    fisher: FisherPass, blocks: Sequence[EigenBlock], held: HeldFactors | None = None
) -> list[EigenBlock]:
    """Replace eigenvalues by the mean squares of the gradients in the eigenvectors' basis.

    That is the diagonal of ``Uᵀ F U``, of all diagonals the one nearest to F in the Frobenius
    norm, so never farther from it than that of the Kronecker product [1]_.

    Parameters
    ----------
    fisher
        Model, data and gradients.
    blocks
        What `fit_kronecker` returned for the same passes.
    held
        What it held; where that is not everything, the data are gone over again.

    References
    ----------
    .. [1] T. George, C. Laurent, X. Bouthillier, N. Ballas, P. Vincent. Fast Approximate Natural
       Gradient Descent in a Kronecker-factored Eigenbasis. NeurIPS 2018.
    """
    bases = {block.parts: (block.left, block.right) for block in blocks if block.right is not None}
    if not bases:
        return list(blocks)
    arguments = (tf.nest.map_structure(tf.constant, bases),)
    if held is not None and held.is_complete:
        totals, count = fisher.total_of_held(held, _rotated_squares, "Eigenvalues", arguments)
    else:

        def sums(sets: list[BatchGradients], bases: dict) -> tuple[dict, list]:
            def rotated(gradients: BatchGradients) -> dict:
                return {
                    placed.parts: PlainSum(placed.block.rotate(*bases[placed.parts]).squared_sum())
                    for placed in gradients.blocks
                    if placed.parts in bases
                }

            return summed(sets, rotated), []

        totals, count = fisher.total(("eigenvalues",), sums, "Eigenvalues", arguments)
    return [
        dataclasses.replace(
            block, values=np.reshape(totals[block.parts].total / count, block.values.shape)
        )
        if block.parts in totals
        else block
        for block in blocks
    ]


def counted_positions(
    sets: Sequence[BatchGradients], factors: Sequence[Factors]
) -> dict[Parts, tf.Tensor]:
    """Return which positions A and N count, bool, ``(b, t)``, of blocks that may have padding.

    Padding is what Keras masks, or what weighs nothing in the loss, *and* has δ = 0 in all sets: a
    layer that ignores its mask has positions like any other. Zero gradients alone do not make
    padding, as a ReLU gives them too.

    Parameters
    ----------
    sets
        The gradients of a batch.
    factors
        The inputs and output gradients of each set.
    """
    counted = {}
    for placed in sets[0].blocks:
        if placed.padding is not None and placed.parts in factors[0]:
            gradients = [tf.reduce_any(part[placed.parts][1] != 0, axis=2) for part in factors]
            counted[placed.parts] = ~placed.padding | tf.reduce_any(tf.stack(gradients), axis=0)
    return counted


def _factors_of(gradients: BatchGradients) -> Factors:
    """Return the inputs and output gradients of the blocks with a Kronecker form."""
    return {
        placed.parts: placed.block.positions()
        for placed in gradients.blocks
        if isinstance(placed.block, FactoredBlock) and placed.block.matrix_shape is not None
    }


def _rotated_squares(factors: Factors, bases: dict) -> dict[Parts, PlainSum]:
    """Return ``Σ_i G̃_i²`` of each block, from its factors."""
    return {
        parts: PlainSum(factored_block(*factors[parts]).rotate(*basis).squared_sum())
        for parts, basis in bases.items()
    }


def _kronecker_sums(
    inputs: tf.Tensor,
    deltas: Sequence[tf.Tensor],
    counted: tf.Tensor | None,
    approximation: str,
) -> KroneckerSums:
    """Add up ``(b, t, r)`` inputs, and ``(b, t, s)`` output gradients of each set."""
    each = tf.fill(tf.shape(inputs)[:1], tf.cast(tf.shape(inputs)[1], tf.float64))
    if counted is not None:
        inputs = tf.where(counted[:, :, None], inputs, tf.zeros_like(inputs))
        each = tf.reduce_sum(tf.cast(counted, tf.float64), axis=1)
    if approximation == "reduce":
        sizes = tf.cast(tf.maximum(each, 1), inputs.dtype)
        inputs = tf.reduce_sum(inputs, axis=1) / sizes[:, None]
        deltas = [tf.reduce_sum(part, axis=1) for part in deltas]
        num_inputs = tf.math.count_nonzero(each, dtype=tf.float64)
    else:
        num_inputs = tf.reduce_sum(each)
    return KroneckerSums(
        _gram(tf.reshape(inputs, (-1, int(inputs.shape[-1])))),
        tf.add_n([_gram(tf.reshape(part, (-1, int(part.shape[-1])))) for part in deltas]),
        num_inputs,
        tf.reduce_sum(tf.maximum(each, 1)),
    )


def _plain_sums(gradients: BatchGradients) -> dict[Parts, DenseSums | DiagonalSums]:
    """Add up outer products of the rows of the blocks without a Kronecker form, or squares."""
    added: dict[Parts, DenseSums | DiagonalSums] = {}
    for placed in gradients.blocks:
        if isinstance(placed.block, FactoredBlock) and placed.block.matrix_shape is not None:
            continue
        rows = placed.block.rows()
        if rows.shape[1] is not None and rows.shape[1] <= MAX_DENSE:
            added[placed.parts] = DenseSums(_gram(rows))
        else:
            added[placed.parts] = DiagonalSums(placed.block.squared_sum())
    return added


def _gram(rows: tf.Tensor) -> tf.Tensor:
    # A tenth faster on CPU than letting the product transpose its argument.
    return tf.matmul(tf.transpose(rows), rows)


def _name_exceptions(layout: ParameterLayout, blocks: Sequence[EigenBlock]) -> None:
    """Say which variables have no Kronecker form, and what they get instead."""
    exact = [block for block in blocks if block.right is None and block.left is not None]
    diagonal = [block for block in blocks if block.left is None]
    if exact:
        logging.getLogger(__name__).info(
            "No Kronecker form, and so an exact block: %s", _names(layout, exact)
        )
    if diagonal:
        message = (
            f"These variables have no Kronecker form and more than {MAX_DENSE} parameters, so "
            f"that only the diagonal of their curvature is kept: {_names(layout, diagonal)}. "
            "Where their correlations matter, leave them out of the watched layers or use "
            "ihvp_calculator='cgd'."
        )
        warnings.warn(message, CurvatureWarning, stacklevel=2)


def _names(layout: ParameterLayout, blocks: Sequence[EigenBlock]) -> str:
    return ", ".join(layout.variables[part].path for block in blocks for part in block.parts)
