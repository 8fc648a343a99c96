"""A matrix of scores on disk, which indexes like an array."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..gradients.passes import Pass
from ..utils.memory import human_bytes
from ..utils.records import Arrays, RecordKind
from .blocks import joined_axis, order_like
from .part_writer import PartWriter
from .parts import Part, PartsHeader, fitting, holes_in, parts_in
from .queries import Queries, ScoredBatches

MATRIX = RecordKind(
    "folder of influence values",
    "Call `influence_matrix` again with this `store=`: parts that are there are not computed "
    "again. For other data or settings, name another folder.",
)
PART = RecordKind("part of a matrix of influence values", f"Remove the file. {MATRIX.remedy}")


@dataclass(frozen=True)
class MatrixHeader(PartsHeader):
    """What the parts of a matrix have in common.

    Attributes
    ----------
    calculator
        The class of the calculator.
    origin
        A digest of class, weights, loss, fit and settings.
    measured
        A digest of what is looked at of the queries.
    queries
        A digest of the queries.
    num_queries
        Their number m.
    part_size
        How many training examples a part has, the last one of a chunk of queries apart.
    """

    file: ClassVar[str] = "matrix.json"
    folder_kind: ClassVar[RecordKind] = MATRIX
    part_kind: ClassVar[RecordKind] = PART

    calculator: str
    origin: str
    measured: str
    queries: str
    num_queries: int

    def to_disk(self, arrays: Arrays) -> Arrays:
        # So that the scores of a query lie side by side.
        return {**arrays, "values": np.asfortranarray(arrays["values"])}

    def from_disk(self, arrays: Arrays) -> Arrays:
        shape = arrays["values"].shape
        if shape[:2] != (len(arrays["ids"]), len(arrays["query_ids"])):
            message = f"scores of shape {shape}"
            raise ValueError(message)
        return arrays


@dataclass(frozen=True)
class Tile:
    """A part, and the places of its queries and training examples in the matrix."""

    part: Part
    header: MatrixHeader
    rows: np.ndarray
    columns: np.ndarray

    def values(self) -> np.ndarray:
        """Return the scores, queries first, as a map of the file."""
        return np.swapaxes(self.part.read(self.header)[1]["values"], 0, 1)


@dataclass(frozen=True, eq=False)
class StoredMatrix:
    """The scores of training examples for queries, in a folder of parts, read where it lies.

    What ``influence_matrix(..., store=path)`` returns. It indexes as the array ``(m, n)`` would,
    except that only one of the two axes takes a list of places: ``matrix[3]``, ``matrix[:, -1]``,
    ``matrix[2:5, places]``. What is asked for is read, and no more; ``np.asarray(matrix)`` is all.

    Attributes
    ----------
    query_ids
        int64 or texts, shape ``(m,)``.
    train_ids
        int64 or texts, shape ``(n,)``.
    tiles
        The parts, each with its places in the matrix.
    """

    query_ids: np.ndarray
    train_ids: np.ndarray
    tiles: tuple[Tile, ...]

    @classmethod
    def load(cls, path: str | Path) -> StoredMatrix:
        """Open a folder that `influence_matrix` has filled.

        Raises
        ------
        DataSourceError
            If it holds no matrix, or one with a part that is missing or a stranger.
        """
        folder = Path(path)
        header, parts = MatrixHeader.read(folder), parts_in(folder)
        chunks = [list(own) for _, own in groupby(parts, lambda part: part.shard)]
        read = [[part.read(header)[1] for part in own] for own in chunks]
        queries = [np.asarray(own[0]["query_ids"]) for own in read]
        counts = [len(ids) for ids in queries]
        holes = list(holes_in(parts, header.part_size, len(chunks)))
        if holes or sum(counts) != header.num_queries:
            missing = holes or [f"scores of {header.num_queries - sum(counts)} queries"]
            raise MATRIX.refused(folder, f"is not complete: it lacks {'; '.join(missing)}")
        train = [_joined([arrays["ids"] for arrays in own]) for own in read]
        tiles = []
        for own, start, count, ids in zip(chunks, np.cumsum(counts), counts, train, strict=True):
            order = order_like(ids, train[0])
            columns = np.arange(len(ids)) if order is None else np.argsort(order)
            rows = np.arange(start - count, start)
            tiles += [Tile(p, header, rows, columns[p.first : p.last]) for p in own if len(p)]
        return cls(np.concatenate(queries), train[0], tuple(tiles))

    @property
    def shape(self) -> tuple[int, ...]:
        """``(m, n)``, or ``(m, n, ...)`` where a score has parts."""
        return (len(self.query_ids), len(self.train_ids), *self._form.shape[2:])

    @property
    def dtype(self) -> np.dtype:
        """The type of the scores."""
        return self._form.dtype

    @cached_property
    def _form(self) -> np.ndarray:
        return self.tiles[0].values()

    def __len__(self) -> int:
        """Return the number m of queries."""
        return len(self.query_ids)

    def __repr__(self) -> str:
        """Tell how many pairs there are, and what they take on disk."""
        size = human_bytes(sum(tile.part.path.stat().st_size for tile in self.tiles))
        shape = " × ".join(map(str, self.shape))
        return f"<StoredMatrix of {shape} scores, queries by training examples, {size}>"

    def __getitem__(self, key: Any) -> Any:
        """Return scores, as an array has them at the same place.

        Raises
        ------
        IndexError
            If there is no such place, or both axes are given lists.
        """
        given = key if isinstance(key, tuple) else (key,)
        at, along = (given + (slice(None),) * 2)[:2]
        rows, columns = np.arange(self.shape[0])[at], np.arange(self.shape[1])[along]
        if not (isinstance(at, slice) or isinstance(along, slice)) and rows.ndim and columns.ndim:
            message = (
                "Argument `key` must list places along one axis, and be a number or a slice along "
                "the other. Received: two lists. Take the rows first: `matrix[rows][:, columns]`."
            )
            raise IndexError(message)
        found = self._read(rows.ravel(), columns.ravel())
        found = found.reshape(rows.shape + columns.shape + found.shape[2:])
        return found[(slice(None),) * (rows.ndim + columns.ndim) + given[2:]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all of it, read into memory."""
        if copy is False:
            message = (
                "Argument `copy` must be None or True: the scores are on disk. Received: False."
            )
            raise ValueError(message)
        return self[:].astype(dtype or self.dtype, copy=False)

    def merge(self, other: StoredMatrix) -> StoredMatrix:
        """Join two parts of a matrix, rows and columns ordered by id; see `InfluenceBlock.merge`.

        Nothing is read or copied: the result lies in the folders of both.

        Raises
        ------
        ValueError
            If the two make no rectangle, or have pairs in common.
        """
        axis = joined_axis(self, other)
        query_ids, rows = _in_order(self.query_ids, other.query_ids, axis == 0)
        train_ids, columns = _in_order(self.train_ids, other.train_ids, axis == 1)
        tiles = [
            replace(tile, rows=own_rows[tile.rows], columns=own_columns[tile.columns])
            for part, own_rows, own_columns in zip((self, other), rows, columns, strict=True)
            for tile in part.tiles
        ]
        return StoredMatrix(query_ids, train_ids, tuple(tiles))

    def _read(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the scores at places along both axes, shape ``(len(rows), len(columns), ...)``."""
        found = np.empty((len(rows), len(columns), *self.shape[2:]), self.dtype)
        for tile in self.tiles:
            to_rows, from_rows = _shared(rows, tile.rows, self.shape[0])
            to_columns, from_columns = _shared(columns, tile.columns, self.shape[1])
            if len(to_rows) and len(to_columns):
                values = tile.values()[np.ix_(from_rows, from_columns)]
                found[np.ix_(to_rows, to_columns)] = values
        return found


def write_matrix(
    folder: Path,
    settings: dict[str, Any],
    chunks: Iterable[Queries],
    train: Pass,
    scored: Callable[[Pass, Queries], ScoredBatches],
) -> None:
    """Compute what a matrix lacks, a row of parts for each chunk of queries.

    Parameters
    ----------
    folder
        From `MatrixHeader.checked_folder`.
    settings
        The fields of the header but the size of its parts.
    chunks
        The queries.
    train
        The pass over the training set.
    scored
        Scores what a pass wants of the training set for a chunk.
    """
    header: MatrixHeader | None = None
    for number, chunk in enumerate(chunks):
        if header is None:  # the first chunk is the largest
            size = fitting(len(chunk.ids) * chunk.vectors.dtype.size)
            header = MatrixHeader(**settings, part_size=size).agreed(folder)

        def computed(missing: Pass, chunk: Queries = chunk) -> Iterator[Arrays]:
            for _, ids, values in scored(missing, chunk):
                yield {"ids": ids, "values": np.moveaxis(values, (-1, -2), (0, 1))}

        PartWriter(folder, number, header, {"query_ids": chunk.ids}).fill(train, computed)


def _joined(ids: Sequence[np.ndarray]) -> np.ndarray:
    # A part of no examples has integers for ids, whatever the others have.
    return np.concatenate([part for part in ids if len(part)])


def _in_order(
    one: np.ndarray, other: np.ndarray, are_joined: bool
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return ids in order, and the places there of those of the one and of the other."""
    ids = np.concatenate([one, other]) if are_joined else one
    places = np.argsort(np.argsort(ids, kind="stable"))
    again = places[len(one) :] if are_joined else np.argsort(np.argsort(other, kind="stable"))
    return np.sort(ids), (places[: len(one)], again)


def _shared(wanted: np.ndarray, there: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the wanted places are there, and where, both as indices."""
    at = np.full(size, -1)
    at[there] = np.arange(len(there))
    found = at[wanted]
    which = np.flatnonzero(found >= 0)
    return which, found[which]
