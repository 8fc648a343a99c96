"""What results depend on of a model: weights, watched layers, loss; and whether it is the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from ..errors import SavedCurvatureError
from ..utils.digests import array_digest, settings_digest
from .computations import describe, describe_layers
from .influence_model import BaseInfluenceModel
from .keras_internals import all_layers
from .overlay import TRACING
from .selection import watched_places


def weights_digest(model: keras.Model) -> str:
    """Return a digest of all weights of a model, batch statistics included."""
    return array_digest(*(tf.convert_to_tensor(variable).numpy() for variable in model.weights))


def model_fingerprint(model: BaseInfluenceModel) -> dict[str, Any]:
    """Return what a fit depends on, beside the data: weights, watched layers and loss, as JSON.

    The weights count whole, frozen layers and statistics included, because the gradients of the
    watched layers depend on them.
    """
    with TRACING:  # so that no layer is overlaid by another thread
        return {
            "weights": weights_digest(model.model),
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
    """Name the watched variables by their place in the model."""
    places = watched_places(model.model, model.weights)
    return [
        f"{v.path.rpartition('/')[2]} {tuple(v.shape)} (variable {place})"
        for v, place in zip(model.weights, places, strict=True)
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
    return settings_digest([describe_layers(model.model), regularizers])
