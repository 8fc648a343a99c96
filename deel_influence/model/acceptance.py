"""Whether a Keras model can be wrapped, and what to do about one that cannot."""

from __future__ import annotations

import os
from typing import Any

import keras

from ..errors import UnsupportedModelError
from .keras_internals import all_layers


def check_model(model: Any) -> None:
    """Refuse what is no built Keras model, or one whose examples depend on each other.

    Raises
    ------
    TypeError
        If it is no Keras model.
    UnsupportedModelError
        If it is not built, or a layer keeps a state from batch to batch.
    """
    if not isinstance(model, keras.Model):
        message = (
            f"Argument `model` must be a keras.Model. Received: {type(model).__name__}. "
            f"{_remedy_for(model)}"
        )
        raise TypeError(message.strip())
    if not model.built:
        message = (
            "The model must be built, so that its weights exist. Received: an unbuilt "
            f"{type(model).__name__}. Call it once on a batch, or give it an Input."
        )
        raise UnsupportedModelError(message)
    stateful = [layer.name for layer in all_layers(model) if getattr(layer, "stateful", False)]
    if stateful:
        message = (
            "The layers of the model must not carry a state from batch to batch. Received: the "
            f"stateful layers {stateful}, with which an example depends on those before it. Build "
            "the model with stateful=False and give it these weights: "
            "other.set_weights(model.get_weights())."
        )
        raise UnsupportedModelError(message)


def check_compiled(model: Any, name: str, verb: str = "return") -> keras.Model:
    """Return a built and compiled Keras model: what the function ``name`` made, or is itself.

    Raises
    ------
    UnsupportedModelError
        If it is not.
    """
    if not isinstance(model, keras.Model) or not model.built or not model.compiled:
        message = (
            f"Argument `{name}` must {verb} a built and compiled keras.Model. Received: "
            f"{model!r}. Give it an Input, and call model.compile(optimizer, loss)."
        )
        raise UnsupportedModelError(message)
    return model


def _remedy_for(model: Any) -> str:
    """Say how what is no Keras model may become one."""
    if isinstance(model, (str, os.PathLike)):
        return "Load it first: keras.models.load_model(path)."
    if hasattr(model, "per_example_losses"):
        return "It is wrapped already: pass `model.model`."
    if isinstance(model, type) and issubclass(model, keras.Model):
        return "That is the class itself: pass a model made of it."
    if any(kind.__module__.startswith("tf_keras") for kind in type(model).__mro__):
        return (
            "It is one of tf_keras, the legacy Keras 2. Unset TF_USE_LEGACY_KERAS and build it "
            "with Keras 3, or save it with model.save('model.keras') and load that with Keras 3."
        )
    return "Models of other libraries have to be rebuilt in Keras 3."
