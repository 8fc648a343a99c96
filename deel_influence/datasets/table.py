"""Training sets in CSV and Parquet files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ..errors import DataSourceError
from ..extras import require
from ..utils.example_ids import as_ids, check_unique
from ..utils.intake import as_dataset, index_ids
from ..utils.records import UNREADABLE
from .source import DataSource, Rows

SUFFIXES = (".csv", ".parquet")

_LABELS = ("label", "labels")
_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "None"]
_IDS = ("id", "ids")


class Columns(NamedTuple):
    """What the columns of a table are; None looks for a usual name.

    Attributes
    ----------
    label
        The column of labels; ``label`` or ``labels`` where it is not given.
    id
        The column of ids; ``id`` or ``ids``, or the positions, where it is not given.
    text
        The column of texts that is the only input. Otherwise all other columns are inputs.
    """

    label: str | None = None
    id: str | None = None
    text: str | None = None


class Table(NamedTuple):
    """A table of n examples as it was read.

    Attributes
    ----------
    frame
        All of it.
    label, id
        The columns of labels and of ids, if there is one.
    labels
        The labels as numbers, shape ``(n,)``.
    ids
        The ids, shape ``(n,)``; None where positions are.
    class_names
        What the labels 0, 1, ... are called, where they were texts.
    """

    frame: Any
    label: str
    id: str | None
    labels: np.ndarray
    ids: np.ndarray | None
    class_names: tuple[str, ...] | None


def load_table(
    path: Path,
    batch_size: int,
    columns: Columns,
    model: Any = None,
    class_names: tuple[str, ...] | None = None,
) -> DataSource:
    """Load a table with a row for each example.

    Labels that are texts are numbered in the order of ``class_names``; in that of their categories,
    where a Parquet file says it; and in sorted order elsewhere. Inputs are a dict of columns where
    the model has inputs of these names, and a matrix elsewhere. Without a column of ids the index
    of a Parquet file, unless it only counts, gives them.

    Parameters
    ----------
    path
        The file.
    batch_size
        Examples in a batch.
    columns
        What its columns are.
    model
        The Keras model that the examples are for; None takes a matrix.
    class_names
        The names of the classes in order, where they are known.

    Raises
    ------
    DataSourceError
        If the file is unreadable or lacks a column, or its columns are not what the model takes.
    MissingExtraError
        If pandas is not installed.
    """
    table = read_table(path, columns, class_names)
    text = _column(table.frame, columns.text, (), "text", path)
    named = [column for column in (table.label, table.id) if column]
    inputs = table.frame[[text]] if text else table.frame.drop(columns=named)
    if table.id is not None:
        inputs = inputs.reset_index(drop=True)
    if text is not None:
        _check_complete(inputs[text].isna().to_numpy(), "Texts", text, path)
        inputs = inputs.astype(str)
    if not len(inputs.columns):
        message = (
            f"The table must have at least one column of inputs. Received: {str(path)!r} with the "
            f"columns {_names(table.frame)}."
        )
        raise DataSourceError(message)

    def read(first: int, last: int) -> tf.data.Dataset:
        rows = inputs.iloc[first:last], table.labels[first:last]
        return as_dataset(rows, f"inputs of {path.name}", model, batch_size)

    try:
        dataset = read(0, len(inputs))
    except ValueError as error:
        message = f"The table must fit the model. Received: {str(path)!r}. {error}"
        raise DataSourceError(message) from error
    spec = dataset.element_spec[0]
    is_matrix = isinstance(spec, tf.TensorSpec) and spec.shape.rank == 2 and spec.dtype != tf.string
    return DataSource(
        name=path.name,
        dataset=dataset,
        ids=table.ids,
        class_names=table.class_names,
        feature_names=tuple(_names(inputs)) if is_matrix else None,
        rows=Rows(len(inputs), batch_size, read),
    )


def read_table(path: Path, columns: Columns, class_names: tuple[str, ...] | None = None) -> Table:
    """Read a table, its labels and its ids; the arguments are those of `load_table`.

    Raises
    ------
    DataSourceError
        If the file is unreadable, lacks a column, or has ids or labels that are none.
    MissingExtraError
        If pandas is not installed.
    """
    frame = _read(path, columns)
    label = _column(frame, columns.label, _LABELS, "label", path)
    if label is None:
        message = (
            f"The table must have a column of labels, {' or '.join(_LABELS)}. Received: "
            f"{str(path)!r} with the columns {_names(frame)}. Name it with --label COLUMN "
            "(`label=` in Python)."
        )
        raise DataSourceError(message)
    name = _column(frame, columns.id, _IDS, "id", path)
    given = frame[label]
    if class_names is None and hasattr(given, "cat"):
        class_names = tuple(str(category) for category in given.cat.categories)
    is_missing = given.isna()
    plain = given.dtype.kind in "biuf" and not is_missing.any()
    values = given if plain else given.astype(object).where(~is_missing, None)
    labels, class_names = number_classes(values.to_numpy(), label, path, class_names)
    argument = f"{name or 'index'} of {path.name}"
    try:
        named = None if name is None else as_ids(frame[name].to_numpy(), argument)
        ids = index_ids(frame, argument) if named is None else check_unique(named, argument)
    except ValueError as error:
        message = f"The table must have ids. Received: {str(path)!r}. {error}"
        raise DataSourceError(message) from error
    return Table(frame, label, name, labels, ids, class_names)


def number_classes(
    labels: np.ndarray, name: str, path: Path, class_names: tuple[str, ...] | None = None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return labels as numbers, and the names of their classes where they were texts.

    Parameters
    ----------
    labels
        Numbers, truth values or texts, the examples first.
    name, path
        Where they are from, for messages.
    class_names
        The names in order, where the source gives them; None sorts them.

    Raises
    ------
    DataSourceError
        If one is missing, or is no class.
    """
    if labels.dtype.kind == "b":
        return labels.astype(np.int64), class_names or ("False", "True")
    if labels.dtype.kind in "iuf":
        _check_complete(np.asarray(np.isnan(labels)), "Labels", name, path)
        return labels, class_names
    missing = [value is None or value != value for value in labels.ravel().tolist()]  # noqa: PLR0124
    _check_complete(np.reshape(missing, labels.shape), "Labels", name, path)
    texts = labels.astype(str)
    names = tuple(np.unique(texts).tolist()) if class_names is None else class_names
    numbers = {text: number for number, text in enumerate(names)}
    unknown = sorted(set(texts.ravel().tolist()) - set(numbers))
    if unknown:
        message = (
            f"Labels must be among the class names {list(names)[:10]}. Received: {str(path)!r}, "
            f"whose {name!r} has {unknown[:3]}."
        )
        raise DataSourceError(message)
    return np.vectorize(numbers.__getitem__, otypes=[np.int64])(texts), names


