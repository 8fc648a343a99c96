"""The Dense layer that gives a model's logits: its inputs, and what comes after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from ..errors import UnsupportedModelError
from ..gradients.capture import Forward, Tap, forward_to_logits
from ..gradients.engine import GradientEngine
from ..model.influence_model import BaseInfluenceModel
from ..model.keras_internals import all_layers
from ..model.selection import LayerKey, select_weights
from ..types import Batch

NUM_EXAMPLES = 64
ACTIVATION_TOLERANCE = 1e-3
"""Relative: half precision has three digits, and another activation differs in the first."""

Activation = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Head:
    """The last Dense layer, ``logits = W f``, with its bias as the weight of a feature of one.

    Attributes
    ----------
    model
        The wrapped model, which watches the kernel and the bias of this layer and nothing else.
    layer
        The layer.
    activation
        Turns the logits ``(b, c)`` into the model's outputs.
    """

    model: BaseInfluenceModel
    layer: keras.layers.Dense
    activation: Activation

    @property
    def num_outputs(self) -> int:
        """The number c of logits."""
        return int(self.layer.kernel.shape[1])

    @property
    def num_features(self) -> int:
        """The number r of features, the one for the bias included."""
        return int(self.layer.kernel.shape[0]) + (self.layer.bias is not None)

    def weights(self) -> tf.Tensor:
        """Return W, the bias in its last row, float64, shape ``(r, c)``."""
        parts = [tf.cast(self.layer.kernel.value, tf.float64)]
        if self.layer.bias is not None:
            parts.append(tf.cast(self.layer.bias.value, tf.float64)[None])
        return tf.concat(parts, axis=0)

    def forward(self, batch: Batch) -> Forward:
        """Run the model with a tap on the layer; traceable.

        Raises
        ------
        UnsupportedModelError
            If the engine cannot read the calls of the layer.
        """
        engine = GradientEngine.of(self.model)
        if len(engine.ruled) != 1:
            received = f"layer {self.layer.name!r}, whose calls cannot be read"
            raise _unsupported(received)
        return engine.forward(batch, [])

    def features(self, forward: Forward) -> tf.Tensor:
        """Return the inputs of the layer, a last one of one for the bias, shape ``(b, r)``."""
        inputs = tf.cast(forward.taps[0][0].inputs, self.model.dtype)
        if self.layer.bias is None:
            return inputs
        return tf.concat([inputs, tf.ones_like(inputs[:, :1])], axis=1)

    def logits(self, forward: Forward) -> tf.Tensor:
        """Return the logits that the model itself computed, shape ``(b, c)``."""
        return tf.cast(forward.taps[0][0].output, self.model.dtype)


def find_head(model: BaseInfluenceModel, batch: Batch, target_layer: LayerKey = None) -> Head:
    """Find the Dense layer whose output, before any activation, is the model's logits.

    Parameters
    ----------
    model
        The wrapped model.
    batch
        A batch of real data: the layers are told apart by what they give for it.
    target_layer
        Name or index of the layer; None looks at every Dense layer of the model.

    Raises
    ------
    UnsupportedModelError
        If there is no such layer; the message says what stands in the way.
    """
    few = tf.nest.map_structure(lambda part: part[:NUM_EXAMPLES], batch)
    outputs = model.predict_batch(few)
    if not isinstance(outputs, tf.Tensor) or outputs.shape.rank != 2:
        shown = f"shape {outputs.shape}" if tf.is_tensor(outputs) else type(outputs).__name__
        received = f"a model with outputs of {shown}, where one tensor (b, c) is needed"
        raise _unsupported(received)
    candidates = _candidates(model, target_layer)
    forward, logits = forward_to_logits(model, candidates, few, [], [])
    reasons = []
    for layer, taps in reversed(list(zip(candidates, forward.taps, strict=True))):
        reason = _obstacle(layer, taps, logits)
        if not reason:
            activation = _find_activation(model, layer, logits, outputs)
            return Head(_watching(model, layer), layer, activation)
        reasons.append(f"{layer.name!r} {reason}")
    raise _unsupported("; ".join(reasons) or "a model without a Dense layer")


def _candidates(model: BaseInfluenceModel, target_layer: LayerKey) -> list[keras.layers.Dense]:
    layers = [layer for layer in all_layers(model.model) if type(layer) is keras.layers.Dense]
    layers = [layer for layer in layers if layer.built]
    if target_layer is None:
        return layers
    wanted = {id(v) for v in select_weights(model.model, target_layer, None)}
    chosen = [layer for layer in layers if id(layer.kernel) in wanted]
    if not chosen:
        received = f"target_layer={target_layer!r}, which is no Dense layer"
        raise _unsupported(received)
    return chosen


def _obstacle(layer: keras.layers.Dense, taps: Sequence[Tap], logits: tf.Tensor) -> str:
    """Say why a layer does not give the logits; empty if it does."""
    if len(taps) != 1:
        return f"is called {len(taps)} times"
    if taps[0].output.shape != logits.shape:
        return f"has outputs of shape {taps[0].output.shape}, the logits {logits.shape}"
    mine, theirs = (tf.cast(t, tf.float64).numpy() for t in (taps[0].output, logits))
    if not np.array_equal(mine, theirs):
        return "is followed by more than an activation"
    if taps[0].inputs.shape.rank != 2:
        return f"has inputs of shape {taps[0].inputs.shape}"
    if not any(v is layer.kernel for v in layer.trainable_variables):
        return "is frozen (layer.trainable = False)"
    return ""


def _find_activation(
    model: BaseInfluenceModel, layer: keras.layers.Dense, logits: tf.Tensor, outputs: tf.Tensor
) -> Activation:
    """Return the function that turned these logits into these outputs."""
    others = [other for other in all_layers(model.model) if other is not layer]
    # The layer's own first: a ReLU from elsewhere would do as well where all logits are positive.
    known: list[Activation] = [layer.activation]
    known += [x.activation for x in others if type(x) is keras.layers.Activation]
    # `call`, because `__call__` would cast what is float64 to the dtype of the layer.
    known += [x.call for x in others if type(x) is keras.layers.Softmax]
    expected = tf.cast(outputs, tf.float64).numpy()
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-30)
    for activation in known:
        actual = tf.cast(activation(tf.cast(logits, tf.float64)), tf.float64).numpy()
        if np.allclose(actual, expected, rtol=0, atol=ACTIVATION_TOLERANCE * scale):
            return activation
    received = f"layer {layer.name!r}, which is followed by more than an activation"
    raise _unsupported(received)


def _watching(model: BaseInfluenceModel, layer: keras.layers.Dense) -> BaseInfluenceModel:
    """Return a wrapped model that watches one layer: this one, if it does."""
    variables = [layer.kernel] if layer.bias is None else [layer.kernel, layer.bias]
    if [id(v) for v in model.weights] == [id(v) for v in variables]:
        return model

    return model.resource(("head", id(layer)), lambda: model.rewrapped(weights=variables))


def _unsupported(received: str) -> UnsupportedModelError:
    message = (
        "Representer points need a plain Dense layer that is called once, on inputs (b, d), and "
        "whose outputs are the model's outputs but for an activation. Received: "
        f"{received}. Name another layer with `target_layer=`, or use a method that needs no "
        "such layer, such as FirstOrderInfluenceCalculator."
    )
    return UnsupportedModelError(message)
