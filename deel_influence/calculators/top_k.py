"""The training examples with the best scores for each query, as parts that merge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..extras import require
from ..utils.example_ids import shared_ids
from ..utils.files import npz_path
from ..utils.formatting import format_number
from ..utils.html import Html, html_table
from ..utils.records import RecordKind
from ..utils.top_k import ORDER, BatchSort

if TYPE_CHECKING:
    import pandas as pd

TOP_K = RecordKind("file of best examples", "Find them again.")

SORTED_AT_ONCE = 2**18
"""About how many scores are gathered before the best of them are looked for."""

# A notebook shows so many queries.
_SHOWN = 10


@dataclass(frozen=True, eq=False)
class TopK:
    """For each query the training examples with the best scores, best first.

    Attributes
    ----------
    query_ids
        int64 or texts, shape ``(m,)``.
    train_ids
        int64 or texts, shape ``(m, min(k, n))``.
    values
        Their scores, of the same shape.
    k
        How many were asked for.
    order
        Which end of the scores is best.

    Raises
    ------
    ValueError
        If there is not a row of examples, and of as many scores, for each query.
    """

    query_ids: np.ndarray
    train_ids: np.ndarray
    values: np.ndarray
    k: int
    order: ORDER = ORDER.DESCENDING

    def __post_init__(self) -> None:
        """Check that the shapes fit each other."""
        shape = np.shape(self.train_ids)
        if len(shape) != 2 or shape != np.shape(self.values) or shape[0] != len(self.query_ids):
            message = (
                "Argument `values` must have a row for each of `query_ids`, and a number for each "
                f"of `train_ids`. Received: shape {np.shape(self.values)}, beside "
                f"{len(self.query_ids)} queries and ids of shape {shape}."
            )
            raise ValueError(message)

    def __len__(self) -> int:
        """Return the number m of queries."""
        return len(self.query_ids)

    def __repr__(self) -> str:
        """Tell how many there are."""
        which = "highest" if self.order is ORDER.DESCENDING else "lowest"
        return f"<TopK: {self.train_ids.shape[1]} {which} scores for each of {len(self)} queries>"

    def _repr_html_(self) -> Html:
        """Show the first queries in a notebook."""
        rows = []
        shown = self.query_ids[:_SHOWN]
        for query, ids, values in zip(shown, self.train_ids, self.values, strict=False):
            pairs = zip(ids, values, strict=True)
            rows.append((query, ", ".join(f"{i}: {format_number(float(v))}" for i, v in pairs)))
        return html_table(("query", "training example: score"), rows, repr(self).strip("<>"))

    def merge(self, other: TopK) -> TopK:
        """Join two parts, ordered by the queries' ids, so that merges commute.

        The parts have the same queries and training examples of two shards, or other queries.

        Raises
        ------
        ValueError
            If they were asked for other numbers of examples or another order, have a part of the
            queries in common, or examples that are in both shards.
        """
        if (self.k, self.order) != (other.k, other.order):
            message = (
                "Argument `other` must be asked for as many examples in the same order. Received: "
                f"k={other.k} and {other.order} beside k={self.k} and {self.order}."
            )
            raise ValueError(message)
        queries = shared_ids(self.query_ids, other.query_ids)
        examples = shared_ids(self.train_ids.ravel(), other.train_ids.ravel())
        one, two = self._ordered(), other._ordered()
        if len(queries) and (len(examples) or not len(queries) == len(self) == len(other)):
            message = (
                "Argument `other` must have the same queries and other training examples, or other "
                f"queries. Received: {len(queries)} queries and {len(examples)} training examples "
                "that are in both. Read shards with `id_fn=`, so that positions in them are no ids."
            )
            raise ValueError(message)
        if len(queries):
            parts = ((part.train_ids, part.values) for part in (one, two))
            return best_of(one.query_ids, parts, self.k, self.order)
        if one.values.shape[1] != two.values.shape[1]:
            message = (
                "Argument `other` must have as many training examples for each of its queries. "
                f"Received: {two.values.shape[1]} beside {one.values.shape[1]}, of other shards. "
                "Merge the shards of the same queries first."
            )
            raise ValueError(message)
        return of_all_queries([one, two])._ordered()

    def to_pandas(self) -> pd.DataFrame:
        """Return a data frame of queries, ranks from 1, training examples and scores.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        pandas = require("pandas", "report", "`TopK.to_pandas` needs")
        m, width = self.train_ids.shape
        columns = {
            "query": np.repeat(self.query_ids, width),
            "rank": np.tile(np.arange(1, width + 1), m),
            "id": self.train_ids.ravel(),
            "score": self.values.ravel(),
        }
        return pandas.DataFrame(columns)

    def save(self, path: str | Path) -> Path:
        """Write all of it to an ``.npz`` file, which appears whole or not at all."""
        arrays = {"queries": self.query_ids, "ids": self.train_ids, "values": self.values}
        return TOP_K.write(npz_path(path), {"k": self.k, "order": self.order.name}, arrays)

    @classmethod
    def load(cls, path: str | Path) -> TopK:
        """Read what `save` wrote.

        Raises
        ------
        DataSourceError
            If the file is missing, damaged, or holds something else.
        """

        def parsed(settings: Any, arrays: Any) -> TopK:
            queries, ids, values = (arrays[name] for name in ("queries", "ids", "values"))
            return cls(queries, ids, values, settings["k"], ORDER[settings["order"]])

        return TOP_K.read(npz_path(path), parsed)

    def _ordered(self) -> TopK:
        rows = np.argsort(self.query_ids, kind="stable")
        return replace(
            self,
            query_ids=self.query_ids[rows],
            train_ids=self.train_ids[rows],
            values=self.values[rows],
        )


def best_of(
    query_ids: np.ndarray, scored: Iterable[tuple[np.ndarray, np.ndarray]], k: int, order: ORDER
) -> TopK:
    """Return the best examples of batches.

    Parameters
    ----------
    query_ids
        Shape ``(m,)``.
    scored
        The ids of each batch, ``(b,)`` or ``(m, b)``, and its scores ``(m, b)``.
    k, order
        How many of which end.
    """
    best = BatchSort(len(query_ids), k, order)
    for ids, values in _gathered(scored):
        best.add(values, ids)
    values, ids = best.get()
    return TopK(query_ids, ids, values, k, order)


def _gathered(
    scored: Iterable[tuple[np.ndarray, np.ndarray]],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ids and scores of several batches at a time: one sort of all costs less than theirs."""
    held: list[tuple[np.ndarray, np.ndarray]] = []
    count = 0
    for ids, values in scored:
        held.append((ids, values))
        count += values.size
        if count >= SORTED_AT_ONCE:
            yield _joined(held)
            held, count = [], 0
    if held:
        yield _joined(held)


def _joined(held: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    ids, values = (np.concatenate(parts, axis=-1) for parts in zip(*held, strict=True))
    return ids, values


def of_all_queries(parts: Sequence[TopK]) -> TopK:
    """Return parts of other queries each as one."""
    return replace(
        parts[0],
        query_ids=np.concatenate([part.query_ids for part in parts]),
        train_ids=np.concatenate([part.train_ids for part in parts]),
        values=np.concatenate([part.values for part in parts]),
    )
