"""Finding layers and choosing which weights to watch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from ..errors import UnknownLayerError, UnsupportedModelError
from .default_layer import default_layer
from .keras_internals import all_layers

LayerKey = str | int | None


def select_weights(
    model: keras.Model, start_layer: LayerKey, last_layer: LayerKey, loss: Any = None
) -> list[keras.Variable]:
    """Return the trainable variables from ``start_layer`` to ``last_layer``.

    Parameters
    ----------
    model
        The model; layers of nested models are found by name.
    start_layer
        Name or index; None means the last layer with trainable weights to run.
    last_layer
        Name or index in the same (nested) model; None means ``start_layer`` alone.
    loss
        The loss, or losses by output: for None, only layers count that an output with a loss
        depends on.

    Raises
    ------
    UnknownLayerError
        If a layer is not there, the two are in different models, or come in the wrong order.
    UnsupportedModelError
        If what was selected has no trainable weights.
    """
    if start_layer is None:
        siblings, start = default_layer(model, loss)
    else:
        siblings, start = _locate(model, start_layer, "start_layer")
    stop = start
    if last_layer is not None:
        others, stop = _locate(model, last_layer, "last_layer")
        if others is not siblings and [id(x) for x in others] != [id(x) for x in siblings]:
            message = (
                "Arguments `start_layer` and `last_layer` must name layers of the same model. "
                f"Received: {start_layer!r} and {last_layer!r}, which are in different ones."
            )
            raise UnknownLayerError(message)
        if stop < start:
            message = (
                "Argument `last_layer` must not come before `start_layer`. Received: "
                f"start_layer={start_layer!r} (index {start}), last_layer={last_layer!r} "
                f"(index {stop}). Swap them."
            )
            raise UnknownLayerError(message)
    chosen = siblings[start : stop + 1]
    weights = unique(v for layer in chosen for v in layer.trainable_variables)
    if not weights:
        names = [layer.name for layer in chosen]
        message = (
            "The selected layers must have trainable weights. Received: "
            f"{names}, which have none. Layers that do: {_names_with_weights(model)}."
        )
        raise UnsupportedModelError(message)
    return weights


def find_layer(model: keras.Model, key: LayerKey, argument: str = "layer") -> keras.layers.Layer:
    """Return the layer with that name or index; None means the last with weights to run.

    Raises
    ------
    UnknownLayerError
        If it is not there.
    """
    if key is None:
        layers, index = default_layer(model)
        return layers[index]
    layers, index = _locate(model, key, argument)
    return layers[index]


def resolve_variables(model: keras.Model, weights: Any) -> list[keras.Variable]:
    """Return the trainable Keras variables meant by a nest of Keras or TensorFlow variables.

    Raises
    ------
    UnsupportedModelError
        If a variable is not a trainable one of the model.
    """
    chosen = []
    for weight in tf.nest.flatten(weights):
        match = [v for v in model.trainable_variables if v is weight or v.value is weight]
        if not match:
            name = getattr(weight, "path", getattr(weight, "name", weight))
            message = (
                "Argument `weights_to_watch` must hold trainable variables of the model (batch "
                f"statistics and frozen layers are not). Received: {name!r}."
            )
            raise UnsupportedModelError(message)
        chosen.extend(match)
    if not chosen:
        message = (
            "Argument `weights_to_watch` must hold at least one variable. Received: none. Pass "
            "None to watch every trainable variable of the model."
        )
        raise UnsupportedModelError(message)
    return unique(chosen)


def check_watched(model: keras.Model, weights: Iterable[keras.Variable]) -> None:
    """Refuse watched weights that the model has lost.

    Raises
    ------
    UnsupportedModelError
        Names the first.
    """
    present = {id(v) for v in model.weights}
    lost = next((v for v in weights if id(v) not in present), None)
    if lost is not None:
        message = (
            "The watched weights must be weights of the model. Received: "
            f"{lost.path!r}, which was one when the model was wrapped, before `quantize()` or "
            "another change of its layers. Wrap the model again: InfluenceModel(model)."
        )
        raise UnsupportedModelError(message)


def watched_places(model: keras.Model, weights: Iterable[keras.Variable]) -> list[int]:
    """Return where watched weights stand among all weights of the model.

    Unlike their paths, that does not change when a model is copied, or saved and loaded again.

    Raises
    ------
    UnsupportedModelError
        If one is no weight of the model any more.
    """
    watched = list(weights)
    check_watched(model, watched)
    places = {id(variable): place for place, variable in enumerate(model.weights)}
    return [places[id(variable)] for variable in watched]


def unique(variables: Iterable[keras.Variable]) -> list[keras.Variable]:
    """Drop repeated variables (shared layers), keeping the order."""
    return list({id(v): v for v in variables}.values())


def _locate(
    model: keras.Model, key: Any, argument: str
) -> tuple[Sequence[keras.layers.Layer], int]:
    """Find a layer; return the list of layers that it stands in, and its place there."""
    layers = model.layers
    if isinstance(key, int) and not isinstance(key, bool):
        if not -len(layers) <= key < len(layers):
            message = (
                f"Argument `{argument}` must be an index from {-len(layers)} to "
                f"{len(layers) - 1}, or a name. Received: {key}."
            )
            raise UnknownLayerError(message)
        return layers, key % len(layers)
    if not isinstance(key, str):
        message = (
            f"Argument `{argument}` must be a layer's name or index, or None. "
            f"Received: {key!r} (of type {type(key).__name__})."
        )
        raise UnknownLayerError(message)
    parents = [x for x in all_layers(model) if isinstance(x, keras.Model)]
    found = {
        id(layer): (parent.layers, index)
        for parent in parents
        for index, layer in enumerate(parent.layers)
        if layer.name == key
    }
    if len(found) > 1:
        message = (
            f"Argument `{argument}` must name one layer. Received: {key!r}, the name of "
            f"{len(found)} layers in nested models. Pass their variables to BaseInfluenceModel."
        )
        raise UnknownLayerError(message)
    if found:
        return next(iter(found.values()))
    message = (
        f"Argument `{argument}` must name a layer of the model. Received: {key!r}. "
        f"Layers with weights: {_names_with_weights(model)}."
    )
    raise UnknownLayerError(message)


def _names_with_weights(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if layer.trainable_variables]
