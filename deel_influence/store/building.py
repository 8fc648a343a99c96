"""Computing an index, part by part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..calculators.base import BaseInfluenceCalculator
from ..errors import DataSourceError
from ..gradients.passes import Pass
from ..linalg.checks import check_count, check_shard
from ..types import Data, IdFunction
from ..utils.datasets import Item
from ..utils.digests import example_digests
from ..utils.example_ids import POSITION, ids_of
from ..utils.takes_data import takes_data
from .index import Index
from .parts import DTYPES, HEADER, INDEX, PART, Header, Part, part_at, parts_in, read_header

PART_BYTES = 2**26
"""About how much a part takes, where the number of examples in it is not given."""


@takes_data
def build_index(
    calculator: BaseInfluenceCalculator,
    train_set: Data,
    path: str | Path,
    dtype: str = "float16",
    shard: int = 0,
    num_shards: int = 1,
    part_size: int | None = None,
    self_scores: bool = True,
    id_fn: IdFunction | None = None,
    device: str | None = None,
    verbose: str | int = "auto",
) -> Index:
    """Compute what scores need of each training example, and keep it in a folder.

    The folder has a file for each stretch of examples, which appears whole or not at all. Parts
    that are there are not computed again, so that a run that was cut off goes on where it was.
    Shards may be built one after another or by several processes, into one folder.

    Parameters
    ----------
    calculator
        A calculator whose scores are products of vectors. `FirstOrderInfluenceCalculator` with
        ``"logra"`` and `TRAK` keep some hundred or thousand numbers for each example; others keep
        as many as there are watched parameters.
    train_set
        The training set, or one shard of it, batched. Examples of shards need ids of their own.
    path
        The folder.
    dtype
        How the numbers are kept: ``"float32"``, ``"float16"`` or ``"bfloat16"``. Each vector is
        kept at length one, beside its length, so that none is out of range.
    shard, num_shards
        Which of how many shards of the training set this is, counting from 0.
    part_size
        How many examples a file has; None makes files of about 64 MiB.
    self_scores
        Whether the scores of the examples for themselves are computed as well; with ``"logra"``
        they may cost more than all the rest.
    id_fn, device, verbose
        As for `score`.

    Returns
    -------
    The index, as far as it is built, with the calculator at hand for queries.

    Raises
    ------
    DataSourceError
        If the folder holds something else, an index of other weights, settings or data.
    ValueError
        If an argument is out of its range, shards have no ids, or scores are no products.
    """
    if dtype not in DTYPES:
        message = f"Argument `dtype` must be one of {sorted(DTYPES)}. Received: {dtype!r}."
        raise ValueError(message)
    place = check_shard(shard, num_shards)
    if part_size is not None:
        check_count("part_size", part_size)
    data = Pass(train_set, "train_set", "Index", id_fn, device, verbose)
    data.checked(calculator.engine)
    if num_shards > 1 and id_fn in (None, POSITION) and ids_of(train_set) is None:
        message = (
            "Argument `id_fn` must give the examples of shards ids of their own. Received: None, "
            "and data without ids, so that a place in each of the shards is the same id."
        )
        raise ValueError(message)
    folder = _checked_folder(Path(path))
    _Shard(folder, *place, calculator, dtype, part_size).fill(data, self_scores)
    index = Index(folder)
    index.calculator = calculator  # whose origin has been compared, which may cost a pass
    return index


@dataclass
class _Stretch:
    """The examples of one part, as far as they have been read."""

    rows: list[dict[str, np.ndarray]] = field(default_factory=list)
    count: int = 0
    data: Any = field(default_factory=hashlib.sha256)

    def add(self, digests: np.ndarray, rows: dict[str, np.ndarray] | None = None) -> None:
        self.count += len(digests)
        self.data.update(digests.tobytes())
        if rows is not None:
            self.rows.append(rows)


class _Shard:
    """The parts of one shard, those that are there and those that are to be written."""

    def __init__(
        self,
        folder: Path,
        shard: int,
        num_shards: int,
        calculator: BaseInfluenceCalculator,
        dtype: str,
        part_size: int | None,
    ) -> None:
        self._folder, self._shard, self._num_shards = folder, shard, num_shards
        self._calculator, self._dtype, self._part_size = calculator, dtype, part_size
        self._origin = calculator.origin()
        self._header: Header | None = None
        if (folder / HEADER).exists():
            there = read_header(folder)
            self._part_size = part_size or there.part_size
            self._header = self._agreed(there.dimension)
        found = [part for part in parts_in(folder) if part.shard == shard]
        self._finished = {part.first: part for part in found}
        self._stretches: dict[int, _Stretch] = {}
        self._waiting: dict[int, tuple[int, np.ndarray]] = {}
        self._read = 0

    def fill(self, data: Pass, scored: bool) -> None:
        """Compute and write what is missing, in one pass."""
        missing = replace(data, wanted=self._is_missing)
        for item, vectors, scores in self._calculator.kept_vectors(missing, scored):
            if self._header is None:
                self._header = self._agreed(vectors.shape[1])
            self._add(self._header, item, _kept(vectors, scores, self._header.dtype))
        if self._header is not None:  # else there were no examples, which the pass has refused
            self._end(self._header)

    def _agreed(self, dimension: int) -> Header:
        size = self._part_size
        if size is None:
            fitting = PART_BYTES // (dimension * DTYPES[self._dtype].itemsize)
            size = max(2 ** int(np.log2(max(fitting, 1))), 1)
        header = Header(
            type(self._calculator).__qualname__,
            self._origin,
            dimension,
            self._dtype,
            size,
            self._num_shards,
            tuple(self._calculator.columns_of_layers()),
        )
        return header.agreed(self._folder)

    def _is_missing(self, item: Item) -> bool:
        """Tell whether a batch has examples of a part that is not there; note what it is."""
        first, digests = self._read, example_digests(item.batch).numpy()
        self._read += item.size
        missing = self._header is None
        if self._header is not None:
            for start, rows in _within(self._header, first, item.size):
                if start not in self._finished:
                    missing = True
                    continue
                stretch = self._stretches.setdefault(start, _Stretch())
                stretch.add(digests[rows])
                _compare(self._header, self._finished[start], stretch)
        if missing:
            self._waiting[item.index] = first, digests
        return missing

    def _add(self, header: Header, item: Item, kept: dict[str, np.ndarray]) -> None:
        """Take in what was computed of a batch, and write the parts that are complete."""
        first, digests = self._waiting.pop(item.index)
        arrays = {"ids": item.ids, **kept}
        for start, rows in _within(header, first, item.size):
            if start in self._finished:
                continue
            stretch = self._stretches.setdefault(start, _Stretch())
            stretch.add(digests[rows], {name: array[rows] for name, array in arrays.items()})
            if stretch.count == header.part_size:
                self._write(header, start)

    def _end(self, header: Header) -> None:
        """Write the last part, which is shorter than others, and may be empty."""
        start = self._read // header.part_size * header.part_size
        if start not in self._finished:
            self._write(header, start)
        elif self._finished[start].last != self._read:
            raise PART.refused(self._finished[start].path, "is of data with another end")

    def _write(self, header: Header, start: int) -> None:
        stretch = self._stretches.pop(start, _Stretch())
        rows = stretch.rows or [_nothing(header)]
        arrays = {name: np.concatenate([part[name] for part in rows]) for name in rows[0]}
        part = part_at(self._folder, self._shard, start, start + stretch.count)
        part.write(header, stretch.data.hexdigest(), arrays)
        self._finished[start] = part


def _within(header: Header, first: int, count: int) -> Iterator[tuple[int, slice]]:
    """Yield the first place of each part that a batch has examples of, and which these are."""
    place, size = first, header.part_size
    while place < first + count:
        start = place // size * size
        end = min(start + size, first + count)
        yield start, slice(place - first, end - first)
        place = end


def _compare(header: Header, part: Part, stretch: _Stretch) -> None:
    """Refuse a part of other examples than those that have been read."""
    if stretch.count < len(part):
        return
    settings, _ = part.read(header)
    if stretch.count > len(part) or settings["data"] != stretch.data.hexdigest():
        raise PART.refused(part.path, "is of other examples, or they had other inputs or labels")


def _nothing(header: Header) -> dict[str, np.ndarray]:
    """Return the arrays of no examples."""
    vectors = np.empty((0, header.dimension), DTYPES[header.dtype])
    return {"ids": np.empty(0, np.int64), "vectors": vectors, "lengths": np.empty(0, np.float32)}


def _kept(vectors: np.ndarray, scores: np.ndarray | None, dtype: str) -> dict[str, np.ndarray]:
    """Return what a part has of some examples, beside their ids."""
    lengths = np.linalg.norm(vectors, axis=1)
    units = vectors / np.where(lengths > 0, lengths, 1)[:, None]
    found = {"vectors": units.astype(DTYPES[dtype]), "lengths": lengths.astype(np.float32)}
    return found if scores is None else {**found, "scores": scores.astype(np.float32)}


def _checked_folder(folder: Path) -> Path:
    is_new = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_new and not (folder / HEADER).is_file():
        message = (
            "Argument `path` must be a new folder, or one with an index. Received: "
            f"{str(folder)!r}, which holds something else. {INDEX.remedy}"
        )
        raise DataSourceError(message)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
