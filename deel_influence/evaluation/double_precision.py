"""Copies of Keras models that compute in float64."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from ..errors import UnsupportedModelError
from ..model.cloning import form_of, model_of
from ..model.copies import assign_weights, first_line

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_REMEDY = "Write it with Keras layers, or give it `get_config` and `from_config`."


def float64_copy(model: keras.Model) -> keras.Model:
    """Return a copy of a built model, with its weights, that computes in float64.

    Parameters
    ----------
    model
        The model, which is left as it is.

    Raises
    ------
    UnsupportedModelError
        If Keras cannot make one from the model's configuration.
    """
    try:
        kind, config, *rest = form_of(model)
        copy = model_of((kind, _as_float64(config), *rest))
    except Exception as error:  # whatever the model's own code raises
        message = (
            f"The model must be one that Keras can copy. Received: a {type(model).__name__}, "
            f"which it cannot ({first_line(error)}). {_REMEDY}"
        )
        raise UnsupportedModelError(message) from error
    _check_form(model, copy)
    assign_weights(copy, model)
    return copy


def _as_float64(config: Any) -> Any:
    """Change every floating dtype in a configuration, those of inputs and policies included."""
    if isinstance(config, dict):
        if config.get("class_name", "").endswith("DTypePolicy"):
            return "float64"
        return {
            key: "float64" if key == "dtype" and value in _FLOATS else _as_float64(value)
            for key, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(_as_float64(part) for part in config)
    return config


def _check_form(model: keras.Model, copy: keras.Model) -> None:
    """Refuse a copy with other weights, or weights that are not float64."""
    forms = [[(tuple(v.shape), bool(v.trainable)) for v in m.weights] for m in (model, copy)]
    floating = [v.dtype for v in copy.weights if np.issubdtype(np.dtype(v.dtype), np.floating)]
    if forms[0] != forms[1] or set(floating) - {"float64"}:
        message = (
            "The model must be one that Keras copies with all its weights, in another dtype. "
            f"Received: a {type(model).__name__} whose copy has other weights. {_REMEDY}"
        )
        raise UnsupportedModelError(message)
