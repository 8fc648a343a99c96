"""A Keras model as what can be pickled: its configuration and its weights.

Not by Keras's own pickles, which take the optimizer along and fail where it was never used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import UnsupportedModelError
from .keras_internals import all_layers

Form = tuple[type[keras.Model], dict[str, Any], dict[str, Any] | None, dict[str, type]]
"""Class, configuration, shapes and the classes of the layers of a model."""


def form_of(model: keras.Model) -> Form:
    """Return what makes a model with the same layers again."""
    own = {type(layer).__name__: type(layer) for layer in all_layers(model)}
    return type(model), model.get_config(), model.get_build_config(), own


def model_of(form: Form) -> keras.Model:
    """Return a new model, uncompiled or with an optimizer that has no state."""
    kind, config, shapes, own = form
    # Not keras.models.clone_model, which has to copy the optimizer too.
    with keras.saving.custom_object_scope(own):
        model = kind.from_config(config)
        if not model.built and shapes:
            model.build_from_config(shapes)
    return model


def to_pickle(model: keras.Model) -> tuple[Form, list[np.ndarray]]:
    """Return the form of a model and its weights.

    Raises
    ------
    UnsupportedModelError
        If Keras has no configuration of the model.
    """
    try:
        form = form_of(model)
        model_of(form)
    except Exception as error:  # whatever the model's own code raises
        message = (
            "A wrapped model is copied or pickled by the configuration of its layers. Received: a "
            f"{type(model).__name__} that Keras cannot make again ({type(error).__name__}). Give "
            "its layers `get_config`; or `save` the strategy, and wrap the model and `load` there."
        )
        raise UnsupportedModelError(message) from error
    return form, [tf.convert_to_tensor(variable.value).numpy() for variable in model.weights]


def from_pickle(form: Form, weights: Sequence[np.ndarray]) -> keras.Model:
    """Return the model that `to_pickle` described."""
    model = model_of(form)
    for variable, value in zip(model.weights, weights, strict=True):
        variable.assign(value)
    return model
