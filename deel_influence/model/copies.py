"""Copies of a wrapped model, into which other weights may be loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from ..errors import UnsupportedModelError
from ..types import Batch
from .cloning import form_of, model_of
from .influence_model import BaseInfluenceModel
from .selection import watched_places

BuildFunction: TypeAlias = Callable[[], keras.Model]
"""Makes a new model with the layers of a given one, and any weights."""

NUM_COMPARED = 8
"""How many examples a copy is compared on."""

RTOL = 1e-3
"""Largest difference of outputs, in their largest entry: far above rounding."""

REMEDY = (
    "Pass `build=`, a function without arguments that returns a new model with the same layers, "
    "or pass live models."
)


def copied(model: BaseInfluenceModel, build: BuildFunction | None = None) -> BaseInfluenceModel:
    """Return a copy of a wrapped model that shares no variable with it.

    Parameters
    ----------
    model
        The wrapped model, which is left as it is.
    build
        Makes the Keras model of the copy; None clones that of ``model``.

    Raises
    ------
    UnsupportedModelError
        If it cannot be cloned, or ``build`` gives a model of another form.
    """
    original = model.model
    copy = _cloned(original) if build is None else build()
    _check_form(original, copy, build is not None)
    if getattr(copy, "optimizer", None) is not None:
        copy.optimizer = None  # no weight file need fit it
    assign_weights(copy, original)
    places = watched_places(original, model.weights)
    return model.rewrapped(copy, [copy.weights[place] for place in places])


def assign_weights(target: keras.Model, source: keras.Model) -> None:
    """Give a model the weights of another of the same form, batch statistics included."""
    for mine, theirs in zip(target.weights, source.weights, strict=True):
        mine.assign(theirs)


def check_same_outputs(model: BaseInfluenceModel, copy: BaseInfluenceModel, batch: Batch) -> None:
    """Compare two models with the same weights on the first examples of a batch.

    Raises
    ------
    UnsupportedModelError
        If their outputs differ.
    """
    inputs = tf.nest.map_structure(
        lambda part: part[:NUM_COMPARED], model.process_batch_for_loss_fn(batch)[0]
    )
    expected, outputs = tf.nest.flatten(model(inputs)), tf.nest.flatten(copy(inputs))
    for one, other in zip(expected, outputs, strict=True):
        scale = float(tf.reduce_max(tf.abs(one)))
        difference = float(tf.reduce_max(tf.abs(one - other)))
        if not difference <= RTOL * scale:
            message = (
                "The copy of the model must give the model's outputs once it has its weights. "
                f"Received: outputs that differ by {difference:.2e}, where the largest is "
                f"{scale:.2e}: what the model computes is not all in its layers' "
                f"configurations. {REMEDY}"
            )
            raise UnsupportedModelError(message)


def _cloned(model: keras.Model) -> keras.Model:
    try:
        return model_of(form_of(model))
    except Exception as error:  # whatever the model's own code raises
        message = (
            f"The model must be one that Keras can copy. Received: a {type(model).__name__}, "
            f"which it cannot ({first_line(error)}). {REMEDY}"
        )
        raise UnsupportedModelError(message) from error


def _check_form(original: keras.Model, copy: Any, was_given: bool) -> None:
    """Refuse a copy with other weights, or none."""
    subject = "Argument `build` must return" if was_given else "The model must be one that Keras"
    rule = "a built model with the same layers" if was_given else "copies with all its weights"
    if not isinstance(copy, keras.Model):
        received = type(copy).__name__
    elif not copy.built:
        received = f"an unbuilt {type(copy).__name__}"
    elif copy is original or any(v is w for v, w in zip(copy.weights, original.weights)):  # noqa: B905 - lengths may differ
        received = "the model itself"
    elif [_form(v) for v in copy.weights] != [_form(v) for v in original.weights]:
        received = f"other weights ({_difference(original, copy)})"
    else:
        return
    message = f"{subject} {rule}. Received: {received}. {REMEDY}"
    raise UnsupportedModelError(message)


def _form(variable: keras.Variable) -> tuple[Any, ...]:
    return tuple(variable.shape), str(variable.dtype), bool(variable.trainable)


def _difference(original: keras.Model, copy: keras.Model) -> str:
    """Name the first weight that differs."""
    if len(original.weights) != len(copy.weights):
        return f"{len(copy.weights)} where the model has {len(original.weights)}"
    pairs = zip(original.weights, copy.weights, strict=True)
    one, other = next((v, w) for v, w in pairs if _form(v) != _form(w))
    return f"{other.path!r} {_form(other)} where the model has {one.path!r} {_form(one)}"


def first_line(error: Exception) -> str:
    """Return how an error's message begins, or what kind it is."""
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__
