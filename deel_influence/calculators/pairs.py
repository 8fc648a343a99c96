"""What calculators of scores for pairs compute, and how the data stream through it."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from ..errors import IgnoredArgumentWarning, NoGradientWarning
from ..gradients.engine import GradientEngine
from ..gradients.passes import Pass
from ..model.fingerprint import model_fingerprint
from ..model.influence_model import BaseInfluenceModel
from ..model.measurements import Measurement
from ..types import Batch
from ..utils.datasets import Item
from ..utils.digests import dataset_digest, example_digests, settings_digest
from ..utils.lazy import lazy_dataset
from ..utils.running import run
from .blocks import InfluenceBlock, ScoredTraining
from .caching import CACHE, VectorReader, vector_origin
from .described import PAIRS, SELF, Measured
from .queries import MAX_BATCH_BYTES, Queries, ScoredBatches, ScoreSource, query_chunks
from .self_influence import SelfInfluenceCalculator
from .specs import scored_spec
from .stored_matrix import StoredMatrix, write_matrix


class PairCalculator(SelfInfluenceCalculator, Measured):
    """The hooks of `BaseInfluenceCalculator`, and the streams that run them.

    To be implemented by subclasses: `_train_vectors` and `_query_vectors`.

    Parameters
    ----------
    model
        The wrapped model.
    measurement
        What is looked at on the side of the queries; see `measured_model`.
    """

    answers = frozenset({SELF, PAIRS})

    _zeros_are_usual = False

    def __init__(self, model: BaseInfluenceModel, measurement: Measurement = None) -> None:
        super().__init__(model)
        self.measurement = measurement
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

    def _kept_vectors(self, batch: Batch) -> tf.Tensor:
        """Return what an index keeps of training examples, ``(b, d)``; traceable.

        Scores are its products with what `_asking_vectors` gives of queries. May be overridden,
        both together, where less than the influence vectors will do.
        """
        return self._train_vectors(batch)

    def _asking_vectors(self, batch: Batch) -> tf.Tensor:
        """Return what an index is asked with, ``(b, d)``; traceable."""
        return self._query_vectors(batch)

    def _kept_with_scores(self, batch: Batch) -> tf.Tensor:
        """Return `_kept_vectors` and in a last column `_self_scores`, ``(b, d + 1)``; traceable."""
        return tf.concat([self._kept_vectors(batch), self._self_scores(batch)[:, None]], axis=1)

    def columns_of_layers(self) -> list[tuple[str, int, int]]:
        """Return each layer with the first and the last of its columns in an index, plus one.

        Empty where columns mix layers.
        """
        return []

    def kept_vectors(
        self, data: Pass, scored: bool
    ) -> Iterator[tuple[Item, np.ndarray, np.ndarray | None]]:
        """Yield each training batch with what an index keeps of it, and with its scores.

        Parameters
        ----------
        data
            The pass.
        scored
            Whether scores are computed.

        Yields
        ------
        The batch, vectors ``(b, d)``, and the score of each example for itself, ``(b,)``; None
        where they are not asked for, or several checkpoints add up to them.

        Raises
        ------
        ValueError
            If scores are no products of vectors.
        """
        self._check_products()
        hook = self._kept_with_scores if scored else self._kept_vectors
        for item, rows in self._computed(data, hook, axis=0):
            values = rows.numpy()
            yield (item, values[:, :-1], values[:, -1]) if scored else (item, values, None)

    def asking_vectors(self, queries: Pass) -> Iterator[tuple[Item, np.ndarray]]:
        """Yield each batch of queries with the vectors ``(b, d)`` that an index is asked with."""
        self._check_products()
        for item, rows in self._computed(queries, self._asking_vectors, axis=0):
            yield item, rows.numpy()

    @property
    def has_products(self) -> bool:
        """Whether scores are products of vectors, which an index can keep."""
        return type(self)._pairwise is PairCalculator._pairwise

    def _check_products(self) -> None:
        if self.has_products:
            return
        message = (
            "Argument `calculator` must score pairs by products of vectors, for an index to keep "
            f"these. Received: {self!r}, which has another rule. Use `influence_matrix` or `top_k`."
        )
        raise ValueError(message)

    def _self_scores(self, batch: Batch) -> tf.Tensor:
        queries, train = self._query_vectors(batch), self._train_vectors(batch)
        return tf.linalg.diag_part(self._pairwise(queries, train))

    def _source(
        self, train: Pass, cache: CACHE = CACHE.NO_CACHE, load_path: str | Path | None = None
    ) -> ScoreSource:
        """Choose where the scores of the training set come from."""
        if load_path is not None and cache in (CACHE.NO_CACHE, CACHE.MEMORY):
            message = (
                "The path of saved influence vectors has no effect without CACHE.DISK. Received: "
                f"{str(load_path)!r} with {cache}. Pass influence_vector_in_cache=CACHE.DISK, or "
                "leave the path out."
            )
            warnings.warn(message, IgnoredArgumentWarning, stacklevel=3)
        if cache is CACHE.NO_CACHE:
            return self._streamed(train)
        if cache is CACHE.MEMORY:
            kept = list(self._vectors(train))
            return self._cached(lambda: iter(kept), train.device)
        if cache is not CACHE.DISK:
            message = (
                "Argument `influence_vector_in_cache` must be a member of CACHE. "
                f"Received: {cache!r}."
            )
            raise ValueError(message)
        if load_path is None:
            message = (
                "Argument `load_influence_vector_path` must be the path of saved influence vectors "
                "for CACHE.DISK (`load_influence_vector_ds_path` in top_k). Received: None. Save "
                "them with `compute_influence_vector`, or pass CACHE.MEMORY."
            )
            raise ValueError(message)
        origin = self.origin()
        VectorReader(load_path, origin)  # a wrong path is reported now, not at the first query

        def read() -> Iterator[tuple[Item, tf.Tensor]]:
            reader = VectorReader(load_path, origin)
            for item in self._stream(train):
                yield item, reader.read(item.ids, example_digests(item.batch).numpy())
            reader.finish()

        return self._cached(read, train.device)

    def _streamed(self, train: Pass, hook: Callable[..., tf.Tensor] | None = None) -> ScoreSource:
        """Score from factored gradients, batch by batch, keeping nothing."""

        def scored(chunk: Queries) -> ScoredBatches:
            computed = self._computed(train, hook or self._scores_of_batch, (chunk.vectors,))
            for item, values in computed:
                yield item.batch, item.ids, values.numpy()

        return ScoreSource(self._query_factors, scored)

    def _vector_settings(self) -> tuple:
        """Return the settings that influence vectors depend on. May be overridden."""
        return ()

    def _cached(
        self, vectors: Callable[[], Iterator[tuple[Item, tf.Tensor]]], device: str | None
    ) -> ScoreSource:
        """Score from influence vectors that were computed before."""

        def scored(chunk: Queries) -> ScoredBatches:
            for item, rows in vectors():
                values = run(self._kernel(self._pairwise), item, (chunk.vectors, rows), device)
                yield item.batch, item.ids, values.numpy()

        return ScoreSource(self._query_vectors, scored)

    def _vectors(self, data: Pass) -> Iterator[tuple[Item, tf.Tensor]]:
        """Yield each training batch with its influence vectors ``(b, p)``."""
        return self._computed(data, self._train_vectors, axis=0)

    @property
    def _query_width(self) -> int:
        """A bound on the length of a query's vector. May be overridden."""
        return self.model.nb_params

    def _chunks(self, source: ScoreSource, queries: Pass, whole: bool = True) -> Iterator[Queries]:
        """Yield the queries in chunks whose vectors fit a bounded amount of memory.

        A batch whose vectors do not is a chunk of its own; unless it has to be ``whole`` because it
        is handed out with its scores, several.
        """
        most = MAX_BATCH_BYTES // (self._query_width * self.model.dtype.size)
        pieces = queries if whole else replace(queries, at_most=max(most, 1))
        for chunk in query_chunks(self._computed(pieces, source.query_hook, axis=0)):
            if not self._zeros_are_usual:
                _tell_of_flat_queries(chunk)
            yield chunk

    def _in_batches(
        self, source: ScoreSource, queries: Pass, train: Pass, folder: Path | None
    ) -> Iterator[tuple[Batch, tf.data.Dataset]]:
        """Return each batch of queries with the scored training set, written to a folder first."""
        answers: Iterable[tuple[Batch, slice, ScoredTraining]]
        answers = self._scored_queries(source, queries, train)
        if folder is not None:
            held: list[tuple[Batch, slice, ScoredTraining]] = []
            for batch, rows, found in answers:
                found.block(rows).save(folder / f"batch_{len(held):06d}.npz")
                found.let_go_of_queries()
                held.append((batch, rows, found))
            answers = held

        def scored() -> Iterator[tuple[Batch, tf.data.Dataset]]:
            for batch, rows, found in answers:
                spec = scored_spec(train.dataset, rows.stop - rows.start, self.model.dtype)
                yield batch, lazy_dataset(partial(found.batches, rows), spec)

        return scored()

    def _scored_queries(
        self, source: ScoreSource, queries: Pass, train: Pass
    ) -> Iterator[tuple[Batch, slice, ScoredTraining]]:
        """Yield each batch of queries, its rows in a chunk, and what scores that chunk."""
        for chunk in self._chunks(source, queries):
            found = ScoredTraining(
                chunk, source.scored, lambda: (item.batch for item in self._stream(train))
            )
            for batch, rows in chunk.parts():
                yield batch, rows, found

    def _blocks(self, source: ScoreSource, queries: Pass) -> Iterator[InfluenceBlock]:
        """Yield the scores of every pair, for each chunk of queries one block."""
        for chunk in self._chunks(source, queries, whole=False):
            parts = [(ids, values) for _, ids, values in source.scored(chunk)]
            ids = np.concatenate([ids for ids, _ in parts])
            values = np.concatenate([values for _, values in parts], axis=-1)
            # Where a score has parts, they come first in a batch, and last in a block.
            yield InfluenceBlock(chunk.ids, ids, np.moveaxis(values, (-2, -1), (0, 1)))

    def _stored(self, queries: Pass, train: Pass, folder: Path) -> StoredMatrix:
        """Compute what a folder lacks of the scores of every pair, and return them."""
        data = dataset_digest(queries.dataset)
        settings = {
            "calculator": type(self).__qualname__,
            "origin": self.origin(),
            "measured": settings_digest(model_fingerprint(self.query_model)),
            "queries": data["digest"],
            "num_queries": data["examples"],
        }
        chunks = self._chunks(self._streamed(train), queries, whole=False)
        write_matrix(
            *(folder, settings, chunks, train),
            lambda missing, chunk: self._streamed(missing).scored(chunk),
        )
        return StoredMatrix.load(folder)


def _tell_of_flat_queries(chunk: Queries) -> None:
    """Warn of queries whose vector is zero, so that all scores are."""
    flat = chunk.ids[np.all(chunk.vectors.numpy() == 0, axis=1)]
    if not len(flat):
        return
    first = f"{flat[:5].tolist()}{' and others' if len(flat) > 5 else ''}"
    message = (
        f"{len(flat)} of {len(chunk.ids)} queries have no gradient, so that their scores are 0 and "
        f"say nothing. Received: the queries {first}, where what is looked at is flat: as a rule "
        "the loss of a label that is the model's own prediction, or predicted with certainty. Pass "
        "measurement='logit' or 'margin', which are not."
    )
    warnings.warn(message, NoGradientWarning, stacklevel=3)
