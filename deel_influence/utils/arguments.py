"""The arguments that an object was made with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_NO_SETTINGS = (
    *("self", "__class__", "model", "train_dataset", "train_hessian"),
    *("extractor_layer", "feature_extractor"),
)


def settings_in(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings among the arguments of a constructor: all but model and data.

    Parameters
    ----------
    scope
        Its ``locals()``, in its first line.

    Returns
    -------
    The settings by name, numbers and arrays of NumPy as those of Python, which JSON can hold.
    """
    return {name: _plain(value) for name, value in scope.items() if name not in _NO_SETTINGS}


def arguments_of(
    kind: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the arguments of a constructor by name, defaults included; None if they do not fit."""
    signature = inspect.signature(kind.__init__)
    try:
        bound = signature.bind(None, *args, **kwargs)
    except TypeError:  # the call itself says it better
        return None
    bound.apply_defaults()
    arguments = dict(list(bound.arguments.items())[1:])
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name))
    return arguments


def is_plain(value: Any) -> bool:
    """Tell whether JSON can hold a value: a number, a text, None, or lists and dicts of them."""
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(name, str) and is_plain(part) for name, part in value.items())
    return value is None or isinstance(value, (bool, int, float, str, np.generic))


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return {name: _plain(part) for name, part in value.items()} if type(value) is dict else value
