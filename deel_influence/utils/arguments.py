"""The arguments that an object was made with."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np


def arguments_of(
    kind: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the arguments of a constructor by name, defaults included; None if they do not fit."""
    try:
        bound = inspect.signature(kind.__init__).bind(None, *args, **kwargs)
    except TypeError:  # the call itself says it better
        return None
    bound.apply_defaults()
    return dict(list(bound.arguments.items())[1:])


def settings_of(
    kind: Any, args: Sequence[Any], kwargs: Mapping[str, Any], others: Collection[str]
) -> dict[str, Any]:
    """Return those arguments of a constructor that JSON can hold, beside some ``others``."""
    arguments = arguments_of(kind, args, kwargs) or {}
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in arguments.items()
        if name not in others and is_plain(value)
    }


def is_plain(value: Any) -> bool:
    """Tell whether JSON can hold a value: a number, a text, None, or lists and dicts of them."""
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(name, str) and is_plain(part) for name, part in value.items())
    return value is None or isinstance(value, (bool, int, float, str, np.generic))
