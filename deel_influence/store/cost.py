"""What an index will cost, told before it is built."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ..calculators.base import BaseInfluenceCalculator
from ..linalg.checks import check_count
from ..types import Data
from ..utils.datasets import count_examples
from ..utils.example_ids import POSITION
from ..utils.formatting import format_number
from ..utils.html import Html, html_table
from ..utils.memory import available_bytes, human_bytes
from ..utils.takes_data import takes_data
from .building import build_index
from .index import Index

TIMED = 4
"""How many batches are timed, beside the first."""

_COPIES = 2  # of a part: as it is gathered, and as it is put together


@dataclass(frozen=True)
class IndexCost:
    """What `index_cost` found; as a text it is a table.

    Attributes
    ----------
    examples
        The number n of examples.
    dimension
        How many numbers are kept of each.
    parts
        How many files there will be.
    seconds
        For all of it, after what is compiled once.
    memory
        Bytes, beside the model and what a batch takes, which do not depend on n.
    disk
        Bytes of the folder.
    free_memory, free_disk
        Bytes that are free now; None where the system does not tell.
    """

    examples: int
    dimension: int
    parts: int
    seconds: float
    memory: int
    disk: int
    free_memory: int | None
    free_disk: int

    def __str__(self) -> str:
        """Return a table with a line for time, memory and disk."""
        return "\n".join(
            f"{name:<8}{value:>12}   {note}".rstrip() for name, value, note in self._rows
        )

    def _repr_html_(self) -> Html:
        """Show the table in a notebook."""
        return html_table(("", "needed", ""), self._rows, f"An index of {self.examples:,} examples")

    @property
    def _rows(self) -> list[tuple[str, str, str]]:
        free = "" if self.free_memory is None else f"{human_bytes(self.free_memory)} free"
        files = f"{self.parts:,} files, {human_bytes(self.free_disk)} free"
        each = f"{self.examples:,} examples, {self.dimension:,} numbers each"
        return [
            ("time", f"{format_number(self.seconds)} s", each),
            ("memory", human_bytes(self.memory), free),
            ("disk", human_bytes(self.disk), files),
        ]


@takes_data
def index_cost(
    calculator: BaseInfluenceCalculator,
    train_set: Data,
    path: str | Path,
    dtype: str = "float16",
    part_size: int | None = None,
    self_scores: bool = True,
    num_examples: int | None = None,
    device: str | None = None,
) -> IndexCost:
    """Tell what `build_index` will cost, by building an index of the first batches.

    It is built in a folder beside ``path`` that is removed again. What is compiled once is not
    counted, and time is taken to grow with the number of examples: other work on the machine, and
    later batches that are padded to other lengths, are not foreseen.

    Parameters
    ----------
    calculator, train_set, path, dtype, part_size, self_scores, device
        As for `build_index`; ``path`` need not be there, and is left as it is.
    num_examples
        How many examples there are; None counts them, in a pass over the data.

    Returns
    -------
    Seconds and bytes, which print as a table.

    Raises
    ------
    DataSourceError, TypeError, ValueError
        As `build_index`.
    """
    wanted = count_examples(train_set, "train_set") if num_examples is None else num_examples
    count = check_count("num_examples", wanted)
    there = next(folder for folder in Path(path).absolute().parents if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=".cost-", dir=there) as scratch:

        def built(batches: int, name: str) -> tuple[Index, _Taken]:
            start = time.perf_counter()
            index = build_index(
                *(calculator, train_set.take(batches), Path(scratch) / name, dtype),
                part_size=part_size,
                self_scores=self_scores,
                id_fn=POSITION,
                device=device,
                verbose=0,
            )
            seconds = time.perf_counter() - start
            size = sum(part.path.stat().st_size for part in index.parts)
            return index, _Taken(len(index), seconds, size)

        built(1, "compiled")
        (_, first), (index, more) = built(1, "first"), built(1 + TIMED, "more")
    size = index.header.part_size
    each = more.beyond(first)
    in_memory = _COPIES * min(size, count) * each.bytes
    free = shutil.disk_usage(there).free
    seconds = first.seconds + (count - first.examples) * each.seconds
    figures = (max(seconds, 0.0), int(in_memory), int(count * each.bytes))
    return IndexCost(
        count, index.header.dimension, count // size + 1, *figures, available_bytes(), free
    )


@dataclass(frozen=True)
class _Taken:
    """What some examples took."""

    examples: int
    seconds: float
    bytes: float

    def beyond(self, other: _Taken) -> _Taken:
        """Return what each example took that is not among those of ``other``; of all, if none."""
        more = self.examples - other.examples
        if not more:
            return _Taken(1, self.seconds / self.examples, self.bytes / self.examples)
        seconds, size = self.seconds - other.seconds, self.bytes - other.bytes
        return _Taken(1, max(seconds, 0.0) / more, size / more)
