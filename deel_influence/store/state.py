"""What an index has, lacks, and has twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ..errors import DataSourceError
from .parts import Header, Part


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
        tuple(_holes(header, parts)),
        tuple(names[counts > 1][:100].tolist()),
        tuple(damaged),
    )


def _holes(header: Header, parts: Iterable[Part]) -> Iterator[str]:
    found = {shard: list(own) for shard, own in groupby(parts, lambda part: part.shard)}
    for shard in range(header.num_shards):
        place = 0
        own = found.get(shard, [])
        for part in own:
            if part.first > place:
                yield f"shard {shard}: examples {place} to {part.first - 1}"
            place = part.last
        # A shard ends with a part that is shorter than others, and may be empty.
        if not own or len(own[-1]) == header.part_size:
            yield f"shard {shard}: examples from {place} on" if own else f"shard {shard}: all of it"
