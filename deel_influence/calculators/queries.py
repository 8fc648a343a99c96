"""Query examples in chunks that fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from ..errors import DatasetOrderError
from ..types import Batch
from ..utils.kernels import Kernel
from ..utils.records import RecordKind

MAX_CHUNK_BYTES = 2**28
"""Bound on the vectors of the queries that share one pass over the training set."""


VALUES = RecordKind("block of influence values", "Compute and save them again.")


@dataclass(frozen=True)
class Queries:
    """Some batches of queries, computed together.

    Attributes
    ----------
    batches
        The batches, as the dataset yielded them.
    sizes
        The number of queries in each.
    ids
        Their ids, int64, shape ``(m,)``.
    vectors
        What the scores need of them, shape ``(m, q)``.
    """

    batches: tuple[Batch, ...]
    sizes: tuple[int, ...]
    ids: np.ndarray
    vectors: tf.Tensor

    def parts(self) -> Iterator[tuple[Batch, slice]]:
        """Yield each batch with the rows of the chunk that it takes."""
        start = 0
        for batch, size in zip(self.batches, self.sizes, strict=True):
            yield batch, slice(start, start + size)
            start += size


ScoredBatches = Iterator[tuple[Batch, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class ScoreSource:
    """Where scores come from: what to compute of the queries, and then of the training set.

    Attributes
    ----------
    query_kernel
        Gives the kernel that computes the vectors ``(b, q)`` of a batch of queries.
    scored
        Yields, for a chunk of queries, each training batch, its ids ``(b,)`` and scores ``(m, b)``.
    """

    query_kernel: Callable[[], Kernel]
    scored: Callable[[Queries], ScoredBatches]


def lined_up(
    values: np.ndarray, ids: np.ndarray, first: np.ndarray | None, axis: int
) -> np.ndarray:
    """Return the scores of one pass with the training examples in the order of the first pass.

    Parameters
    ----------
    values
        Scores, with the n training examples along ``axis``.
    ids
        The ids ``(n,)`` in the order of this pass.
    first
        Those of the first pass; None where this is the first.
    axis
        Which axis is meant.

    Raises
    ------
    DatasetOrderError
        If the two passes did not have the same examples, each with an id of its own.
    """
    if first is None or np.array_equal(ids, first):
        return values
    order = np.argsort(ids, kind="stable")
    same = len(ids) == len(first) and np.array_equal(ids[order], np.unique(first))
    if not same:
        message = (
            "Argument `train_set` must yield the same examples on every pass, each with an id of "
            "its own. Received: others, or an id twice. Check `id_fn=`."
        )
        raise DatasetOrderError(message)
    return np.take(values, order[np.searchsorted(ids, first, sorter=order)], axis=axis)


def save_scored(path: Path, chunk: Queries, source: ScoreSource) -> None:
    """Write the scores of a chunk of queries, with all ids, to an ``.npz`` file."""
    parts = [(ids, values) for _, ids, values in source.scored(chunk)]
    arrays = {
        "query_ids": chunk.ids,
        "train_ids": np.concatenate([ids for ids, _ in parts]),
        "values": np.concatenate([values for _, values in parts], axis=1),
    }
    VALUES.write(path, {}, arrays)


def query_chunks(
    batches: Iterator[tuple[int, Batch, np.ndarray]],
    vectors_of: Callable[[int, Batch, np.ndarray], tf.Tensor],
    max_batches: int | None = None,
) -> Iterator[Queries]:
    """Group batches of queries into chunks.

    Parameters
    ----------
    batches
        Index, batch and ids of each batch.
    vectors_of
        Computes the vectors ``(b, q)`` of a batch.
    max_batches
        Bound on the batches of a chunk, besides that on its memory; None for no such bound.
    """
    held: list[tuple[Batch, np.ndarray, tf.Tensor]] = []
    held_bytes = 0
    for index, batch, ids in batches:
        vectors = vectors_of(index, batch, ids)
        size = int(np.prod(vectors.shape)) * vectors.dtype.size
        if held and (held_bytes + size > MAX_CHUNK_BYTES or len(held) == max_batches):
            yield _join(held)
            held, held_bytes = [], 0
        held.append((batch, ids, vectors))
        held_bytes += size
    if held:
        yield _join(held)


def _join(held: list[tuple[Batch, np.ndarray, tf.Tensor]]) -> Queries:
    return Queries(
        tuple(batch for batch, _, _ in held),
        tuple(len(ids) for _, ids, _ in held),
        np.concatenate([ids for _, ids, _ in held]),
        tf.concat([vectors for _, _, vectors in held], axis=0),
    )
