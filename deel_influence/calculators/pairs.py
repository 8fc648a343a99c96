"""What calculators of scores for pairs compute, and how the data stream through it."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import NoGradientWarning
from ..gradients.engine import GradientEngine
from ..model.influence_model import BaseInfluenceModel
from ..model.measurements import Measurement, measured_model
from ..types import Batch, IdFunction
from ..utils.digests import example_digests
from ..utils.lazy import lazy_dataset
from ..utils.running import run
from .caching import CACHE, VectorReader, vector_origin
from .queries import Queries, ScoredBatches, ScoreSource, query_chunks
from .self_influence import SelfInfluenceCalculator
from .specs import inputs_spec


class PairCalculator(SelfInfluenceCalculator):
    """The hooks of `BaseInfluenceCalculator`, and the streams that run them.

    To be implemented by subclasses: `_train_vectors` and `_query_vectors`.

    Parameters
    ----------
    model
        The wrapped model.
    measurement
        What is looked at on the side of the queries; see `measured_model`.
    """

    _zeros_are_usual = False
    _made_again = frozenset({"_kernels", "query_model", "query_engine"})

    def __init__(self, model: BaseInfluenceModel, measurement: Measurement = None) -> None:
        super().__init__(model)
        self.measurement = measurement
        self._look_at_queries()

    def _look_at_queries(self) -> None:
        self.query_model = measured_model(self.model, self.measurement)
        self.query_engine = GradientEngine.of(self.query_model)

    def _make_again(self) -> None:
        super()._make_again()
        self._look_at_queries()

    def origin(self) -> str:
        """Return a digest of what scores depend on besides the data: class, model and settings."""
        return vector_origin(self, self._vector_settings())

    @property
    def _engines(self) -> tuple[GradientEngine, ...]:
        return (self.engine, self.query_engine)

    @abstractmethod
    def _train_vectors(self, batch: Batch) -> tf.Tensor:
        """Return the influence vectors ``(b, p)`` of training examples; traceable."""

    @abstractmethod
    def _query_vectors(self, batch: Batch) -> tf.Tensor:
        """Return the vectors ``(b, p)`` of query examples; traceable."""

    def _pairwise(self, queries: tf.Tensor, train: tf.Tensor) -> tf.Tensor:
        """Return the scores ``(m, b)`` of vectors ``(m, p)`` and ``(b, p)``."""
        return tf.matmul(queries, train, transpose_b=True)

    def _query_factors(self, batch: Batch) -> tf.Tensor:
        """Return what `_scores_of_batch` needs of the queries, ``(m, q)``; traceable."""
        return self._query_vectors(batch)

    def _scores_of_batch(self, factors: tf.Tensor, batch: Batch) -> tf.Tensor:
        """Return the scores ``(m, b)`` of a training batch; traceable."""
        return self._pairwise(factors, self._train_vectors(batch))

    def _self_scores(self, batch: Batch) -> tf.Tensor:
        queries, train = self._query_vectors(batch), self._train_vectors(batch)
        return tf.linalg.diag_part(self._pairwise(queries, train))

    def _source(
        self,
        train_set: tf.data.Dataset,
        cache: CACHE,
        load_path: str | Path | None,
        id_fn: IdFunction | None,
        device: str | None,
    ) -> ScoreSource:
        """Choose where the scores of the training set come from."""
        if cache is CACHE.NO_CACHE:
            return self._streamed(train_set, id_fn, device, verbose=0)
        if cache is CACHE.MEMORY:
            kept = list(self._vectors(train_set, id_fn, device, verbose=0))
            return self._cached(lambda: iter(kept), device)
        if cache is not CACHE.DISK:
            message = (
                "Argument `influence_vector_in_cache` must be a member of CACHE. "
                f"Received: {cache!r}."
            )
            raise ValueError(message)
        if load_path is None:
            message = "CACHE.DISK needs the path of saved influence vectors. Received: None."
            raise ValueError(message)
        origin = self.origin()
        VectorReader(load_path, origin)  # a wrong path is reported now, not at the first query

        def read() -> Iterator[tuple[Batch, np.ndarray, tf.Tensor]]:
            reader = VectorReader(load_path, origin)
            for _, batch, ids in self._stream(train_set, id_fn, "Influence", 0):
                yield batch, ids, reader.read(ids, example_digests(batch).numpy())
            reader.finish()

        return self._cached(read, device)

    def _streamed(
        self,
        train_set: tf.data.Dataset,
        id_fn: IdFunction | None,
        device: str | None,
        verbose: str | int,
        hook: Callable[[tf.Tensor, Batch], tf.Tensor] | None = None,
    ) -> ScoreSource:
        """Score from factored gradients, batch by batch, keeping nothing."""
        hook = hook or self._scores_of_batch

        def scored(chunk: Queries) -> ScoredBatches:
            for index, batch, ids in self._stream(train_set, id_fn, "Influence", verbose):
                kernel = self._kernel(hook.__name__, hook)
                yield batch, ids, run(kernel, index, ids, (chunk.vectors, batch), device).numpy()

        return ScoreSource(lambda: self._kernel("query_factors", self._query_factors), scored)

    def _vector_settings(self) -> tuple:
        """Return the settings that influence vectors depend on. May be overridden."""
        return ()

    def _cached(
        self, vectors: Callable[[], Iterator[tuple[Batch, np.ndarray, tf.Tensor]]], device: Any
    ) -> ScoreSource:
        """Score from influence vectors that were computed before."""
        kernel = self._kernel("pairwise", self._pairwise)

        def scored(chunk: Queries) -> ScoredBatches:
            for index, (batch, ids, rows) in enumerate(vectors()):
                yield batch, ids, run(kernel, index, ids, (chunk.vectors, rows), device).numpy()

        return ScoreSource(lambda: self._kernel("query_vectors", self._query_vectors), scored)

    def _vectors(
        self,
        train_set: tf.data.Dataset,
        id_fn: IdFunction | None,
        device: str | None,
        verbose: str | int,
    ) -> Iterator[tuple[Batch, np.ndarray, tf.Tensor]]:
        """Yield batch, ids and influence vectors ``(b, p)`` of each training batch."""
        for index, batch, ids in self._stream(train_set, id_fn, "Influence vectors", verbose):
            kernel = self._kernel("train_vectors", self._train_vectors)
            yield batch, ids, run(kernel, index, ids, (batch,), device, axis=0)

    def _chunks(
        self,
        source: ScoreSource,
        dataset: tf.data.Dataset,
        id_fn: IdFunction | None,
        device: str | None,
        max_batches: int | None = None,
    ) -> Iterator[Queries]:
        """Yield the queries in chunks whose vectors fit a bounded amount of memory."""
        batches = self._stream(dataset, id_fn, "Queries", 0, "dataset_to_evaluate")

        def vectors_of(index: int, batch: Batch, ids: np.ndarray) -> tf.Tensor:
            return run(source.query_kernel(), index, ids, (batch,), device, axis=0)

        for chunk in query_chunks(batches, vectors_of, max_batches):
            if not self._zeros_are_usual:
                _tell_of_flat_queries(chunk)
            yield chunk

    def _scored_dataset(
        self, chunk: Queries, train_set: tf.data.Dataset, source: ScoreSource
    ) -> tf.data.Dataset:
        """Return a lazy dataset of ``(training inputs, scores (m, b))``."""
        signature = (
            inputs_spec(self.model, train_set),
            tf.TensorSpec((len(chunk.ids), None), self.model.dtype),
        )

        def generate() -> Iterator[tuple[Any, np.ndarray]]:
            for batch, _, values in source.scored(chunk):
                yield self.model.process_batch_for_loss_fn(batch)[0], values

        return lazy_dataset(generate, signature)


def _tell_of_flat_queries(chunk: Queries) -> None:
    """Warn of queries whose vector is zero, so that all scores are."""
    flat = chunk.ids[np.all(chunk.vectors.numpy() == 0, axis=1)]
    if not len(flat):
        return
    first = f"{flat[:5].tolist()}{' and others' if len(flat) > 5 else ''}"
    message = (
        f"{len(flat)} of {len(chunk.ids)} queries have no gradient, so that their scores are 0 and "
        f"say nothing. Received: the queries {first}, where what is looked at is flat: as a rule "
        "the loss of a label that is predicted with certainty. Pass measurement='logit' or "
        "'margin', which are not."
    )
    warnings.warn(message, NoGradientWarning, stacklevel=3)
