"""Objects as JSON can hold them, to tell one benchmark from another."""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import os
import types
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Arrays of up to so many numbers are written out, larger ones as a digest.
_FEW = 32

# Settings that change what is shown, and no result.
_WITHOUT_EFFECT = ("verbose", "use_tensorboard")

_BY_CONFIG = (
    keras.losses.Loss,
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
)
_PLAIN = (
    *(types.NoneType, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, range),
    *(Mapping, os.PathLike, np.ndarray, np.generic, tf.Tensor, *_BY_CONFIG),
)


def describe(value: Any) -> Any:
    """Return what identifies a setting, as numbers, texts, lists and dicts.

    Objects are described by their class and their public attributes, classes by their name, and
    functions by their name, their code, and the plain values that they use, so that the same
    settings give the same description in another process.

    Parameters
    ----------
    value
        A setting, or an object that holds settings.

    Examples
    --------
    >>> describe({"epochs": 3, "loss": len})
    {'epochs': 3, 'loss': 'len'}
    """
    if isinstance(value, functools.partial):
        return [describe(part) for part in (value.func, value.args, value.keywords)]
    function = inspect.unwrap(value) if callable(value) else None
    if isinstance(function, types.MethodType):
        function = function.__func__
    if isinstance(function, types.FunctionType):
        return _describe_function(function)
    if isinstance(value, _PLAIN):
        return _describe_plain(value)
    name = getattr(value, "__qualname__", None) or getattr(value, "name", None)
    return name if isinstance(name, str) else _describe_object(value)


def _describe_object(value: Any) -> dict[str, Any]:
    attributes = getattr(value, "__dict__", {}).items()
    public = {k: v for k, v in attributes if not k.startswith("_") and k not in _WITHOUT_EFFECT}
    return {"class": type(value).__name__, **describe(public)}


def _describe_by_config(value: Any) -> dict[str, Any]:
    try:
        config = value.get_config()
    except NotImplementedError:  # Keras asks for a config only where an object is saved.
        return _describe_object(value)
    # Keras numbers the names of what it makes.
    kept = {k: v for k, v in config.items() if k != "name"}
    return {"class": type(value).__name__, **describe(kept)}


def _describe_plain(value: Any) -> Any:
    if isinstance(value, _BY_CONFIG):
        return _describe_by_config(value)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((describe(item) for item in value), key=repr)
    if isinstance(value, list | tuple | range):
        return [describe(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, tf.Tensor | np.generic | np.ndarray):
        return _describe_array(np.asarray(value))
    # JSON has no infinity, no NaN, no bytes and no complex numbers.
    is_json = isinstance(value, str | int | types.NoneType) or (
        isinstance(value, float) and math.isfinite(value)
    )
    return value if is_json else repr(value)


def _describe_array(array: np.ndarray) -> Any:
    if array.size <= _FEW or array.dtype.hasobject:
        return describe(array.tolist())
    return {"shape": list(array.shape), "dtype": str(array.dtype), "digest": _digest(array)}


def _describe_function(function: types.FunctionType) -> dict[str, Any]:
    variables = inspect.getclosurevars(function)
    used = {**variables.globals, **variables.nonlocals}
    return {
        "function": function.__qualname__,
        "code": _digest_of_code(function.__code__),
        "defaults": describe([function.__defaults__, function.__kwdefaults__]),
        # What is not plain may lead back to the function itself.
        "variables": {k: describe(v) for k, v in used.items() if isinstance(v, _PLAIN)},
    }


def _digest_of_code(code: types.CodeType) -> str:
    constants = [
        _digest_of_code(item) if isinstance(item, types.CodeType) else describe(item)
        for item in code.co_consts
    ]
    return _digest(repr((code.co_code, code.co_names, constants)).encode())


def _digest(content: bytes | np.ndarray) -> str:
    data = content if isinstance(content, bytes) else content.tobytes()
    return hashlib.sha256(data).hexdigest()[:16]
