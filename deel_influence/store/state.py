"""What an index has, lacks, and has twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..calculators.parts import Part, holes_in
from ..errors import DataSourceError
from .parts import Header


@dataclass(frozen=True)
class IndexState:
    """What `Index.check` found.

    Attributes
    ----------
    examples
        The number of examples that are there.
    bytes
        The size of their files.
    holes
        What is missing, a line for each stretch of examples or shard.
    duplicates
        Ids of examples that are there more than once, up to a hundred.
    damaged
        What is wrong with a file, a line for each.
    """

    examples: int
    bytes: int
    holes: tuple[str, ...]
    duplicates: tuple[int | str, ...]
    damaged: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, twice there, or damaged."""
        return not (self.holes or self.duplicates or self.damaged)


def state_of(header: Header, parts: Sequence[Part]) -> IndexState:
    """Read all parts of an index, and tell what is wrong."""
    ids, damaged = [], []
    for part in parts:
        try:
            _, arrays = part.read(header, mapped=False)
        except DataSourceError as error:
            damaged.append(str(error))
        else:
            ids.append(arrays["ids"])
    names, counts = np.unique(np.concatenate([np.empty(0, np.int64), *ids]), return_counts=True)
    return IndexState(
        sum(map(len, parts)),
        sum(part.path.stat().st_size for part in parts),
        tuple(holes_in(parts, header.part_size, header.num_shards)),
        tuple(names[counts > 1][:100].tolist()),
        tuple(damaged),
    )
