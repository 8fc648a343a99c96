"""What a reader is shown of examples in place of what the model gets: texts, files, columns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataSourceError
from ..extras import require

_PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_FORMS = (
    "one entry for each example: texts, paths of files, an array (n, ...), a pandas Series or "
    "DataFrame, or a dict of names and such"
)


def shown_of(
    display: Any, count: int, positions: Iterable[int], argument: str, in_column: bool = False
) -> list[Any]:
    """Return what of some examples is shown.

    Parameters
    ----------
    display
        One entry for each of n examples: a sequence of texts, numbers, paths or arrays, an array
        ``(n, ...)``, a pandas Series, a pandas DataFrame, or a dict of name → any of those.
    count
        The number n of examples.
    positions
        Which of them are shown, k positions.
    argument
        Name of the argument, for messages.
    in_column
        Whether it is a column of a table, where the name of a picture may be no more than a name.

    Returns
    -------
    For each position a text, number, array or path, or a dict of them by name. A text that names
    a file of a picture is a path.

    Raises
    ------
    ValueError
        If there is not one entry for each example.
    DataSourceError
        If all entries of a list name pictures, and one of these files is not there.
    """
    if hasattr(display, "iloc") and hasattr(display, "columns"):
        columns = range(len(display.columns))
        display = {str(display.columns[i]): display.iloc[:, i] for i in columns}
    if isinstance(display, Mapping):
        if not display:
            message = f"Argument `{argument}` must hold {_FORMS}. Received: an empty dict."
            raise ValueError(message)
        parts = [
            shown_of(part, count, positions, f"{argument}[{name!r}]", in_column=True)
            for name, part in display.items()
        ]
        return [dict(zip(map(str, display), row, strict=True)) for row in zip(*parts, strict=True)]
    entries = _entries(display, argument)
    if len(entries) != count:
        message = (
            f"Argument `{argument}` must hold {_FORMS}. "
            f"Received: {len(entries)} entries for {count} examples."
        )
        raise ValueError(message)
    if not in_column:
        _check_picture_files(entries, argument)
    return [_entry(entries[i]) for i in positions]


def is_picture_file(value: Any) -> bool:
    """Tell whether something shown is the path of a picture."""
    return isinstance(value, os.PathLike) and Path(value).suffix.lower() in _PICTURE_SUFFIXES


def read_picture(path: Path, largest: int | None = None) -> np.ndarray:
    """Read a picture as uint8, shape ``(h, w, 3)``, or ``(h, w, 4)`` where it has transparency.

    Parameters
    ----------
    path
        A file that Pillow reads; the first frame stands for an animation.
    largest
        A larger picture is shrunk to so many pixels along its longer side.

    Raises
    ------
    DataSourceError
        If there is no such file, or it is no picture.
    MissingExtraError
        If Pillow is not installed.
    """
    pillow = require("PIL.Image", "report", "Pictures need")
    turned = require("PIL.ImageOps", "report", "Pictures need").exif_transpose
    try:
        with pillow.open(path) as picture:
            if largest is not None:
                picture.draft("RGB", (largest, largest))
                picture.thumbnail((largest, largest))
            picture = turned(picture)
            if picture.mode[0] in "IF":  # more than 256 levels, as of scans
                return _stretched(np.asarray(picture, np.float64))
            mode = "RGBA" if picture.has_transparency_data else "RGB"
            return np.asarray(picture.convert(mode))
    except (OSError, ValueError, pillow.DecompressionBombError) as error:
        message = (
            "Argument `display` must name pictures that can be read. Received: "
            f"{os.fspath(path)!r} ({error}). Repair the file, or leave its name out."
        )
        raise DataSourceError(message) from error


def _stretched(levels: np.ndarray) -> np.ndarray:
    """Return levels ``(h, w)`` as grey in uint8, their range from black to white."""
    low, high = levels.min(), levels.max()
    grey = np.rint((levels - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
    return np.repeat(grey[:, :, np.newaxis], 3, axis=2)


def _entries(display: Any, argument: str) -> Sequence[Any]:
    """Return what has a length and places; arrays, tensors and Series as arrays."""
    if hasattr(display, "__array__"):
        display = np.asarray(display)
    is_single = isinstance(display, str | bytes) or getattr(display, "ndim", 1) == 0
    if is_single or not (hasattr(display, "__len__") and hasattr(display, "__getitem__")):
        received = type(display).__name__
        message = f"Argument `{argument}` must hold {_FORMS}. Received: {received}."
        raise ValueError(message)
    return display


def _check_picture_files(entries: Sequence[Any], argument: str) -> None:
    """Refuse names of pictures that are not there, which would be shown as texts."""
    if not all(_names_picture(entry) for entry in entries):
        return
    missing = next((path for path in entries if not os.path.isfile(path)), None)
    if missing is not None:
        message = (
            f"Argument `{argument}` must name pictures that are there. Received: "
            f"{str(missing)!r}, which is no file. Pass the paths with their folder."
        )
        raise DataSourceError(message)


def _names_picture(value: Any) -> bool:
    return isinstance(value, str) and value.lower().endswith(_PICTURE_SUFFIXES)


def _entry(value: Any) -> Any:
    """Return a path where a text names a picture, and an array where a list holds one kind."""
    if _names_picture(value):
        return Path(value) if os.path.isfile(value) else value
    if isinstance(value, list | tuple):
        same = all(isinstance(part, str) for part in value) or all(map(np.isscalar, value))
        return np.asarray(value) if same else str(value)
    return value
