"""Query examples in chunks that fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from ..types import Batch
from ..utils.datasets import Item
from ..utils.memory import bytes_of, working_bytes

MAX_CHUNK_BYTES = 2**28
"""Bound on the vectors of the queries that share one pass, where no `memory_limit` is lower."""

MAX_BATCH_BYTES = 2**29
"""Bound on the vectors of a batch of queries that is computed whole where it need not be.

A fixed one, so that shards on machines with more and with less memory have the same bits. It is
larger than that of several batches, since each piece costs a pass over the training set."""


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
    query_hook
        The hook that computes the vectors ``(b, q)`` of a batch of queries.
    scored
        Yields, for a chunk of queries, each training batch, its ids ``(b,)`` and scores ``(m, b)``.
    """

    query_hook: Callable[[Batch], tf.Tensor]
    scored: Callable[[Queries], ScoredBatches]


def query_chunks(computed: Iterator[tuple[Item, tf.Tensor]]) -> Iterator[Queries]:
    """Group batches of queries into chunks of bounded memory.

    Parameters
    ----------
    computed
        Each batch with its vectors ``(b, q)``.
    """
    held: list[tuple[Item, tf.Tensor]] = []
    held_bytes = 0
    for item, vectors in computed:
        size = bytes_of(vectors)
        if held and held_bytes + size > working_bytes(MAX_CHUNK_BYTES):
            yield _join(held)
            held, held_bytes = [], 0
        held.append((item, vectors))
        held_bytes += size
    if held:
        yield _join(held)


def _join(held: list[tuple[Item, tf.Tensor]]) -> Queries:
    return Queries(
        tuple(item.batch for item, _ in held),
        tuple(item.size for item, _ in held),
        np.concatenate([item.ids for item, _ in held]),
        tf.concat([vectors for _, vectors in held], axis=0),
    )
