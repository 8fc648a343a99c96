"""Everything that this library writes to disk and reads again.

A record has a kind, a version, settings that JSON can hold, arrays by name, and a checksum of all
of it. It is one file, ``.json`` where there are no arrays and else ``.npz``, which NumPy opens too;
no file holds pickles. What a reader cannot take is refused by one class of error, with the name of
the file, the reason, and what to do about it.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.lib import format as npy

from ..errors import DataSourceError, DeelInfluenceError
from .digests import array_digest
from .files import replacing

Settings = dict[str, Any]
Arrays = dict[str, np.ndarray]
Parsed = TypeVar("Parsed")

UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    struct.error,
    RuntimeError,  # an archive that seems to be encrypted, or another method; JSON too deep
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy, JSON and archives raise on files that are damaged, or none of theirs."""

# What code raises that finds other content than it expects.
_ODD = (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError)

_HEADER, _CHECKSUM = "header", "checksum"
# Where in the header of a member of an archive the two lengths stand that vary.
_LENGTHS_AT = 26
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class RecordKind:
    """One kind of record.

    Attributes
    ----------
    name
        What such a file holds, in a word or two.
    remedy
        What to do about a file that cannot be used, in a sentence.
    version
        Of the form of its content; readers refuse others.
    error
        The class of the errors, a `DataSourceError`.
    """

    name: str
    remedy: str
    version: int = 1
    error: type[DataSourceError] = DataSourceError

    def write(
        self,
        path: str | Path,
        settings: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray] | None = None,
        only_new: bool = False,
    ) -> Path:
        """Write a record, which appears whole or not at all.

        Parameters
        ----------
        path
            Where to write, with its suffix.
        settings
            What JSON can hold.
        arrays
            Arrays by name, none of them called ``header``; None for a file of JSON.
        only_new
            Whether a file that is there already stays.

        Raises
        ------
        TypeError
            If an array holds Python objects.
        """
        header = {"kind": self.name, "version": self.version, **settings}
        header = json.loads(json.dumps(header))  # as it is read back
        kept = {name: np.asarray(array) for name, array in (arrays or {}).items()}
        objects = sorted(name for name, array in kept.items() if array.dtype.hasobject)
        if objects:  # which NumPy would pickle
            message = (
                f"Argument `arrays` of a {self.name} must hold numbers or texts. Received: "
                f"{objects}."
            )
            raise TypeError(message)
        header[_CHECKSUM] = _checksum(header, kept)
        with replacing(path, only_new) as temporary:
            if arrays is None:
                text = json.dumps(header, indent=1, ensure_ascii=False)
                temporary.write_text(text + "\n", encoding="utf-8")
            else:
                coded = np.frombuffer(json.dumps(header).encode(), np.uint8)
                content: dict[str, Any] = {_HEADER: coded, **kept}
                with temporary.open("wb") as stream:
                    np.savez(stream, **content)
        return Path(path)

    def read(
        self,
        path: str | Path,
        parse: Callable[[Settings, Arrays], Parsed],
        mapped: bool = False,
    ) -> Parsed:
        """Return what a record says.

        Parameters
        ----------
        path
            The file.
        parse
            Makes the result of settings and arrays. An error that it meets in odd content becomes
            one of this kind.
        mapped
            Whether the arrays are maps of the file, which are read where they are used. Their sizes
            are checked, and their content is not.

        Raises
        ------
        DataSourceError
            If the file is missing, damaged, of another kind or version, or of odd content.
        """
        header, arrays = self._content(Path(path), mapped)
        with self.parsing(path):
            return parse(header, arrays)

    @contextmanager
    def parsing(self, path: str | Path) -> Iterator[None]:
        """Turn what code raises on odd content of a file into the error of this kind."""
        try:
            yield
        except DeelInfluenceError:
            raise
        except _ODD as error:
            raise self.refused(path, f"has odd content ({_text_of(error)})") from error

    def refused(self, path: str | Path, reason: str) -> DataSourceError:
        """Return the error for a file that ``reason`` tells what is wrong with."""
        message = (
            f"The file must hold a {self.name}. Received: {str(path)!r}, which {reason}. "
            f"{self.remedy}"
        )
        return self.error(message)

    def _content(self, path: Path, mapped: bool) -> tuple[Settings, Arrays]:
        arrays: Arrays = {}
        try:
            if path.suffix == ".json":
                header = json.loads(path.read_text(encoding="utf-8"))
            else:
                arrays = map_arrays(path) if mapped else read_arrays(path, is_stored=True)
                header = json.loads(arrays.pop(_HEADER, np.array([])).tobytes() or b"null")
        except FileNotFoundError as error:
            raise self.refused(path, "is not there") from error
        except UNREADABLE as error:
            raise self.refused(path, f"cannot be read ({_text_of(error)})") from error
        if not isinstance(header, dict) or "kind" not in header:
            raise self.refused(path, "this library did not write, or another release of it")
        if header["kind"] != self.name:
            raise self.refused(path, f"holds a {header['kind']}")
        if header.get("version") != self.version:
            versions = f"{header.get('version')!r} and not {self.version}"
            raise self.refused(path, f"is of version {versions}")
        checksum = header.pop(_CHECKSUM, None)
        if not mapped and checksum != _checksum(header, arrays):
            raise self.refused(path, "was changed since it was written: its checksum is another")
        return header, arrays


