"""Calculators that score training examples against query examples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from ..gradients.passes import Pass, query_and_train_passes
from ..types import Batch, Data, IdFunction
from ..utils.digests import example_digests
from ..utils.example_ids import POSITION
from ..utils.lazy import lazy_dataset
from ..utils.nearest_neighbors import BaseNearestNeighbors, check_nearest_neighbors
from ..utils.top_k import ORDER, check_k, check_order
from .blocks import InfluenceBlock, lined_up
from .caching import CACHE, save_vectors
from .pairs import PairCalculator
from .sample_pool import SamplePool
from .specs import relaxed_element_spec, top_k_spec
from .stored_matrix import MatrixHeader
from .top_k import TopK, best_of, of_all_queries


class BaseInfluenceCalculator(PairCalculator):
    """Base class of methods that score a training example against a query.

    To be implemented by subclasses: `_train_vectors` and `_query_vectors`; a score is their inner
    product unless `_pairwise` says otherwise. A complete calculator::

        class GradientCosine(BaseInfluenceCalculator):
            def _train_vectors(self, batch):
                return tf.math.l2_normalize(self.engine.gradients(batch).materialize(), axis=1)

            def _query_vectors(self, batch):
                gradients = self.query_engine.gradients(batch)
                return tf.math.l2_normalize(gradients.materialize(), axis=1)

    A method that can score a batch from its factored gradients overrides `_query_factors` and
    `_scores_of_batch` as well, which every method here but the caching ones goes through.

    Parameters
    ----------
    model
        The wrapped model.
    measurement
        What is looked at on the side of the queries, in place of their loss: ``"margin"``,
        ``"logit"``, or a function of targets and outputs that returns a number for each example;
        see `measured_model`. A positive score means that it would rise without the training
        example.
    """

    def compute_influence_vector(
        self,
        train_set: Data,
        save_influence_vector_ds_path: str | Path | None = None,
        device: str | None = None,
        id_fn: IdFunction | None = None,
    ) -> tf.data.Dataset:
        """Compute the influence vector of every training example, lazily.

        Parameters
        ----------
        train_set
            A batched dataset.
        save_influence_vector_ds_path
            Where to keep the vectors on disk; they are computed at once then.
        device
            Where to compute; None leaves it to TensorFlow.
        id_fn
            As for `score`; the ids are saved with the vectors.

        Returns
        -------
        A dataset of ``((batch...), vectors (b, p))``.
        """
        data = Pass(train_set, "train_set", "Influence vectors", id_fn, device, "auto")
        data.checked(self.engine, opened=True)
        if save_influence_vector_ds_path is not None:
            computed = self._vectors(data)
            vectors = ((i.ids, v, example_digests(i.batch).numpy()) for i, v in computed)
            save_vectors(vectors, save_influence_vector_ds_path, self.origin())
        signature = (
            relaxed_element_spec(train_set),
            tf.TensorSpec((None, None), self.model.dtype),
        )

        def generate() -> Iterator[tuple[Batch, tf.Tensor]]:
            for item, vectors in self._vectors(replace(data, verbose=0)):
                yield item.batch, vectors

        return lazy_dataset(generate, signature)

    def estimate_influence_values_in_batches(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        influence_vector_in_cache: CACHE = CACHE.NO_CACHE,
        load_influence_vector_path: str | Path | None = None,
        save_influence_vector_path: str | Path | None = None,
        save_influence_value_path: str | Path | None = None,
        device: str | None = None,
    ) -> Iterator[tuple[Batch, tf.data.Dataset]]:
        """Score the training set against each batch of queries.

        One pass over the training set serves all batches of queries whose vectors fit in memory
        together. It takes place when scores are first asked for; at once where they are saved.

        Parameters
        ----------
        dataset_to_evaluate
            The queries, batched.
        train_set
            The training examples, batched.
        influence_vector_in_cache
            `CACHE.NO_CACHE` scores from factored gradients and keeps nothing, which needs no
            ``(n, p)`` array. `CACHE.MEMORY` computes the influence vectors once and keeps them in
            memory, `CACHE.DISK` reads them from ``load_influence_vector_path``.
        load_influence_vector_path
            Where `CACHE.DISK` finds the vectors.
        save_influence_vector_path
            Where to keep the vectors on disk for later.
        save_influence_value_path
            Directory for the scores: for each batch of queries a file ``batch_000000.npz``, which
            `InfluenceBlock.load` reads.
        device
            Where to compute; None leaves it to TensorFlow.

        Returns
        -------
        For each batch of queries: the batch, and a dataset of ``((training batch...), scores
        (m, b))``.
        """
        queries, train = query_and_train_passes(
            self.engine, dataset_to_evaluate, train_set, None, device, verbose=0, opened=True
        )
        if save_influence_vector_path is not None:
            self.compute_influence_vector(train_set, save_influence_vector_path, device)
        source = self._source(train, influence_vector_in_cache, load_influence_vector_path)
        folder = None if save_influence_value_path is None else Path(save_influence_value_path)
        return self._in_batches(source, queries, train, folder)

    def influence_blocks(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
        query_id_fn: IdFunction | None = None,
    ) -> Iterator[InfluenceBlock]:
        """Score every training example for every query, block after block.

        Everything that holds scores of pairs is put together of these blocks. Blocks of shards of
        the training set merge to those of the whole.

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

        Yields
        ------
        A block for each chunk of queries whose vectors fit in memory together, in the order of
        the datasets.
        """
        queries, train = query_and_train_passes(
            *(self.engine, dataset_to_evaluate, train_set, id_fn, device, verbose),
            query_id_fn=query_id_fn,
        )
        yield from self._blocks(self._streamed(train), queries)

    def influence_matrix(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        return_ids: bool = False,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
        query_id_fn: IdFunction | None = None,
        store: str | Path | None = None,
    ) -> Any:
        """Return the score of every training example for every query.

        Parameters
        ----------
        dataset_to_evaluate
            The m queries, batched.
        train_set
            The n training examples, batched.
        return_ids
            Whether the ids of queries and of training examples are returned as well.
        id_fn, device, verbose
            As for `score`.
        query_id_fn
            As ``id_fn``, for the queries.
        store
            A folder to write the scores to, part by part, where they do not fit in memory, or a
            run may be cut off: parts that are there are not computed again.

        Returns
        -------
        Array ``(m, n)``; with ``return_ids``: array, query ids ``(m,)``, training ids ``(n,)``.
        Without them rows and columns are in the order of the datasets, which has to be the same on
        every pass, whatever ``id_fn`` is. With ``store`` the array is a `StoredMatrix`, which has
        the ids as well.

        Raises
        ------
        DataSourceError
            If ``store`` holds something else, scores of other data, weights or settings.
        """
        if store is not None:
            passes = query_and_train_passes(
                *(self.engine, dataset_to_evaluate, train_set, id_fn, device, verbose),
                query_id_fn=query_id_fn,
            )
            kept = self._stored(*passes, MatrixHeader.checked_folder(store, "store"))
            return (kept, kept.query_ids, kept.train_ids) if return_ids else kept
        # Without ids in the result, a column is known by its position alone.
        id_fn = id_fn if return_ids else POSITION
        asked = (dataset_to_evaluate, train_set, id_fn, device, verbose, query_id_fn)
        found = lined_up(self.influence_blocks(*asked))
        return (found.values, found.query_ids, found.train_ids) if return_ids else found.values

    def find_top_k(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        k: int = 5,
        order: ORDER = ORDER.DESCENDING,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
        query_id_fn: IdFunction | None = None,
    ) -> TopK:
        """Find, for each query, the ids and scores of the k best training examples, at once.

        `top_k` gives the inputs of the examples as well, as a lazy dataset.

        Parameters
        ----------
        dataset_to_evaluate
            The m queries, batched.
        train_set
            The n training examples, batched.
        k
            How many for each query; all n where there are fewer.
        order
            `ORDER.DESCENDING` finds the examples that help most, `ORDER.ASCENDING` those that
            hurt most.
        id_fn, device, verbose
            As for `score`.
        query_id_fn
            As ``id_fn``, for the queries.

        Returns
        -------
        Best first; ties go to the smaller id. Those of shards of the training set merge.
        """
        k, order = check_k(k), check_order(order)
        queries, train = query_and_train_passes(
            *(self.engine, dataset_to_evaluate, train_set, id_fn, device, verbose),
            query_id_fn=query_id_fn,
        )
        source = self._streamed(train)
        parts = []
        for chunk in self._chunks(source, queries, whole=False):
            scored = ((ids, values) for _, ids, values in source.scored(chunk))
            parts.append(best_of(chunk.ids, scored, k, order))
        return of_all_queries(parts)

    def top_k(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        k: int = 5,
        nearest_neighbors: BaseNearestNeighbors | None = None,
        influence_vector_in_cache: CACHE = CACHE.NO_CACHE,
        load_influence_vector_ds_path: str | Path | None = None,
        save_influence_vector_ds_path: str | Path | None = None,
        save_top_k_ds_path: str | Path | None = None,
        order: ORDER = ORDER.DESCENDING,
        d_type: tf.DType | None = None,
        device: str | None = None,
        return_ids: bool = False,
        id_fn: IdFunction | None = None,
    ) -> tf.data.Dataset:
        """Find, for each query, the k training examples with the best scores.

        Parameters
        ----------
        dataset_to_evaluate
            The queries, batched.
        train_set
            The training examples, batched.
        k
            How many for each query; all n where there are fewer.
        nearest_neighbors
            How to search; None looks at every example.
        influence_vector_in_cache, load_influence_vector_ds_path, save_influence_vector_ds_path
            As for `estimate_influence_values_in_batches`.
        save_top_k_ds_path
            Where to save the result.
        order
            `ORDER.DESCENDING` finds the examples that help most, `ORDER.ASCENDING` those that
            hurt most.
        d_type
            Type of the returned scores; None keeps that of the model.
        device, id_fn
            As for `score`.
        return_ids
            Whether the ids ``(b, k)``, int64 or texts, come fourth.

        Returns
        -------
        A lazy dataset of ``(query batch, scores (b, k), training inputs (b, k, ...))``, best
        first; ties go to the smaller id.
        """
        check_k(k)
        order = check_order(order)
        search = check_nearest_neighbors(nearest_neighbors)
        # Each query comes with its result, wherever it stands.
        queries, train = query_and_train_passes(
            *(self.engine, dataset_to_evaluate, train_set, id_fn, device),
            verbose=0,
            opened=True,
            queries_in_order=False,
        )
        if save_influence_vector_ds_path is not None:
            self.compute_influence_vector(train_set, save_influence_vector_ds_path, device, id_fn)
        source = self._source(train, influence_vector_in_cache, load_influence_vector_ds_path)
        dtype = d_type or self.model.dtype

        def generate() -> Iterator[tuple]:
            for chunk in self._chunks(source, queries):
                pool = SamplePool(self.model)
                values, ids = search.search(
                    source.scored(chunk), len(chunk.ids), k, order, pool.update
                )
                samples = pool.collect(ids)
                for batch, rows in chunk.parts():
                    part = tf.nest.map_structure(lambda t, rows=rows: t[rows], samples)
                    found = (batch, tf.cast(values[rows], dtype), part)
                    yield (*found, ids[rows]) if return_ids else found

        def spec() -> tuple:
            id_type = train.id_type(self.engine) if return_ids else None
            return top_k_spec(self.model, dataset_to_evaluate, train_set, dtype, id_type)

        result = lazy_dataset(generate, spec)
        if save_top_k_ds_path is not None:
            # Computed before it is saved: TensorFlow's save never returns when its input fails.
            result = result.cache()
            for _ in result:
                pass
            result.save(str(save_top_k_ds_path))
        return result
