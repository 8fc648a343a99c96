"""One forward and one backward pass that show each layer's inputs and output gradients.

While the passes are traced, the `call` of the layers of interest is overlaid on the instance, and
so is its activation, so that the tensor before it can be seen. Both are put back before the
function returns, whatever happens; nothing of the model is changed in between.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from ..errors import UnsupportedModelError
from ..model.influence_model import BaseInfluenceModel
from ..model.keras_internals import all_layers, copy_keras_mask, keras_mask
from ..model.overlay import TRACING, overlaid
from ..types import Batch
from ..utils.tensors import dense
from .rules.registry import find_rule


@dataclass
class Tap:
    """One call of a layer.

    Attributes
    ----------
    inputs
        Its first argument, shape ``(b, ...)``, made dense where it was sparse.
    output
        Its pre-activation output, shape ``(b, ...)``.
    mask
        Keras's mask of the inputs, bool, false at padding, shape ``(b, ...)``; None without one.
    in_training
        Whether the layer was called with ``training=True``.
    gradient
        In the output, where `listening` noted a backward pass; else None.
    """

    inputs: tf.Tensor
    output: tf.Tensor
    mask: tf.Tensor | None = None
    in_training: bool = False
    gradient: tf.Tensor | None = None


@dataclass
class Forward:
    """A forward pass with taps.

    Attributes
    ----------
    losses
        Per-example losses, shape ``(b,)``.
    outputs
        What the model returned.
    taps
        For each layer of interest, in the order given, its calls in order.
    masks
        Every mask of positions that came to a layer of the model, bool, shapes ``(b, ...)``.
    """

    losses: tf.Tensor
    outputs: Any
    taps: list[list[Tap]] = field(default_factory=list)
    masks: list[tf.Tensor] = field(default_factory=list)


def forward_with_taps(
    model: BaseInfluenceModel,
    layers: Sequence[keras.layers.Layer],
    batch: Batch,
    tapes: Sequence[tf.GradientTape],
) -> Forward:
    """Run the model on a batch; the tapes watch the pre-activation outputs of ``layers``.

    Parameters
    ----------
    model
        The wrapped model.
    layers
        The layers to look at.
    batch
        A batch of the dataset.
    tapes
        Gradient tapes, already recording.
    """
    inputs, targets, sample_weight = model.process_batch_for_loss_fn(batch)
    outputs, taps, masks = _tapped_call(model, layers, inputs, tapes)
    losses = model.loss_function(targets, outputs, sample_weight)
    return Forward(tf.cast(losses, model.dtype), outputs, taps, masks)


def forward_to_logits(
    model: BaseInfluenceModel,
    layers: Sequence[keras.layers.Layer],
    batch: Batch,
    tapes: Sequence[tf.GradientTape],
    logits_tapes: Sequence[tf.GradientTape],
) -> tuple[Forward, tf.Tensor]:
    """Do what `forward_with_taps` does, and return the logits, which ``logits_tapes`` watch.

    The logits are the model's output or, where the last layer to run applied an activation to
    give it, the tensor before that activation.
    """
    inputs, targets, sample_weight = model.process_batch_for_loss_fn(batch)
    marks: list[_Activated] = []
    with TRACING, ExitStack() as stack:
        for layer in all_layers(model.model):
            name = _name_of_activation(layer)
            if name is not None:
                stack.enter_context(_marked(layer, name, marks, logits_tapes))
        outputs, taps, masks = _tapped_call(model, layers, inputs, tapes)
        if not isinstance(outputs, tf.Tensor):
            message = (
                "Gauss-Newton and Fisher matrices need a model with one output tensor. Received: "
                f"{type(outputs).__name__}. Use curvature='hessian', or fisher='empirical'."
            )
            raise UnsupportedModelError(message)
    logits = next((mark.logits for mark in marks if mark.result is outputs), None)
    if logits is None:
        logits = tf.identity(outputs)
        copy_keras_mask(outputs, logits)
        outputs = logits
        for tape in logits_tapes:
            tape.watch(logits)
    losses = model.loss_function(targets, outputs, sample_weight)
    return Forward(tf.cast(losses, model.dtype), outputs, taps, masks), logits


@dataclass
class _Activated:
    """An activation's argument and result."""

    logits: tf.Tensor
    result: tf.Tensor


def _name_of_activation(layer: keras.layers.Layer) -> str | None:
    """Return the attribute of a layer that applies an activation, or None."""
    if type(layer) is keras.layers.Softmax:
        return "call"
    plain = find_rule(layer) is not None or type(layer) is keras.layers.Activation
    return "activation" if plain and getattr(layer, "activation", None) is not None else None


def _marked(
    layer: keras.layers.Layer,
    name: str,
    marks: list[_Activated],
    tapes: Sequence[tf.GradientTape],
) -> AbstractContextManager[None]:
    """Note what an activation is applied to, and let the tapes watch it."""
    activation = getattr(layer, name)

    def marked(pre_activation: tf.Tensor, *args: Any, **kwargs: Any) -> tf.Tensor:
        logits = tf.identity(pre_activation)
        for tape in tapes:
            tape.watch(logits)
        result = activation(logits, *args, **kwargs)
        if result is logits:
            result = tf.identity(result)
        marks.append(_Activated(logits, result))
        return result

    return overlaid(layer, name, marked)


