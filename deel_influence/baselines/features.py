"""What a layer of a model sees of each example."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..errors import UnsupportedModelError
from ..gradients.capture import forward_with_taps
from ..model.influence_model import BaseInfluenceModel
from ..model.keras_internals import all_layers
from ..model.selection import LayerKey, find_layer
from ..types import Batch


class Features:
    """The inputs of a layer, one row for each example.

    Positions of a sequence that Keras masks count as zeros, whatever the layers before made of
    padding.

    Parameters
    ----------
    model
        The wrapped model.
    layer
        Name or index of the layer; None takes the last one that has trainable weights, so that the
        features are those that the predictions are made from.
    """

    def __init__(self, model: BaseInfluenceModel, layer: LayerKey = None) -> None:
        self._model = model
        self._layer = find_layer(model.model, layer)

    def __reduce__(self) -> tuple:
        """Pickle and copy the model, and which of its layers this is."""
        return _features_at, (self._model, self.position)

    @property
    def position(self) -> int:
        """Which of the layers of the model it is, from 0."""
        return [layer is self._layer for layer in all_layers(self._model.model)].index(True)

    def of_batch(self, batch: Batch) -> tf.Tensor:
        """Return the features, shape ``(b, d)``; traceable."""
        return self.with_outputs(batch)[0]

    def with_outputs(self, batch: Batch) -> tuple[tf.Tensor, Any]:
        """Return the features, shape ``(b, d)``, and the outputs of the model; traceable.

        Raises
        ------
        UnsupportedModelError
            If a call of the model does not call the layer once.
        """
        forward = forward_with_taps(self._model, [self._layer], batch, [])
        (taps,) = forward.taps
        if len(taps) != 1:
            message = (
                "Argument `layer` must name a layer that is called once for each prediction. "
                f"Received: {self._layer.name!r}, which is called {len(taps)} times."
            )
            raise UnsupportedModelError(message)
        inputs = tf.cast(tf.convert_to_tensor(taps[0].inputs), self._model.dtype)
        mask = taps[0].mask
        if mask is not None and 1 < mask.shape.rank < inputs.shape.rank:
            axes = [1] * (inputs.shape.rank - mask.shape.rank)
            there = tf.reshape(mask, (*tf.unstack(tf.shape(mask)), *axes))
            inputs = tf.where(there, inputs, tf.zeros_like(inputs))
        return tf.reshape(inputs, (tf.shape(inputs)[0], -1)), forward.outputs


def _features_at(model: BaseInfluenceModel, position: int) -> Features:
    features = Features(model)
    features._layer = all_layers(model.model)[position]
    return features
