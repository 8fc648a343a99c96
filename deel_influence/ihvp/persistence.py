"""Fitted strategies on disk: arrays and a JSON header in one ``.npz`` file, without pickles."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

import deel_influence

from ..errors import SavedCurvatureError
from ..model.influence_model import BaseInfluenceModel
from ..utils.files import save_arrays

FORMAT = 1
"""Version of the file's form; a reader refuses those it does not know."""

HEADER = "header"

# What NumPy and its archive raise on files that are damaged, or none of theirs.
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    NotImplementedError,
    zipfile.BadZipFile,
)


def write_fitted(
    path: str | Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> Path:
    """Write a header and arrays; the file appears whole or not at all.

    Parameters
    ----------
    path
        Where to write; the suffix becomes ``.npz``.
    header
        What JSON can hold.
    arrays
        Arrays by name, none of them called ``header``.
    """
    path = Path(path).with_suffix(".npz")
    full = {"format": FORMAT, "version": deel_influence.__version__, **header}
    text = np.frombuffer(json.dumps(full).encode(), np.uint8)
    save_arrays(path, **{HEADER: text}, **arrays)
    return path


def read_fitted(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the header and the arrays of a file that `write_fitted` wrote.

    Raises
    ------
    SavedCurvatureError
        If the file is missing, corrupt, or of an unknown form.
    """
    path = Path(path).with_suffix(".npz")
    if not path.is_file():
        message = f"Argument `path` must be a saved strategy. Received: {str(path)!r}, no file."
        raise SavedCurvatureError(message)
    try:
        # Opened here, because NumPy leaves a file open that it cannot read.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop(HEADER).tobytes())
    except _UNREADABLE as error:
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
        value = np.asarray(keras.ops.convert_to_numpy(variable.value))
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return {
        "weights": digest.hexdigest(),
        "watched": _watched(model),
        "dtype": model.dtype.name,
        "loss": _loss_text(model),
    }


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
    if callable(value):
        code = getattr(value, "__code__", None)
        body = hashlib.sha256(code.co_code + repr(code.co_consts).encode()) if code else None
        return [_qualified(value), body.hexdigest() if body else None]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def _qualified(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', repr(value))}"
