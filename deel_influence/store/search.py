"""Looking through all vectors of an index, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from ..calculators.parts import Part
from ..utils.top_k import ORDER, BatchSort
from .parts import Header

ENTRIES_AT_ONCE = 2**23
"""About how many numbers of vectors, and of scores, are in memory at a time."""

ROUNDING = 1.02 * 2.0**-8
"""By how much at most a number changes that becomes bfloat16, as a share of it, and a little."""


class Search:
    """The parts of an index with what they are asked.

    Parameters
    ----------
    header
        What the parts have in common.
    parts
        Those with examples.
    asked
        The queries, float32, shape ``(m, d)``.
    """

    def __init__(self, header: Header, parts: Sequence[Part], asked: np.ndarray) -> None:
        self.header, self.parts, self.asked = header, parts, asked

    def scores(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield ids ``(b,)`` and scores ``(m, b)`` of some examples after others."""
        for ids, vectors, lengths in self.blocks():
            yield ids, self._products(vectors, lengths)

    def best(self, k: int, order: ORDER) -> tuple[np.ndarray, np.ndarray]:
        """Return the best scores and their ids, each ``(m, min(k, n))``."""
        best = BatchSort(len(self.asked), k, order)
        small = self.header.dtype == "bfloat16"  # whose products take a fifth of the time
        for ids, vectors, lengths in self.blocks():
            rows = self._hopeful(vectors, lengths, best) if small else slice(None)
            best.add(self._products(vectors[rows], lengths[rows]), ids[rows])
        return best.get()

    def _products(self, vectors: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        wide = tf.cast(tf.constant(vectors), tf.float32)
        return tf.matmul(self.asked, wide, transpose_b=True).numpy() * lengths

    def _hopeful(self, vectors: np.ndarray, lengths: np.ndarray, best: BatchSort) -> np.ndarray:
        """Mark the examples that may be among the best of a query.

        Products of bfloat16 differ from those of float32 by no more than the rounding of the query
        and that of the product.
        """
        asked = tf.cast(self.asked, tf.bfloat16)
        rough = tf.matmul(asked, tf.constant(vectors), transpose_b=True)
        found = tf.cast(rough, tf.float32).numpy()
        slack = np.abs(found) * ROUNDING
        slack += ROUNDING * np.linalg.norm(self.asked, axis=1, keepdims=True)
        if best.order is ORDER.DESCENDING:
            last = best.last((found - slack) * lengths)
            hopeful = None if last is None else (found + slack) * lengths >= last
        else:
            last = best.last((found + slack) * lengths)
            hopeful = None if last is None else (found - slack) * lengths <= last
        return np.ones(len(lengths), bool) if hopeful is None else hopeful.any(axis=0)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield ids ``(b,)``, vectors ``(b, d)`` and their lengths ``(b,)``."""
        step = max(ENTRIES_AT_ONCE // max(self.header.dimension, len(self.asked), 1), 1)
        for part in self.parts:
            _, arrays = part.read(self.header)
            for start in range(0, len(part), step):
                rows = slice(start, start + step)
                names = ("ids", "vectors", "lengths")
                ids, vectors, lengths = (np.asarray(arrays[name][rows]) for name in names)
                yield ids, vectors, lengths
