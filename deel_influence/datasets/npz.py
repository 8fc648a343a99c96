"""Training sets in NumPy's ``.npz`` files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from ..errors import DataSourceError
from ..utils.example_ids import as_ids
from ..utils.intake import as_dataset
from ..utils.records import UNREADABLE, read_arrays
from .source import DataSource, Rows
from .table import number_classes

_EXAMPLE_KEYS = (("x", "y"), ("x_train", "y_train"))
ID_KEYS = ("ids", "id")
# What NumPy and zipfile raise on files that are truncated, are no archive, or hold pickles.
_REMEDY = "Write it with np.savez(FILE, x=x, y=y)."


def load_npz(path: Path, batch_size: int, class_names: tuple[str, ...] | None = None) -> DataSource:
    """Load the arrays ``x (n, ...)`` and ``y (n, ...)`` of a file, with the names it gives.

    Parameters
    ----------
    path
        The file. See `deel_influence.datasets.load_source` for its keys.
    batch_size
        Examples in a batch.
    class_names
        The names of the classes in order; None takes those of the file.

    Raises
    ------
    DataSourceError
        If the file is unreadable, lacks keys or its arrays do not fit each other.
    """
    arrays = _read(path)
    x_key, y_key = find_examples(arrays, path)
    x, y = arrays[x_key], arrays[y_key]
    for key in (x_key, y_key):
        _check_examples(key, arrays[key], path)
    y, class_names = number_classes(y, y_key, path, class_names or _names(arrays, "class_names"))
    if len(x) != len(y):
        message = (
            f"The arrays `{x_key}` and `{y_key}` of {str(path)!r} must have one row per example "
            f"each. Received: {len(x)} and {len(y)} rows. Save arrays of the same examples."
        )
        raise DataSourceError(message)

    def read(first: int, last: int) -> tf.data.Dataset:
        return as_dataset((x[first:last], y[first:last]), "x, y", batch_size=batch_size)

    return DataSource(
        name=path.name,
        dataset=read(0, len(x)),
        ids=_find_ids(arrays, len(x), path),
        class_names=class_names,
        feature_names=_find_feature_names(arrays, x, path),
        rows=Rows(len(x), batch_size, read),
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    wanted = {key for pair in _EXAMPLE_KEYS for key in pair}
    wanted.update(ID_KEYS, ("class_names", "feature_names"))
    try:
        # Members that nobody asks for, such as a test set, stay unread.
        return read_arrays(path, wanted.__contains__)
    except UNREADABLE as error:
        message = (
            f"The data file must be a readable `.npz` archive of arrays without pickled objects. "
            f"Received: {str(path)!r}, which fails with: {error} {_REMEDY}"
        )
        raise DataSourceError(message) from error


def find_examples(arrays: Mapping[str, np.ndarray], path: Path) -> tuple[str, str]:
    """Return what the inputs and the labels among the arrays of a file are called.

    Raises
    ------
    DataSourceError
        If there are none.
    """
    for keys in _EXAMPLE_KEYS:
        if all(key in arrays for key in keys):
            return keys
    message = (
        f"The data file must hold arrays `x` and `y`, or `x_train` and `y_train`. "
        f"Received: {str(path)!r} with {sorted(arrays) or 'none of them'}. {_REMEDY}"
    )
    raise DataSourceError(message)


def _check_examples(key: str, array: np.ndarray, path: Path) -> None:
    if array.ndim == 0 or len(array) == 0:
        message = (
            f"The array `{key}` of {str(path)!r} must have one row per example, and at least one. "
            f"Received: shape {array.shape}. {_REMEDY}"
        )
        raise DataSourceError(message)
    if array.dtype.kind not in "biufUS":
        message = (
            f"The array `{key}` of {str(path)!r} must hold numbers or texts. Received: dtype "
            f"{array.dtype}. Save it as one of these."
        )
        raise DataSourceError(message)


def _find_ids(arrays: Mapping[str, np.ndarray], count: int, path: Path) -> np.ndarray | None:
    key = next((key for key in ID_KEYS if key in arrays), None)
    if key is None:
        return None
    ids = arrays[key]
    if ids.shape != (count,) or ids.dtype.kind not in "iuUS" or len(np.unique(ids)) != count:
        message = (
            f"The array `{key}` of {str(path)!r} must hold {count} different integers or texts, "
            f"one per example. Received: shape {ids.shape}, dtype {ids.dtype}, "
            f"{len(np.unique(ids))} different values. "
            "Leave it out to identify examples by their positions."
        )
        raise DataSourceError(message)
    if ids.dtype.kind in "iu" and ids.max() > np.iinfo(np.int64).max:
        message = (
            f"The array `{key}` of {str(path)!r} must hold ids of at most {2**63 - 1}. "
            f"Received: {ids.max()}. Save them as texts."
        )
        raise DataSourceError(message)
    return as_ids(ids, key)


def _find_feature_names(
    arrays: Mapping[str, np.ndarray], x: np.ndarray, path: Path
) -> tuple[str, ...] | None:
    names = _names(arrays, "feature_names")
    if names is not None and x.shape[1:] != (len(names),):
        message = (
            f"The array `feature_names` of {str(path)!r} must name each column of a table of "
            f"inputs (n, d). Received: {len(names)} names for inputs of shape {x.shape}. "
            "Leave it out where inputs are no table."
        )
        raise DataSourceError(message)
    return names


def _names(arrays: Mapping[str, np.ndarray], key: str) -> tuple[str, ...] | None:
    return tuple(str(name) for name in np.ravel(arrays[key])) if key in arrays else None
