"""Fitted strategies on disk: arrays and a JSON header in one ``.npz`` file, without pickles."""

from __future__ import annotations

import functools
import hashlib
import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import deel_influence

from ..errors import SavedCurvatureError
from ..model.influence_model import BaseInfluenceModel
from ..model.keras_internals import all_layers
from ..utils.datasets import count_examples, numbered_batches
from ..utils.files import UNREADABLE, load_with_header, npz_path, save_with_header

FORMAT = 1
"""Version of the file's form; a reader refuses those it does not know."""

_PLAIN = (str, int, float, bool, type(None))


def write_fitted(
    path: str | Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> Path:
    """Write a header and arrays; the file appears whole or not at all.

    Parameters
    ----------
    path
        Where to write; ``.npz`` is added where it is not the suffix.
    header
        What JSON can hold.
    arrays
        Arrays by name, none of them called ``header``.
    """
    path = npz_path(path)
    full = {"format": FORMAT, "version": deel_influence.__version__, **header}
    save_with_header(path, full, **arrays)
    return path


def read_fitted(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the header and the arrays of a file that `write_fitted` wrote.

    Raises
    ------
    SavedCurvatureError
        If the file is missing, corrupt, or of an unknown form.
    """
    path = npz_path(path)
    if not path.is_file():
        message = f"Argument `path` must be a saved strategy. Received: {str(path)!r}, no file."
        raise SavedCurvatureError(message)
    try:
        header, arrays = load_with_header(path)
    except UNREADABLE as error:
        message = (
            f"Argument `path` must be a file that `save` wrote. Received: {str(path)!r}, which "
            f"cannot be read ({type(error).__name__}: {error}). Fit and save again."
        )
        raise SavedCurvatureError(message) from error
    if header.get("format") != FORMAT:
        message = (
            f"The file's form must be {FORMAT}. Received: {str(path)!r} of form "
            f"{header.get('format')!r}, written by version {header.get('version')}. Fit and save "
            "again with this version."
        )
        raise SavedCurvatureError(message)
    return header, arrays


def model_fingerprint(model: BaseInfluenceModel) -> dict[str, Any]:
    """Return what a fit depends on, beside the data: weights, watched layers and loss, as JSON.

    The weights count whole, frozen layers and statistics included, because the gradients of the
    watched layers depend on them.
    """
    digest = hashlib.sha256()
    for variable in model.model.weights:
        value = tf.convert_to_tensor(variable.value).numpy()
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return {
        "weights": digest.hexdigest(),
        "watched": _watched(model),
        "layers": _layers_digest(model),
        "dtype": model.dtype.name,
        "loss": _loss_text(model),
    }


def check_unchanged_since(fingerprint: Any, model: BaseInfluenceModel, owner: str) -> None:
    """Refuse a model that is another than when a calculator was fitted on it.

    Parameters
    ----------
    fingerprint
        Its `model_fingerprint` at that time.
    model
        The model now.
    owner
        The name of the calculator.

    Raises
    ------
    SavedCurvatureError
        If weights, watched layers or loss are others.
    """
    if model_fingerprint(model) != fingerprint:
        message = (
            f"The model of a {owner} must not change. Received: other weights, or another loss, "
            "than when it was fitted. Make the calculator again."
        )
        raise SavedCurvatureError(message)


def data_fingerprint(dataset: tf.data.Dataset | None) -> dict[str, Any] | None:
    """Return the number of examples and a digest of the first batch, as JSON."""
    if dataset is None:
        return None
    first = next(batch for batch, _ in numbered_batches(dataset))
    digest = hashlib.sha256()
    for part in tf.nest.flatten(first):
        digest.update(repr(np.asarray(part)[:8].tolist()).encode())
    return {"examples": count_examples(dataset), "first": digest.hexdigest()}


def check_same_data(saved: Any, dataset: tf.data.Dataset | None, path: Any) -> None:
    """Refuse a file that was fitted on other data.

    Raises
    ------
    SavedCurvatureError
        Says so.
    """
    current = data_fingerprint(dataset)
    if saved == current:
        return
    message = (
        "Argument `train_dataset` must be the training set of the fit, in its order. Received: "
        f"{current and current['examples']} examples for {str(path)!r}, fitted on "
        f"{saved and saved['examples']}, or others first. Pass that one, or fit again."
    )
    raise SavedCurvatureError(message)


def check_same_model(saved: Mapping[str, Any], model: BaseInfluenceModel, path: Any) -> None:
    """Refuse a file that was fitted on another model.

    Raises
    ------
    SavedCurvatureError
        Names what differs.
    """
    current = model_fingerprint(model)
    different = [key for key in current if saved.get(key) != current[key]]
    if not different:
        return
    what = {
        "weights": "other weights",
        "watched": f"other watched layers ({saved.get('watched')})",
        "layers": "another architecture, activation or regulariser",
        "dtype": f"another dtype ({saved.get('dtype')})",
        "loss": f"another loss ({saved.get('loss')}; the model has {current['loss']})",
    }
    found = ", ".join(what[key] for key in different)
    message = (
        "A saved strategy must have been fitted on the same model. Received: "
        f"{str(path)!r}, fitted with {found}. Fit it again."
    )
    raise SavedCurvatureError(message)


def _watched(model: BaseInfluenceModel) -> list[str]:
    """Name the watched variables by their place in the model.

    Not by their paths alone, which change when a model is saved and loaded again.
    """
    places = {id(variable): place for place, variable in enumerate(model.model.weights)}
    return [
        f"{v.path.rpartition('/')[2]} {tuple(v.shape)} (variable {places[id(v)]})"
        for v in model.weights
    ]


def _loss_text(model: BaseInfluenceModel) -> str:
    """Describe the loss so that another loss gets another text."""
    loss = model.loss_function
    parts = [_describe(loss.loss), _describe(loss.loss_weights), loss.over_positions]
    return json.dumps(parts)


def _describe(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _describe(part) for key, part in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [_describe(part) for part in value]
    if isinstance(value, keras.losses.Loss):
        config = value.get_config()
        # Names and reductions change nothing: scores are taken from the losses of examples.
        kept = {k: _describe(v) for k, v in config.items() if k not in ("name", "reduction")}
        return {"class": _qualified(type(value)), **kept}
    if isinstance(value, functools.partial):
        return [_describe(value.func), _describe(value.args), _describe(value.keywords)]
    if callable(value):
        return _describe_function(value)
    return value if isinstance(value, _PLAIN) else type(value).__name__


def _describe_function(function: Any) -> list[Any]:
    """Describe a function by its name, its code, and the values that it brings along."""
    code = getattr(function, "__code__", None)
    if code is None:
        # What is not a plain value may lead back to the object itself: a loss may hold a model.
        plain = {k: v for k, v in vars(function).items() if isinstance(v, _PLAIN)}
        return [_qualified(type(function)), _describe(plain)]
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    brought = [*cells, *(getattr(function, "__defaults__", None) or ())]
    kept = [_qualified(part) if callable(part) else _describe(part) for part in brought]
    return [_qualified(function), _digest_of_code(code), kept]


def _digest_of_code(code: types.CodeType) -> str:
    digest = hashlib.sha256(code.co_code + repr(code.co_names).encode())
    for constant in code.co_consts:
        digest.update(_text_of_constant(constant).encode())
    return digest.hexdigest()


def _text_of_constant(constant: Any) -> str:
    """Return a text that is the same in every process."""
    if isinstance(constant, types.CodeType):
        return _digest_of_code(constant)  # its own text holds its address
    if isinstance(constant, frozenset):
        return repr(sorted(map(repr, constant)))  # strings are hashed by a seed of the process
    return repr(constant)


def _layers_digest(model: BaseInfluenceModel) -> str:
    """Return a digest of the layers' classes and settings, their names apart."""
    digest = hashlib.sha256()
    for layer in all_layers(model.model):
        digest.update(_qualified(type(layer)).encode())
        if isinstance(layer, keras.Model):
            continue
        try:
            config = layer.get_config()
        except (NotImplementedError, TypeError):
            continue  # a custom layer that says nothing of itself but its class
        config.pop("name", None)
        digest.update(json.dumps(config, sort_keys=True, default=_class_name).encode())
    return digest.hexdigest()


def _class_name(value: Any) -> str:
    return type(value).__name__


def _qualified(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', repr(value))}"