def kind_of(path: Path) -> str:
    """Return what an ``.npz`` file says that it holds, without reading its arrays.

    Raises
    ------
    DataSourceError
        If it is missing, or none of this library's.
    """
    try:
        coded = read_arrays(path, _HEADER.__eq__, is_stored=True)[_HEADER]
        return str(json.loads(coded.tobytes())["kind"])
    except (*UNREADABLE, TypeError) as error:
        message = (
            f"The file must be an .npz file of this library. Received: {str(path)!r}, which cannot "
            f"be read ({_text_of(error)})."
        )
        raise DataSourceError(message) from error


def differing(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that are not the same in both, in alphabetical order."""
    missing = object()
    names = sorted({*stored, *given})
    return [name for name in names if stored.get(name, missing) != given.get(name, missing)]


def read_arrays(
    path: Path, wanted: Callable[[str], bool] = lambda _: True, is_stored: bool = False
) -> Arrays:
    """Return the arrays of an ``.npz`` file by name, without running any code.

    No memory is taken for numbers that the file does not hold.

    Parameters
    ----------
    path
        The file.
    wanted
        Whether to read the array of that name.
    is_stored
        Whether compressed arrays are refused, so that what is read is no larger than the file.

    Raises
    ------
    OSError, ValueError
        And others of `UNREADABLE`, where the file is none of these.
    """
    arrays = {}
    with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if not wanted(name):
                continue
            if is_stored:
                _check_stored(member)
            with archive.open(member) as file:
                _checked_form(file, member)
            with archive.open(member) as file:
                arrays[name] = npy.read_array(file, allow_pickle=False)
    return arrays


def map_arrays(path: Path) -> Arrays:
    """Return the arrays of an uncompressed ``.npz`` file as maps of it, which cannot be written to.

    Raises
    ------
    OSError, ValueError
        As `read_arrays`.
    """
    arrays: Arrays = {}
    with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            _check_stored(member)
            with archive.open(member) as file:
                shape, fortran, dtype = _checked_form(file, member)
                within = file.tell()
            stream.seek(member.header_offset + _LENGTHS_AT)
            lengths = struct.unpack("<HH", stream.read(4))  # of the name, and of what follows it
            start = stream.tell() + sum(lengths) + within
            name = member.filename.removesuffix(".npy")
            if 0 in shape:  # nothing of a file can be mapped
                arrays[name] = np.empty(shape, dtype)
            else:
                arrays[name] = np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")
    return arrays


def _check_stored(member: zipfile.ZipInfo) -> None:
    if member.compress_type != zipfile.ZIP_STORED:
        message = f"{member.filename} is compressed"
        raise ValueError(message)


def _checked_form(file: IO[bytes], member: zipfile.ZipInfo) -> tuple[tuple, bool, np.dtype]:
    """Return shape, order and type of an array.

    One that declares another size than its file has, or holds Python objects, is refused.
    """
    version = npy.read_magic(file)
    if version not in _HEADERS:
        message = f"{member.filename} is of NumPy's version {version}"
        raise ValueError(message)
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        message = f"{member.filename} holds Python objects, such as texts of dtype=object"
        raise ValueError(message)
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size != member.file_size - file.tell():
        message = f"{member.filename} declares {size} bytes and has {member.file_size}"
        raise ValueError(message)
    return shape, fortran, dtype


def _checksum(header: Mapping[str, Any], arrays: Arrays) -> str:
    """Return a digest of a record, in whatever order its parts stand."""
    text = json.dumps(header, sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {array_digest(arrays[name])}".encode())
    return digest.hexdigest()


def _text_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
