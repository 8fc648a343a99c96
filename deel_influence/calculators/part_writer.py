"""Computing the parts of a folder that are not there yet."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..gradients.passes import Pass
from ..utils.datasets import Item
from ..utils.digests import example_digests
from ..utils.records import Arrays
from .parts import Part, PartsHeader, part_at, parts_in


@dataclass
class _Stretch:
    """The examples of one part, as far as they have been read."""

    rows: list[Arrays] = field(default_factory=list)
    count: int = 0
    data: Any = field(default_factory=hashlib.sha256)

    def add(self, digests: np.ndarray, rows: Arrays) -> None:
        self.count += len(digests)
        self.data.update(digests.tobytes())
        self.rows.append(rows)


class PartWriter:
    """A row of parts of a folder, those that are there and those that are to be written.

    Parameters
    ----------
    folder
        The folder.
    shard
        Which row.
    header
        That of the folder; or what returns it, agreed with the folder, from the first arrays that
        are computed.
    shared
        Arrays that each of the parts has besides.
    """

    def __init__(
        self,
        folder: Path,
        shard: int,
        header: PartsHeader | Callable[[Arrays], PartsHeader],
        shared: Arrays | None = None,
    ) -> None:
        self._folder, self._shard, self._given = folder, shard, header
        self._header = header if isinstance(header, PartsHeader) else None
        self._shared = shared or {}
        found = [part for part in parts_in(folder) if part.shard == shard]
        self._finished = {part.first: part for part in found}
        self._stretches: dict[int, _Stretch] = {}
        self._waiting: deque[tuple[int, np.ndarray]] = deque()
        self._nothing: Arrays | None = None
        self._read = 0

    def fill(self, data: Pass, computed: Callable[[Pass], Iterator[Arrays]]) -> None:
        """Compute and write what is missing, in one pass.

        Parameters
        ----------
        data
            The pass over all examples of the row.
        computed
            Yields of each batch that a pass wants, in order, ``"ids"`` and other arrays whose
            first axis is the batch.

        Raises
        ------
        DataSourceError
            If a part that is there is of other examples.
        """
        for arrays in computed(replace(data, wanted=self._is_missing)):
            if not isinstance(self._given, PartsHeader) and self._header is None:
                self._header = self._given(arrays)
            if self._header is not None:
                self._add(self._header, arrays)
        if self._header is not None:  # else there were no examples, which the pass has refused
            self._end(self._header)

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
                stretch.add(digests[rows], {"ids": item.ids[rows]})
                self._compare(self._header, self._finished[start], stretch)
        if missing:
            self._waiting.append((first, digests))
        return missing

    def _compare(self, header: PartsHeader, part: Part, stretch: _Stretch) -> None:
        """Refuse a part of other examples than those that have been read."""
        if stretch.count < len(part):
            return
        settings, arrays = part.read(header)
        if stretch.count > len(part) or settings["data"] != stretch.data.hexdigest():
            reason = "is of other examples, or they had other inputs or labels"
            raise header.part_kind.refused(part.path, reason)
        ids = np.concatenate([rows["ids"] for rows in stretch.rows])
        stretch.rows.clear()
        if not np.array_equal(arrays["ids"], ids):
            raise header.part_kind.refused(part.path, "is of examples that had other ids")
        for name, shared in self._shared.items():
            if not np.array_equal(arrays[name], shared):
                raise header.part_kind.refused(part.path, f"has other {name}")

    def _add(self, header: PartsHeader, arrays: Arrays) -> None:
        """Take in what was computed of a batch, and write the parts that are complete."""
        first, digests = self._waiting.popleft()
        self._nothing = {name: array[:0] for name, array in arrays.items()}
        for start, rows in _within(header, first, len(digests)):
            if start in self._finished:
                continue
            stretch = self._stretches.setdefault(start, _Stretch())
            stretch.add(digests[rows], {name: array[rows] for name, array in arrays.items()})
            if stretch.count == header.part_size:
                self._write(header, start)

    def _end(self, header: PartsHeader) -> None:
        """Write the last part, which is shorter than others, and may be empty."""
        start = self._read // header.part_size * header.part_size
        if start not in self._finished:
            self._write(header, start)
        elif self._finished[start].last != self._read:
            part = self._finished[start]
            raise header.part_kind.refused(part.path, "is of data with another end")

    def _write(self, header: PartsHeader, start: int) -> None:
        stretch = self._stretches.pop(start, _Stretch())
        rows = stretch.rows or [self._no_examples(header)]
        arrays = {name: np.concatenate([part[name] for part in rows]) for name in rows[0]}
        part = part_at(self._folder, self._shard, start, start + stretch.count)
        part.write(header, stretch.data.hexdigest(), {**arrays, **self._shared})
        self._finished[start] = part

    def _no_examples(self, header: PartsHeader) -> Arrays:
        """Return the arrays of no examples, which do not depend on where a run was cut off."""
        if self._nothing is None:
            _, arrays = next(iter(self._finished.values())).read(header)
            own = {name: array for name, array in arrays.items() if name not in self._shared}
            self._nothing = {name: np.asarray(array[:0]) for name, array in own.items()}
        return {**self._nothing, "ids": np.empty(0, np.int64)}


def _within(header: PartsHeader, first: int, count: int) -> Iterator[tuple[int, slice]]:
    """Yield the first place of each part that a batch has examples of, and which these are."""
    place, size = first, header.part_size
    while place < first + count:
        start = place // size * size
        end = min(start + size, first + count)
        yield start, slice(place - first, end - first)
        place = end
