"""Columns of a table of examples in CSV and Parquet files, the latter sealed by a checksum."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ..errors import DataSourceError, LabelError
from ..texts import csv_cell
from ..utils.digests import array_digest
from ..utils.files import replacing
from ..utils.formatting import written_column
from ..utils.label_sets import LabelSets, names_as_json, names_of_json
from ..utils.records import UNREADABLE

_CHECKSUM = "deel_influence.sha256"
_CLASS_NAMES = "deel_influence.class_names"


def check_columns(columns: Mapping[str, np.ndarray]) -> None:
    """Refuse columns that are not all of one shape ``(n,)``.

    Raises
    ------
    ValueError
        Tells their shapes.
    """
    shapes = {name: np.shape(column) for name, column in columns.items()}
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 1:
        message = (
            "Argument `ids` and the other columns must all have one shape (n,). Received: "
            f"{shapes}."
        )
        raise ValueError(message)


def check_class_names(names: Sequence[str], labels: np.ndarray, predicted: np.ndarray) -> None:
    """Refuse names that do not name every class."""
    if labels.dtype.kind == "f":
        message = (
            "Argument `class_names` names classes, and must be None where labels are values. "
            f"Received: {len(names)} names for labels of dtype {labels.dtype}."
        )
        raise LabelError(message)
    both = np.concatenate([labels, predicted])
    if len(both) and (both.min() < 0 or both.max() >= len(names)):
        message = (
            "Argument `class_names` must name every label, the first one being 0. Received: "
            f"{len(names)} names for labels from {both.min()} to {both.max()}, given or predicted. "
            "Check that the model was trained on these classes."
        )
        raise LabelError(message)


def write_csv(path: str | os.PathLike[str], columns: Mapping[str, np.ndarray]) -> None:
    """Write columns ``(n,)`` whose texts no spreadsheet takes for formulas, whole or not at all."""
    written = {name: written_column(part, csv_cell) for name, part in columns.items()}
    with replacing(path) as temporary:
        pyarrow.csv.write_csv(pa.table(written), temporary)


def names_beside(
    columns: Mapping[str, np.ndarray], classes: Sequence[str], class_names: Sequence[str] | None
) -> dict[str, np.ndarray]:
    """Return columns with the names of those that hold classes beside their numbers."""
    if class_names is None:
        return dict(columns)
    # As objects, each name is in memory once.
    names = np.array([str(name) for name in class_names], dtype=object)
    result: dict[str, np.ndarray] = {}
    for key, part in columns.items():
        result[key] = part
        if key in classes:
            result[f"{key}_name"] = names[part]
    return result


def write_columns(
    path: str | os.PathLike[str],
    columns: Mapping[str, np.ndarray],
    class_names: Sequence[str] | None,
) -> None:
    """Write columns ``(n,)`` and the names of the classes, whole or not at all."""
    columns = {name: written_column(part) for name, part in columns.items()}
    metadata = {}
    if class_names is not None:
        metadata[_CLASS_NAMES] = json.dumps(names_as_json(class_names))
    metadata[_CHECKSUM] = _checksum(columns, metadata.get(_CLASS_NAMES))
    with replacing(path) as temporary:
        pq.write_table(pa.table(dict(columns)).replace_schema_metadata(metadata), temporary)


def read_columns(
    path: str | os.PathLike[str], needed: Sequence[str]
) -> tuple[dict[str, np.ndarray], LabelSets | tuple[str, ...] | None]:
    """Read what `write_columns` wrote.

    Parameters
    ----------
    path
        The file.
    needed
        The columns that must be there.

    Returns
    -------
    The columns, and the names of the classes if there are any.

    Raises
    ------
    DataSourceError
        If the file is missing, damaged, no Parquet file, or lacks a column.
    """
    try:
        # Opened here: given a path, pyarrow would look for other file systems and partitions.
        with open(path, "rb") as file:
            table = pq.ParquetFile(file).read()
            found = {name: table[name].to_numpy() for name in table.column_names}
    except (*UNREADABLE, pa.ArrowException) as error:
        message = f"A triage must be a Parquet file. Received: {os.fspath(path)!r} ({error})."
        raise DataSourceError(message) from error
    missing = sorted(set(needed) - set(found))
    if missing:
        message = (
            f"A triage must have the columns {', '.join(needed)}. Received: "
            f"{os.fspath(path)!r} without {', '.join(missing)}. Write it with `to_parquet`."
        )
        raise DataSourceError(message)
    stored = table.schema.metadata or {}
    metadata = {key: stored.get(key.encode()) for key in (_CHECKSUM, _CLASS_NAMES)}
    names = metadata[_CLASS_NAMES]
    names = None if names is None else names.decode(errors="replace")
    if metadata[_CHECKSUM] != _checksum(found, names).encode():
        message = (
            "A triage must be what `to_parquet` wrote. Received: "
            f"{os.fspath(path)!r}, whose checksum is another: it was changed or damaged since. "
            "Write it again."
        )
        raise DataSourceError(message)
    texts = {name: part.astype(str) for name, part in found.items() if part.dtype == object}
    return {**found, **texts}, None if names is None else names_of_json(json.loads(names))


def _checksum(columns: Mapping[str, np.ndarray], class_names: str | None) -> str:
    """Return a digest of the columns, in their order, and of the names as JSON."""
    arrays = [part.astype(object) if part.dtype.kind == "U" else part for part in columns.values()]
    names = [] if class_names is None else [np.array([class_names], object)]
    return array_digest(*arrays, *names)
