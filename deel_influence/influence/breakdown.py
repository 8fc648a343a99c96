"""First-order influence, taken apart by layer and by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from ..calculators.blocks import lined_up
from ..calculators.queries import ScoreSource
from ..errors import UnknownLayerError
from ..gradients.passes import Pass, query_and_train_passes
from ..types import Batch, Data, IdFunction
from .first_order import FirstOrderInfluenceCalculator

Terms: TypeAlias = Callable[[tf.Tensor, Batch], tf.Tensor]
"""Gives the terms ``(·, m, b)`` of a training batch for queries ``(m, p)``."""


@dataclass(frozen=True)
class LayerScores:
    """The terms of an influence matrix from each watched layer.

    Attributes
    ----------
    layers
        The paths of the layers, in the order of the parameter vector.
    values
        Shape ``(layers, m, n)``; their sum over the layers is the influence matrix.
    query_ids, train_ids
        int64, shapes ``(m,)`` and ``(n,)``.
    """

    layers: tuple[str, ...]
    values: np.ndarray
    query_ids: np.ndarray
    train_ids: np.ndarray

    def __getitem__(self, layer: str) -> np.ndarray:
        """Return the scores ``(m, n)`` of one layer, by its path.

        Raises
        ------
        UnknownLayerError
            If it is not watched.
        """
        if layer not in self.layers:
            message = (
                f"A layer must be one of those watched, {list(self.layers)}. Received: {layer!r}."
            )
            raise UnknownLayerError(message)
        return self.values[self.layers.index(layer)]


@dataclass(frozen=True)
class TokenScores:
    """The terms of the scores of a training batch from each of its tokens.

    Attributes
    ----------
    batch
        The training batch.
    values
        Shape ``(m, b, t)``; their sum over the tokens is the score of the example.
    query_ids, train_ids
        int64, shapes ``(m,)`` and ``(b,)``.
    """

    batch: Batch
    values: np.ndarray
    query_ids: np.ndarray
    train_ids: np.ndarray


class InfluenceBreakdownCalculator(FirstOrderInfluenceCalculator):
    """First-order influence that says which layer, and which token, it comes from [1]_.

    With ``v = H⁻¹ g(z)``, the influence value ``vᵀ g(z_i)`` is a sum over the watched layers l of
    ``v_lᵀ g_l(z_i)``, and, for layers that run along a sequence, ``g_l(z_i) = Σ_t a_t δ_tᵀ`` is a
    sum over its positions t. The terms add up to the influence value; a single one may have any
    sign. Scores, vectors and top-k are those of `FirstOrderInfluenceCalculator`, whose parameters
    it takes.

    References
    ----------
    .. [1] R. Grosse et al. Studying Large Language Model Generalization with Influence Functions.
       arXiv 2308.03296, 2023.
    """

    def influence_by_layer(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
        query_id_fn: IdFunction | None = None,
    ) -> LayerScores:
        """Return the influence of each training example on each query, layer by layer.

        Parameters
        ----------
        dataset_to_evaluate
            The m queries, batched.
        train_set
            The n training examples, batched.
        id_fn, device, verbose
            As for `score`.
        query_id_fn
            As ``id_fn``, for the queries.
        """
        queries, train = query_and_train_passes(
            *(self.engine, dataset_to_evaluate, train_set, id_fn, device, verbose),
            query_id_fn=query_id_fn,
        )
        source = self._terms(train, self._layers_of_batch)
        found = lined_up(self._blocks(source, queries))
        names = tuple(block.name for block in self.model.layout.blocks)
        # Blocks have the queries and the training examples first.
        matrix = np.moveaxis(found.values, 2, 0)
        return LayerScores(names, matrix, found.query_ids, found.train_ids)

    def influence_by_token(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
        query_id_fn: IdFunction | None = None,
    ) -> Iterator[TokenScores]:
        """Yield the influence of the tokens of each training batch on each query.

        Parameters
        ----------
        dataset_to_evaluate
            The m queries, batched; where they do not fit in memory at once, the training set is
            gone over again for each part of them.
        train_set
            The training examples, batched: sequences of t tokens.
        id_fn, device, verbose
            As for `score`.
        query_id_fn
            As ``id_fn``, for the queries.

        Yields
        ------
        The scores of one training batch.

        Raises
        ------
        UnsupportedModelError
            If a watched layer does not run along the sequence.
        """
        queries, train = query_and_train_passes(
            *(self.engine, dataset_to_evaluate, train_set, id_fn, device, verbose),
            query_id_fn=query_id_fn,
        )
        source = self._terms(train, self._tokens_of_batch)
        for chunk in self._chunks(source, queries, whole=False):
            for batch, ids, values in source.scored(chunk):
                yield TokenScores(batch, np.moveaxis(values, 0, 2), chunk.ids, ids)

    def _solving_hooks(self) -> frozenset[str]:
        hooks = {"_query_solutions"}
        hooks |= {"_layers_of_batch", "_tokens_of_batch"} if self.normalize else set()
        return super()._solving_hooks() | hooks

    def _terms(self, train: Pass, hook: Terms) -> ScoreSource:
        """Return where the terms of a hook come from, given ``H⁻¹ g(z)`` in all parameters."""
        return ScoreSource(self._query_solutions, self._streamed(train, hook).scored)

    def _query_solutions(self, batch: Batch) -> tf.Tensor:
        """Return ``H⁻¹ g(z)``, shape ``(m, p)``."""
        return self.ihvp_calculator.solve(self._query_vectors(batch))

    def _layers_of_batch(self, factors: tf.Tensor, batch: Batch) -> tf.Tensor:
        """Return the terms of each layer, shape ``(layers, m, b)``."""
        return self._divided_terms(self._layer_terms, factors, batch)

    def _tokens_of_batch(self, factors: tf.Tensor, batch: Batch) -> tf.Tensor:
        """Return the terms of each token, shape ``(t, m, b)``."""
        return self._divided_terms(self._token_terms, factors, batch)

    def _divided_terms(self, terms: Terms, factors: tf.Tensor, batch: Batch) -> tf.Tensor:
        # An eager hook has gradients as rows, which know of no tokens: the terms are traced.
        compute = self._kernel(terms) if tf.executing_eagerly() else terms
        values = compute(factors, batch)
        return (
            self._divided(values, self.engine.graph_gradients(batch)) if self.normalize else values
        )

    def _layer_terms(self, factors: tf.Tensor, batch: Batch) -> tf.Tensor:
        """Return ``v_lᵀ g_l(z_i)``, shape ``(layers, m, b)``."""
        return tf.transpose(self.engine.gradients(batch).layer_dots(factors), (0, 2, 1))

    def _token_terms(self, factors: tf.Tensor, batch: Batch) -> tf.Tensor:
        """Return ``Σ_l a_tᵀ V_l δ_t``, shape ``(t, m, b)``."""
        return tf.transpose(self.engine.gradients(batch).position_dots(factors), (1, 2, 0))
