"""Settings that go with results on disk, and must not differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataSourceError
from ..utils.records import differing


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
    different = [
        f"{name} ({_shown(stored, name)} there, {_shown(given, name)} asked for)"
        for name in differing(stored, given)
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
