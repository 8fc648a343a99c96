"""Fitted strategies on disk: arrays and a JSON header in one ``.npz`` file, without pickles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import deel_influence

from ..errors import SavedCurvatureError
from ..model.computations import describe, describe_layers
from ..model.influence_model import BaseInfluenceModel
from ..model.keras_internals import all_layers
from ..model.selection import check_watched
from ..utils.datasets import count_examples, numbered_batches
from ..utils.files import UNREADABLE, load_with_header, npz_path, save_with_header

FORMAT = 2
"""Version of the file's form; a reader refuses those it does not know."""


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
    check_watched(model.model, model.weights)
    places = {id(variable): place for place, variable in enumerate(model.model.weights)}
    return [
        f"{v.path.rpartition('/')[2]} {tuple(v.shape)} (variable {places[id(v)]})"
        for v in model.weights
    ]


def _loss_text(model: BaseInfluenceModel) -> str:
    """Describe the loss, and what else is minimised, so that another one gets another text."""
    loss, layers = model.loss_function, all_layers(model.model)
    parts = [describe(part, layers) for part in (loss.loss, loss.loss_weights)]
    by_class = [(int(c), float(w)) for c, w in sorted((model.class_weight or {}).items())]
    terms = [model.terms.decays, model.terms.weight]
    return json.dumps([*parts, loss.over_positions, by_class, *terms])


def _layers_digest(model: BaseInfluenceModel) -> str:
    """Return a digest of what the layers compute, and of the regularisers; their names apart."""
    layers = all_layers(model.model)
    regularizers = [describe(v.regularizer, layers) for v in model.weights]
    content = json.dumps([describe_layers(model.model), regularizers])
    return hashlib.sha256(content.encode()).hexdigest()
