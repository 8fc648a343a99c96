"""A folder of parts: what is computed of a dataset, a file for each stretch of examples."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ..errors import DataSourceError
from ..utils.digests import settings_digest
from ..utils.files import is_empty
from ..utils.records import Arrays, RecordKind, Settings, differing

PART_BYTES = 2**26
"""About how much a part takes, where the number of examples in it is not given."""

_NAME = re.compile(r"part-(\d{5,})-(\d{12})-(\d{12})\.npz")

Kind = TypeVar("Kind", bound="PartsHeader")


@dataclass(frozen=True)
class PartsHeader(ABC):
    """What the parts of a folder have in common; every part repeats its digest.

    To be implemented by subclasses, frozen dataclasses of what JSON can hold: `from_disk`, the
    name of the file, and what folder and parts are called.

    Attributes
    ----------
    part_size
        How many examples a part has, the last one of its row apart.
    """

    file: ClassVar[str]
    folder_kind: ClassVar[RecordKind]
    part_kind: ClassVar[RecordKind]

    part_size: int = field(kw_only=True)

    @abstractmethod
    def from_disk(self, arrays: Arrays) -> Arrays:
        """Return the arrays of a file in the form in which they are used.

        Raises
        ------
        ValueError
            If their shapes do not fit.
        """

    def to_disk(self, arrays: Arrays) -> Arrays:
        """Return arrays in the form in which they are kept."""
        return arrays

    @cached_property
    def digest(self) -> str:
        """What every part repeats."""
        return settings_digest(asdict(self))

    def agreed(self: Kind, folder: Path) -> Kind:
        """Write it to a folder that has none, and return the one that is there.

        Raises
        ------
        DataSourceError
            If that is another.
        """
        self.folder_kind.write(folder / self.file, asdict(self), only_new=True)
        there = self.read(folder)
        names = differing(asdict(there), asdict(self))
        if names:
            raise self.folder_kind.refused(folder, f"has another {', '.join(names)}")
        return there

    @classmethod
    def read(cls: type[Kind], folder: Path) -> Kind:
        """Return the header of a folder.

        Raises
        ------
        DataSourceError
            If it has no readable one.
        """

        def parsed(settings: Settings, _: Any) -> Kind:
            found = cls(**{f.name: _hashable(settings[f.name]) for f in fields(cls)})
            if found.part_size < 1:
                raise cls.folder_kind.refused(folder, "has odd content")
            return found

        return cls.folder_kind.read(folder / cls.file, parsed)

    @classmethod
    def checked_folder(cls, path: str | Path, argument: str) -> Path:
        """Return a folder that is new, empty, or has a header of this kind.

        Raises
        ------
        DataSourceError
            If it holds something else.
        """
        folder = Path(path)
        is_new = not folder.exists() or (folder.is_dir() and is_empty(folder))
        if not is_new and not (folder / cls.file).is_file():
            message = (
                f"Argument `{argument}` must be a new folder, or a {cls.folder_kind.name}. "
                f"Received: {str(folder)!r}, which holds something else. {cls.folder_kind.remedy}"
            )
            raise DataSourceError(message)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@dataclass(frozen=True)
class Part:
    """A stretch of the examples of a row of parts, and the file that it is in.

    Attributes
    ----------
    path
        The file.
    shard
        Which row of parts, from 0: a shard of the training set, or a chunk of queries.
    first, last
        The place of its first example in the row, and of its last one, plus one.
    """

    path: Path
    shard: int
    first: int
    last: int

    def __len__(self) -> int:
        """Return the number of examples."""
        return self.last - self.first

    def read(self, header: PartsHeader, mapped: bool = True) -> tuple[Settings, Arrays]:
        """Return settings and arrays, unless it belongs to another folder.

        Parameters
        ----------
        header
            That of the folder.
        mapped
            Whether the arrays are maps of the file, whose checksum is not looked at.

        Raises
        ------
        DataSourceError
            If the file is missing, damaged, or a stranger.
        """
        kind = header.part_kind

        def parsed(settings: Settings, arrays: Arrays) -> tuple[Settings, Arrays]:
            if settings["index"] != header.digest:
                raise kind.refused(self.path, "is of another folder")
            place = tuple(settings[name] for name in ("shard", "first", "last"))
            if place != (self.shard, self.first, self.last) or len(arrays["ids"]) != len(self):
                raise kind.refused(self.path, "holds other examples than its name tells")
            return settings, header.from_disk(arrays)

        return kind.read(self.path, parsed, mapped)

    def write(self, header: PartsHeader, data: str, arrays: Arrays) -> None:
        """Write the arrays, unless another writer has done so."""
        place = {"shard": self.shard, "first": self.first, "last": self.last}
        settings = {"index": header.digest, "data": data, **place}
        header.part_kind.write(self.path, settings, header.to_disk(arrays), only_new=True)


def part_at(folder: Path, shard: int, first: int, last: int) -> Part:
    """Return the part with some examples of a row, whose name they make up."""
    return Part(folder / f"part-{shard:05d}-{first:012d}-{last:012d}.npz", shard, first, last)


def parts_in(folder: Path) -> list[Part]:
    """Return the parts that a folder has, by row and place."""
    matches = ((path, _NAME.fullmatch(path.name)) for path in folder.iterdir())
    found = [Part(path, *map(int, match.groups())) for path, match in matches if match]
    return sorted(found, key=lambda part: (part.shard, part.first, part.last))


def holes_in(parts: Iterable[Part], part_size: int, rows: int) -> Iterator[str]:
    """Yield what is missing of some rows of parts, a line for each stretch of examples or row."""
    found = {shard: list(own) for shard, own in groupby(parts, lambda part: part.shard)}
    for shard in range(rows):
        place = 0
        own = found.get(shard, [])
        for part in own:
            if part.first > place:
                yield f"shard {shard}: examples {place} to {part.first - 1}"
            place = part.last
        # A row ends with a part that is shorter than others, and may be empty.
        if not own or len(own[-1]) == part_size:
            yield f"shard {shard}: examples from {place} on" if own else f"shard {shard}: all of it"


def fitting(example_bytes: int) -> int:
    """Return how many examples of so many bytes each a part has, a power of two."""
    return 2 ** ((PART_BYTES // example_bytes) | 1).bit_length() // 2


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
