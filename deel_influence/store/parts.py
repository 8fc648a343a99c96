"""A folder of parts of an index, each a file that appears whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ..utils.digests import settings_digest
from ..utils.records import RecordKind, differing

HEADER = "index.json"
"""The file that tells what all parts of a folder have in common."""

INDEX = RecordKind("folder of vectors", "Build it again, with `build_index`.")
PART = RecordKind(
    "part of an index",
    "Remove the file, and call `build_index` again: parts that are there are not computed again.",
)

DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(tf.bfloat16.as_numpy_dtype),
}
"""How vectors may be kept."""

_NAME = re.compile(r"part-(\d{5})-(\d{12})-(\d{12})\.npz")


@dataclass(frozen=True)
class Header:
    """What the parts of an index have in common.

    Attributes
    ----------
    calculator
        The class of the calculator.
    origin
        A digest of class, weights, loss, fit and settings.
    dimension
        The number d of columns of the vectors.
    dtype
        How they are kept, see `DTYPES`.
    part_size
        How many examples a part has, the last one of a shard apart.
    num_shards
        Of how many shards the training set consists.
    layers
        Each layer with the first of its columns, and their end; empty where columns mix layers.
    """

    calculator: str
    origin: str
    dimension: int
    dtype: str
    part_size: int
    num_shards: int
    layers: tuple[tuple[str, int, int], ...]

    @cached_property
    def digest(self) -> str:
        """What every part repeats."""
        return settings_digest(self._settings())

    def agreed(self, folder: Path) -> Header:
        """Write it to a folder that has none, and return the one that is there.

        Raises
        ------
        DataSourceError
            If that is another.
        """
        INDEX.write(folder / HEADER, self._settings(), only_new=True)
        there = read_header(folder)
        names = differing(there._settings(), self._settings())
        if names:
            raise INDEX.refused(folder, f"has another {', '.join(names)}")
        return there

    def _settings(self) -> dict[str, Any]:
        return {**vars(self), "layers": [list(layer) for layer in self.layers]}


@dataclass(frozen=True)
class Part:
    """A stretch of a shard, and the file that it is in.

    Attributes
    ----------
    path
        The file.
    shard
        Which shard of the training set, from 0.
    first, last
        The place of its first example in the shard, and of its last one, plus one.
    """

    path: Path
    shard: int
    first: int
    last: int

    def __len__(self) -> int:
        """Return the number of examples."""
        return self.last - self.first

    def read(self, header: Header, mapped: bool = True) -> tuple[dict, dict[str, np.ndarray]]:
        """Return settings and arrays, unless it belongs to another index.

        Parameters
        ----------
        header
            That of the index.
        mapped
            Whether the arrays are maps of the file, whose checksum is not looked at.

        Raises
        ------
        DataSourceError
            If the file is missing, damaged, or a stranger.
        """

        def parsed(settings: dict, arrays: dict[str, np.ndarray]) -> tuple[dict, dict]:
            if settings["index"] != header.digest:
                raise PART.refused(self.path, "is of another index")
            shape = arrays["vectors"].shape
            lengths = {len(array) for array in arrays.values()}
            place = tuple(settings[name] for name in ("shard", "first", "last"))
            if place != (self.shard, self.first, self.last) or lengths != {len(self)}:
                raise PART.refused(self.path, "holds other examples than its name tells")
            if shape != (len(self), header.dimension):
                raise PART.refused(self.path, f"holds vectors of shape {shape}")
            return settings, {**arrays, "vectors": arrays["vectors"].view(DTYPES[header.dtype])}

        return PART.read(self.path, parsed, mapped)

    def write(self, header: Header, data: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the arrays, unless another writer has done so."""
        place = {"shard": self.shard, "first": self.first, "last": self.last}
        settings = {"index": header.digest, "data": data, **place}
        # As plain words, because NumPy's files know no bfloat16.
        vectors = arrays["vectors"]
        plain = vectors.view(np.uint16) if header.dtype == "bfloat16" else vectors
        PART.write(self.path, settings, {**arrays, "vectors": plain}, only_new=True)


def part_at(folder: Path, shard: int, first: int, last: int) -> Part:
    """Return the part with some examples of a shard, whose name they make up."""
    return Part(folder / f"part-{shard:05d}-{first:012d}-{last:012d}.npz", shard, first, last)


def parts_in(folder: Path) -> list[Part]:
    """Return the parts that a folder has, by shard and place."""
    matches = ((path, _NAME.fullmatch(path.name)) for path in folder.iterdir())
    found = [Part(path, *map(int, match.groups())) for path, match in matches if match]
    return sorted(found, key=lambda part: (part.shard, part.first, part.last))


def read_header(folder: Path) -> Header:
    """Return what the parts of a folder have in common.

    Raises
    ------
    DataSourceError
        If the folder has no readable header.
    """

    def parsed(settings: dict, _: Any) -> Header:
        names = Header.__dataclass_fields__
        layers = tuple((str(name), int(a), int(b)) for name, a, b in settings["layers"])
        found = Header(**{**{name: settings[name] for name in names}, "layers": layers})
        if found.dtype not in DTYPES or min(found.dimension, found.part_size) < 1:
            raise INDEX.refused(folder, "has odd content")
        return found

    return INDEX.read(folder / HEADER, parsed)
