"""The layer that is watched where none is named: the last one to run that the loss depends on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import keras
import tensorflow as tf

from ..errors import DefaultLayerWarning, UnsupportedModelError
from .overlay import TRACING, overlaid

Siblings = Sequence[keras.layers.Layer]


def default_layer(model: keras.Model, loss: Any = None) -> tuple[Siblings, int]:
    """Return the last layer with trainable weights to run, and so of a nested model its last one.

    Parameters
    ----------
    model
        The model.
    loss
        The loss, or a list or dict of them by output: layers that no output with a loss depends on
        do not count. None takes all outputs.

    Returns
    -------
    The layers of the model that it belongs to, and its place among them.

    Raises
    ------
    UnsupportedModelError
        If no layer has trainable weights.

    Warns
    -----
    DefaultLayerWarning
        If the order in which a subclassed model runs its layers cannot be found out.
    """
    order = _in_order(model, loss)
    for layer in reversed(order):
        if not layer.trainable_variables:
            continue
        if isinstance(layer, keras.Model):
            return default_layer(layer)
        return model.layers, [id(x) for x in model.layers].index(id(layer))
    message = (
        "The model must have a layer with trainable weights that its loss depends on. Received: a "
        "model without; are its layers frozen (layer.trainable = False)?"
    )
    raise UnsupportedModelError(message)


def _in_order(model: keras.Model, loss: Any) -> list[keras.layers.Layer]:
    """Return the layers of a model in the order in which they run."""
    if isinstance(model, keras.Sequential) or getattr(model, "inputs", None):
        chosen = _with_loss(model, model.outputs, loss)
        if len(chosen) in (0, len(model.outputs)):
            return model.layers
        within = {id(layer) for layer in keras.Model(model.inputs, chosen).layers}
        return [layer for layer in model.layers if id(layer) in within]
    if len([layer for layer in model.layers if layer.trainable_variables]) < 2:
        return model.layers
    for dtype in (model.compute_dtype, "int32", "string"):
        try:
            return _as_called(model, loss, dtype)
        # A model's own code may raise anything on inputs of another type than it is made for.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:200]
    last = next((x for x in reversed(model.layers) if x.trainable_variables), None)
    message = (
        f"The order in which {type(model).__name__} runs its layers could not be found out "
        f"({reason}). The layer that it was given last, {getattr(last, 'name', None)!r}, is taken "
        "for the last to run. Name the layer to watch: InfluenceModel(model, start_layer=...)."
    )
    warnings.warn(message, DefaultLayerWarning, stacklevel=4)
    return model.layers


def _as_called(model: keras.Model, loss: Any, dtype: str) -> list[keras.layers.Layer]:
    """Trace a call of a model; return the layers that outputs with a loss depend on, in order."""
    shapes = model.get_build_config()["input_shape"]
    specs = _specs(shapes, dtype)
    order: list[keras.layers.Layer] = []
    reached: list[bool] = []

    def call(inputs: Any) -> Any:
        with TRACING, ExitStack() as stack, tf.GradientTape(persistent=True) as tape:
            for layer in model.layers:
                stack.enter_context(overlaid(layer, "call", _noting(layer, order)))
            outputs = model(inputs, training=False)
            chosen = _with_loss(model, outputs, loss) or tf.nest.flatten(outputs)
            total = tf.add_n([tf.reduce_sum(tf.cast(part, tf.float32)) for part in chosen])
        for layer in order:
            values = [v.value for v in layer.trainable_variables]
            reached.append(any(g is not None for g in tape.gradient(total, values)))
        return outputs

    tf.function(call, autograph=False).get_concrete_function(specs)
    return [layer for layer, is_reached in zip(order, reached, strict=True) if is_reached]


def _noting(layer: keras.layers.Layer, order: list[keras.layers.Layer]) -> Any:
    original = layer.call

    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        order.append(layer)
        return result

    return call


def _specs(shapes: Any, dtype: str) -> Any:
    """Return the types of inputs with these shapes, in the nest of a build configuration."""
    if isinstance(shapes, dict):
        return {name: _specs(part, dtype) for name, part in shapes.items()}
    if isinstance(shapes, (list, tuple)) and any(isinstance(p, (list, tuple)) for p in shapes):
        return [_specs(part, dtype) for part in shapes]
    return tf.TensorSpec([None, *shapes[1:]], dtype)


def _with_loss(model: keras.Model, outputs: Any, loss: Any) -> list[Any]:
    """Return the outputs that have a loss, of which no one may be told."""
    flat = tf.nest.flatten(outputs)
    if isinstance(loss, dict):
        # A Sequential model has one output, whatever its loss is called by.
        names = list(outputs) if isinstance(outputs, dict) else getattr(model, "output_names", [])
        if len(names) != len(flat):
            return flat
        ordered = [outputs[n] for n in names] if isinstance(outputs, dict) else flat
        pairs = zip(names, ordered, strict=True)
        return [part for name, part in pairs if loss.get(name) is not None]
    if isinstance(loss, (list, tuple)) and len(loss) == len(flat):
        return [part for part, one in zip(flat, loss, strict=True) if one is not None]
    return flat
