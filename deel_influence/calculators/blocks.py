"""Scores of pairs, as parts that merge."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import DatasetOrderError
from ..utils.example_ids import shared_ids
from ..utils.formatting import format_number
from ..utils.html import Html, html_table
from ..utils.memory import bytes_of, bytes_to_hold
from ..utils.order import fingerprint
from ..utils.records import RecordKind
from .queries import Queries, ScoredBatches

BLOCK = RecordKind("block of influence values", "Compute and save them again.")

# A notebook shows so many queries, and of each so many training examples.
_QUERIES, _EXAMPLES = 10, 5


@dataclass(frozen=True, eq=False)
class InfluenceBlock:
    """The scores of some training examples for some queries.

    Attributes
    ----------
    query_ids
        int64 or texts, shape ``(m,)``.
    train_ids
        int64 or texts, shape ``(n,)``.
    values
        Shape ``(m, n)``, or ``(m, n, ...)`` where a score has parts.

    Raises
    ------
    ValueError
        If the shapes do not fit each other.
    """

    query_ids: np.ndarray
    train_ids: np.ndarray
    values: np.ndarray

    def __post_init__(self) -> None:
        """Check that there is a value for each pair."""
        expected = (len(self.query_ids), len(self.train_ids))
        if np.shape(self.values)[:2] != expected:
            message = (
                "Argument `values` must have a row for each of `query_ids` and a column for each "
                f"of `train_ids`, {expected}. Received: shape {np.shape(self.values)}."
            )
            raise ValueError(message)

    def __repr__(self) -> str:
        """Tell how many pairs there are."""
        shape = " × ".join(map(str, np.shape(self.values)))
        return f"<InfluenceBlock of {shape} scores, queries by training examples>"

    def _repr_html_(self) -> Html:
        """Show for some queries the training examples of the largest scores in a notebook."""
        shown = min(_QUERIES, len(self.query_ids))
        title = f"{shown} of {len(self.query_ids):,} queries, the largest of their scores first"
        if np.ndim(self.values) != 2:
            shapes = [(len(self.query_ids), len(self.train_ids), np.shape(self.values)[2:])]
            return html_table(("queries", "training examples", "parts"), shapes, repr(self))
        rows = []
        for query, values in zip(self.query_ids[:shown], self.values, strict=False):
            largest = np.argsort(-values, kind="stable")[:_EXAMPLES]
            named = [f"{self.train_ids[i]}: {format_number(float(values[i]))}" for i in largest]
            rows.append((query, ", ".join(named)))
        return html_table(("query", "training example: score"), rows, title)

    def merge(self, other: InfluenceBlock) -> InfluenceBlock:
        """Join two parts of a matrix, rows and columns ordered by id.

        The parts have the same queries and other training examples, as those of two shards, or
        the same training examples and other queries. Merges may be done in any order.

        Raises
        ------
        ValueError
            If the two make no rectangle, or have pairs in common.
        """
        axis = joined_axis(self, other)
        one, two = self._ordered(), other._ordered()
        values = np.concatenate([one.values, two.values], axis=axis)
        query_ids = one.query_ids if axis else np.concatenate([one.query_ids, two.query_ids])
        train_ids = np.concatenate([one.train_ids, two.train_ids]) if axis else one.train_ids
        return InfluenceBlock(query_ids, train_ids, values)._ordered()

    def save(self, path: str | Path) -> Path:
        """Write the block to an ``.npz`` file, which appears whole or not at all."""
        arrays = {"query_ids": self.query_ids, "train_ids": self.train_ids, "values": self.values}
        return BLOCK.write(Path(path), {}, arrays)

    @classmethod
    def load(cls, path: str | Path) -> InfluenceBlock:
        """Read what `save` wrote.

        Raises
        ------
        DataSourceError
            If the file is missing, damaged, or holds something else.
        """
        names = ("query_ids", "train_ids", "values")
        return BLOCK.read(Path(path), lambda _, arrays: cls(*(arrays[name] for name in names)))

    def _ordered(self) -> InfluenceBlock:
        rows = np.argsort(self.query_ids, kind="stable")
        columns = np.argsort(self.train_ids, kind="stable")
        values = self.values[np.ix_(rows, columns)]
        return InfluenceBlock(self.query_ids[rows], self.train_ids[columns], values)


class HasPairs(Protocol):
    """What has scores of pairs: their ids, of shapes ``(m,)`` and ``(n,)``."""

    @property
    def query_ids(self) -> np.ndarray: ...

    @property
    def train_ids(self) -> np.ndarray: ...


def joined_axis(one: HasPairs, other: HasPairs) -> int:
    """Return along which axis two parts of a matrix stand: 0 for queries, 1 for training examples.

    Raises
    ------
    ValueError
        If they make no rectangle, or have pairs in common.
    """
    queries = shared_ids(one.query_ids, other.query_ids)
    train = shared_ids(one.train_ids, other.train_ids)
    if not len(train) and len(queries) == len(one.query_ids) == len(other.query_ids):
        return 1
    if not len(queries) and len(train) == len(one.train_ids) == len(other.train_ids):
        return 0
    message = (
        "Argument `other` must have the same queries and other training examples, or the other "
        f"way round. Received: {len(queries)} queries and {len(train)} training examples that are "
        "in both. Score shards with `id_fn=`, so that positions in them are no ids."
    )
    raise ValueError(message)


def lined_up(blocks: Iterable[InfluenceBlock]) -> InfluenceBlock:
    """Join blocks of other queries each, the training examples in the order of the first block.

    Raises
    ------
    DatasetOrderError
        If the blocks are not of the same examples, each with an id of its own.
    """
    found = list(blocks)
    first = found[0].train_ids
    query_ids = np.concatenate([block.query_ids for block in found])
    rows = []
    for block in found:
        order = order_like(block.train_ids, first)
        rows.append(block.values if order is None else block.values[:, order])
    return InfluenceBlock(query_ids, first, np.concatenate(rows))


def order_like(ids: np.ndarray, first: np.ndarray) -> np.ndarray | None:
    """Return the order in which the ids of one pass are those of the first; None if they are.

    Raises
    ------
    DatasetOrderError
        If the two passes did not have the same examples, each with an id of its own.
    """
    if np.array_equal(ids, first):
        return None
    order = np.argsort(ids, kind="stable")
    if len(ids) != len(first) or not np.array_equal(ids[order], np.unique(first)):
        message = (
            "Argument `train_set` must yield the same examples on every pass, each with an id of "
            "its own. Received: others, or an id twice. Check `id_fn=`."
        )
        raise DatasetOrderError(message)
    return order[np.searchsorted(ids, first, sorter=order)]


class ScoredTraining:
    """The training set with its scores for a chunk of queries, computed in one pass.

    The first time that they are asked for, the training set is scored for all queries of the
    chunk. Scores are kept if they fit a quarter of the free memory, and so are the examples if
    they fit beside them. Else scores are computed anew for the rows that are asked for, and
    examples are read again.

    Parameters
    ----------
    chunk
        The queries.
    scored
        Scores the training set, as `ScoreSource.scored` does.
    reread
        Yields the batches of the training set again, without scores.
    """

    def __init__(
        self,
        chunk: Queries,
        scored: Callable[[Queries], ScoredBatches],
        reread: Callable[[], Iterator[Any]],
    ) -> None:
        self._chunk = chunk
        self._scored = scored
        self._reread = reread
        self._batches: list[Any] | None = None
        self._parts: list[tuple[np.ndarray, np.ndarray]] | None = None
        self._seen: list[list[bytes]] = []
        self._was_computed = False

    def block(self, rows: slice) -> InfluenceBlock:
        """Return the scores of some rows of the chunk."""
        parts = [(ids, values) for _, ids, values in self._of_rows(rows, with_batches=False)]
        ids = np.concatenate([ids for ids, _ in parts])
        values = np.concatenate([values for _, values in parts], axis=1)
        return InfluenceBlock(self._chunk.ids[rows], ids, values)

    def let_go_of_queries(self) -> None:
        """Hold the queries' vectors no longer, unless scores are to be computed from them anew."""
        if self._parts is not None:
            self._chunk = replace(self._chunk, vectors=self._chunk.vectors[:0])

    def batches(self, rows: slice) -> Iterator[tuple[Any, np.ndarray]]:
        """Yield each training batch, as the dataset does, with its scores ``(m, b)``."""
        for batch, _, values in self._of_rows(rows, with_batches=True):
            yield batch, values

    def _of_rows(self, rows: slice, with_batches: bool) -> ScoredBatches:
        """Yield each training batch, or None for it, with its ids and scores."""
        if not self._was_computed:
            self._compute()
        if self._parts is None:
            part = replace(
                self._chunk, ids=self._chunk.ids[rows], vectors=self._chunk.vectors[rows]
            )
            yield from self._scored(part)
            return
        batches: Iterable[Any] | None
        batches = self._batches if with_batches else [None] * len(self._parts)
        for held, (ids, values) in zip(batches or self._read_again(), self._parts, strict=True):
            yield held, ids, values[rows]

    def _read_again(self) -> Iterator[Any]:
        """Yield the batches of the training set, which have to be those that were scored.

        Raises
        ------
        DatasetOrderError
            If they are others.
        """
        seen = self._seen
        for count, batch in enumerate(itertools.chain(self._reread(), [None])):
            if (batch is None) != (count == len(seen)) or (
                batch is not None and fingerprint(batch) != seen[count]
            ):
                message = (
                    "Argument `train_set` must yield the same batches on every pass. Received: "
                    f"another batch {count} (counting from 0) than when it was scored."
                )
                raise DatasetOrderError(message)
            if batch is not None:
                yield batch

    def _compute(self) -> None:
        batches: list[Any] | None = []
        parts, left = [], bytes_to_hold()
        self._seen.clear()
        for batch, ids, values in self._scored(self._chunk):
            left -= values.nbytes
            if left < 0 and batches is not None:
                left += sum(map(bytes_of, batches))
                batches = None
            if left < 0:
                break
            parts.append((ids, values))
            self._seen.append(fingerprint(batch))
            if batches is not None and bytes_of(batch) <= left:
                left -= bytes_of(batch)
                batches.append(batch)
            elif batches is not None:
                left += sum(map(bytes_of, batches))
                batches = None
        self._batches, self._parts = batches, parts if left >= 0 else None
        self._was_computed = True