def _check_complete(missing: np.ndarray, what: str, name: str, path: Path) -> None:
    """Refuse labels, or texts, of which some ``(n, ...)`` are missing."""
    rows = np.asarray(missing.reshape(len(missing), -1).any(axis=1))
    if rows.any():
        message = (
            f"{what} must not be missing. Received: {str(path)!r}, whose {name!r} lacks "
            f"{rows.sum()} of {len(rows)}, first in row {rows.argmax()} (counting from 0). Fill "
            "them in, or leave these rows out."
        )
        raise DataSourceError(message)


def _read(path: Path, columns: Columns) -> Any:
    pandas = require("pandas", "report", "Tables need")
    try:
        is_csv = path.suffix.lower() == ".csv"
        frame = _read_csv(pandas, path, columns) if is_csv else pandas.read_parquet(path)
    except UNREADABLE as error:
        message = (
            f"The data file must be a readable CSV or Parquet table. Received: {str(path)!r}, "
            f"which fails with: {error}"
        )
        raise DataSourceError(message) from error
    if not len(frame):
        message = f"The table must have at least one row. Received: {str(path)!r}, which is empty."
        raise DataSourceError(message)
    # A named index of a Parquet file may be the column of ids.
    wanted = (columns.id,) if columns.id else _IDS
    return frame.reset_index() if frame.index.name in wanted else frame


def _read_csv(pandas: Any, path: Path, columns: Columns) -> Any:
    """Read a CSV file: ids, labels and texts as they are written, in numbers only what is."""
    separator = ","
    head = pandas.read_csv(path, nrows=0)
    if len(head.columns) == 1 and (found := re.search("[;\t]", str(head.columns[0]))):
        separator = found[0]
        head = pandas.read_csv(path, nrows=0, sep=separator)
    written = [columns.label, columns.id, columns.text]
    written += [*_LABELS] if columns.label is None else []
    written += [*_IDS] if columns.id is None else []
    texts = [name for name in head.columns if name in written]
    # A class may be called NA, and a text may be "None"; among inputs that is what is missing.
    missing = {name: [""] if name in texts else _MISSING for name in head.columns}
    frame = pandas.read_csv(
        path,
        sep=separator,
        dtype=dict.fromkeys(texts, object),
        keep_default_na=False,
        na_values=missing,
        # The index that pandas writes has no name.
        index_col=0 if str(head.columns[0]) == "Unnamed: 0" else None,
    )
    for name in texts:
        frame[name] = _as_numbers(pandas, frame[name])
    return frame


def _as_numbers(pandas: Any, column: Any) -> Any:
    """Return a column of texts as the numbers that they spell, unless something would be lost."""
    if column.isna().any():
        return column
    lowered = column.str.strip().str.lower()
    if lowered.isin(["true", "false"]).all():
        return lowered == "true"
    try:
        numbers = pandas.to_numeric(column)
    except ValueError:
        return column
    whole = numbers.dtype.kind in "iu" and (numbers.astype(str) != column).any()
    return column if whole else numbers


def _column(
    frame: Any, given: str | None, usual: tuple[str, ...], what: str, path: Path
) -> str | None:
    """Return the column that is given, or the first of the usual ones that is there."""
    if given is None:
        return next((name for name in usual if name in frame.columns), None)
    if given not in frame.columns:
        message = (
            f"The column --{what} (`{what}=` in Python) must be in the table. Received: {given!r} "
            f"for {str(path)!r} with the columns {_names(frame)}."
        )
        raise DataSourceError(message)
    return given


def _names(frame: Any) -> list[str]:
    return [str(name) for name in frame.columns]
