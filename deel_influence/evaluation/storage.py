"""Arrays with a JSON header on disk, and settings that must not differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataSourceError
from ..utils.files import UNREADABLE, load_with_header, save_with_header

FORMAT = 1
"""Version of the files' form; a reader refuses those it does not know."""


def write_record(path: Path, kind: str, header: Mapping[str, Any], **arrays: np.ndarray) -> None:
    """Write a header and arrays to an ``.npz`` file, which appears whole or not at all.

    Parameters
    ----------
    path
        Where to write.
    kind
        What the file is, in a word or two; a reader that looks for another refuses it.
    header
        What JSON can hold.
    arrays
        Arrays by name, none of them called ``header``.
    """
    save_with_header(path, {"format": FORMAT, "kind": kind, **header}, **arrays)


def read_record(path: Path, kind: str, remedy: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the header and the arrays of a file that `write_record` wrote.

    Parameters
    ----------
    path
        The file.
    kind
        What it has to be.
    remedy
        What to do about a damaged one, for the message.

    Raises
    ------
    DataSourceError
        If the file is missing, damaged, of an unknown form, or of another kind.
    """
    try:
        header, arrays = load_with_header(path)
    except UNREADABLE as error:
        message = (
            f"The file must be one that this library wrote. Received: {str(path)!r}, which cannot "
            f"be read ({type(error).__name__}: {error}). {remedy}"
        )
        raise DataSourceError(message) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        form = header.get("format") if isinstance(header, dict) else None
        message = (
            f"The file's form must be {FORMAT}. Received: {str(path)!r} of form {form!r}. {remedy}"
        )
        raise DataSourceError(message)
    if header.get("kind") != kind:
        message = (
            f"The file must hold a {kind}. Received: {str(path)!r}, which holds "
            f"{header.get('kind', 'something else')!r}. {remedy}"
        )
        raise DataSourceError(message)
    return header, arrays


def plain_settings(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return settings as they come back from JSON, so that they compare equal on another day.

    Raises
    ------
    TypeError
        If JSON cannot hold them.
    """
    try:
        plain = {} if settings is None else dict(settings)
        # NaN would come back as another NaN, and never compare equal.
        return json.loads(json.dumps(plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        message = (
            "Argument `settings` must hold what JSON can: texts, finite numbers, truth values, "
            f"None, and lists and dicts of them. Received: {settings!r} ({error}). Describe the "
            "others, for instance by their name."
        )
        raise TypeError(message) from error


def check_settings(
    stored: Mapping[str, Any], given: Mapping[str, Any], where: Path, remedy: str
) -> None:
    """Refuse what was made with other settings.

    Parameters
    ----------
    stored, given
        Settings on disk, and those asked for, both as `plain_settings` gives them.
    where
        What is on disk.
    remedy
        What to do, for the message.

    Raises
    ------
    DataSourceError
        Names what differs.
    """
    missing = object()
    names = sorted({*stored, *given})
    different = [
        f"{name} ({_shown(stored, name)} there, {_shown(given, name)} asked for)"
        for name in names
        if stored.get(name, missing) != given.get(name, missing)
    ]
    if different:
        message = (
            "Argument `settings` must be those of the ground truth on disk. Received: "
            f"{str(where)!r}, which differs in {'; '.join(different)}. {remedy}"
        )
        raise DataSourceError(message)


def _shown(settings: Mapping[str, Any], name: str) -> str:
    text = repr(settings[name]) if name in settings else "none"
    return text if len(text) <= 60 else f"{text[:57]}..."