def _tapped_call(
    model: BaseInfluenceModel,
    layers: Sequence[keras.layers.Layer],
    inputs: Any,
    tapes: Sequence[tf.GradientTape],
) -> tuple[Any, list[list[Tap]], list[tf.Tensor]]:
    """Call the model with taps on ``layers``; return its outputs, the taps and the masks."""
    taps: list[list[Tap]] = [[] for _ in layers]
    masks: list[Any] = []

    def watched(tap: Tap) -> tf.Tensor:
        # A tensor of its own: watching the layer's input where the layer returns it unchanged
        # would add up the gradients of both.
        output = tf.identity(tap.output)
        for tape in tapes:
            tape.watch(output)
        return output

    with TRACING, ExitStack() as stack:
        for layer in all_layers(model.model) if layers else []:
            stack.enter_context(_masks_noted(layer, masks))
        for layer, seen in zip(layers, taps, strict=True):
            stack.enter_context(_tapped(layer, seen, watched))
        outputs = model(inputs)
    _check_graph(layers, taps, outputs)
    masks.extend(keras_mask(part) for part in tf.nest.flatten(outputs))
    return outputs, taps, _masks_of_positions(masks, tf.nest.flatten(outputs)[0])


@contextmanager
def listening(layers: Sequence[keras.layers.Layer]) -> Iterator[list[list[Tap]]]:
    """Note calls of layers in the body, and the gradients that its own backward pass has in them.

    The body computes what it would have computed, once: a training step of Keras, for instance.

    Parameters
    ----------
    layers
        The layers.

    Yields
    ------
    For each layer its calls, which fill up while the body runs.
    """
    taps: list[list[Tap]] = [[] for _ in layers]
    with TRACING, ExitStack() as stack:
        for layer, seen in zip(layers, taps, strict=True):
            stack.enter_context(_tapped(layer, seen, _listened))
        yield taps


def _listened(tap: Tap) -> tf.Tensor:
    @tf.custom_gradient
    def same(output: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        def pulled(upstream: tf.Tensor) -> tf.Tensor:
            tap.gradient = upstream
            return upstream

        return tf.identity(output), pulled

    return same(tap.output)


def _check_graph(
    layers: Sequence[keras.layers.Layer], taps: Sequence[Sequence[Tap]], outputs: Any
) -> None:
    """Refuse taps that were set inside a loop of the model, whose tensors are out of reach."""
    first = tf.nest.flatten(outputs)[0]
    if not tf.is_symbolic_tensor(first):
        return
    for layer, seen in zip(layers, taps, strict=True):
        if any(tap.output.graph is not first.graph for tap in seen):
            message = (
                f"Layer {layer.name!r} is called inside a loop once the model is compiled, though "
                "not when it runs eagerly, so its gradients cannot be read. Watch other layers."
            )
            raise UnsupportedModelError(message)


def _masks_noted(layer: keras.layers.Layer, noted: list[Any]) -> AbstractContextManager[None]:
    """Overlay the call of a layer so that the masks that come to it are noted."""
    original = layer.call
    names = list(inspect.signature(original).parameters)

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        # Layers may take the masks off their arguments, as attention does.
        noted.extend(keras_mask(part) for part in tf.nest.flatten((args, kwargs)))
        given = dict(zip(names, args, strict=False)) | kwargs
        told = (value for name, value in given.items() if _names_mask(name))
        noted.extend(tf.nest.flatten(list(told)))
        return original(*args, **kwargs)

    return overlaid(layer, "call", call)


def _names_mask(name: str) -> bool:
    """Tell whether an argument says which positions are there, not which pairs attend."""
    return name == "mask" or (name.endswith("_mask") and name != "attention_mask")


def _masks_of_positions(noted: Sequence[Any], output: tf.Tensor) -> list[tf.Tensor]:
    """Return each mask with axes beyond the batch once, as bool; those of inner graphs are lost."""
    graph = output.graph if tf.is_symbolic_tensor(output) else None
    masks: dict[int, tf.Tensor] = {}
    for mask in noted:
        if not isinstance(mask, tf.Tensor) or not mask.shape.rank or mask.shape.rank < 2:
            continue
        if graph is (mask.graph if tf.is_symbolic_tensor(mask) else None):
            masks[id(mask)] = tf.cast(mask, tf.bool)
    return list(masks.values())


@contextmanager
def _tapped(
    layer: keras.layers.Layer, seen: list[Tap], watch: Callable[[Tap], tf.Tensor]
) -> Iterator[None]:
    """Overlay the call of one layer so that its inputs and outputs are noted.

    ``watch(tap)`` returns what takes the place of the output.
    """
    original = layer.call
    activation = getattr(layer, "activation", None)

    def call(inputs: tf.Tensor, *args: Any, **kwargs: Any) -> tf.Tensor:
        given = keras_mask(inputs)
        mask = None if given is None else tf.cast(given, tf.bool)
        in_training = kwargs.get("training") is True

        def noted(output: tf.Tensor) -> tf.Tensor:
            tap = Tap(dense(inputs), output, mask, in_training)
            seen.append(tap)
            tap.output = watch(tap)
            return tap.output

        if activation is None:
            return noted(original(inputs, *args, **kwargs))
        with overlaid(layer, "activation", lambda values: activation(noted(values))):
            return original(inputs, *args, **kwargs)

    with overlaid(layer, "call", call):
        yield
