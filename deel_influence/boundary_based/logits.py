"""The class logits of a model, whatever its last layer makes of them."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from ..errors import UnsupportedModelError
from ..gradients.capture import forward_to_logits
from ..model.influence_model import BaseInfluenceModel
from ..model.keras_internals import all_layers

EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
SMALLEST_PROBABILITY = 1e-37


class ClassLogits:
    """Logits ``(b, c)`` of a classifier, c ≥ 2, from its inputs.

    They are the outputs before the last activation. Of outputs that the loss takes for
    probabilities, and that no visible activation gave, they are the logarithms, whose differences
    between classes are the same. One output stands for two classes, with logits of 0 and of that
    output: the boundary is where it is 0, or 0.5 after a sigmoid.

    Parameters
    ----------
    model
        The wrapped model.
    """

    def __init__(self, model: BaseInfluenceModel) -> None:
        self._wrapped = model
        # The same Keras model, read without targets: a batch is nothing but the inputs.
        self._model = BaseInfluenceModel(
            model.model,
            model.weights,
            loss_function=lambda targets, outputs: tf.zeros(tf.shape(outputs)[:1]),  # noqa: ARG005
            process_batch_for_loss_fn=lambda inputs: (inputs, 0.0, None),
        )
        self._loss_takes_probabilities = _takes_probabilities(model.loss_function.loss)
        dtypes = {layer.compute_dtype for layer in all_layers(model.model)}
        self.resolution = max(EPSILON.get(dtype, 0.0) for dtype in dtypes)
        """The relative rounding error of the model's arithmetic."""

    def __reduce__(self) -> tuple:
        """Pickle and copy the wrapped model alone."""
        return ClassLogits, (self._wrapped,)

    def __call__(self, inputs: Any) -> tf.Tensor:
        """Return the logits ``(b, c)`` of a batch of inputs."""
        try:
            forward, logits = forward_to_logits(self._model, [], inputs, [], [])
        except UnsupportedModelError as error:
            message = (
                "Boundary methods need a classifier with one output tensor. Received: a model "
                f"that they cannot read ({error}) Wrap the output that is meant: "
                "keras.Model(model.inputs, output)."
            )
            raise UnsupportedModelError(message) from error
        return self.of_classes(forward.outputs, logits)

    def takes_logarithm(self, outputs: tf.Tensor, logits: tf.Tensor) -> bool:
        """Tell whether a forward pass gave probabilities without showing its activation."""
        return outputs is logits and self._loss_takes_probabilities

    def of_classes(self, outputs: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Turn what `forward_to_logits` gave into ``(b, c)`` with c ≥ 2."""
        probabilities = self.takes_logarithm(outputs, logits)
        values = tf.cast(logits, self._model.dtype)
        values = values[:, None] if values.shape.rank == 1 else values
        if values.shape.rank != 2 or not values.shape[1]:
            message = (
                "Boundary methods need outputs of shape (b, c), or (b, 1) for two classes. "
                f"Received: outputs of shape {outputs.shape}."
            )
            raise UnsupportedModelError(message)
        if values.shape[1] == 1:
            other = 1.0 - values if probabilities else tf.zeros_like(values)
            values = tf.concat([other, values], axis=1)
        return tf.math.log(tf.maximum(values, SMALLEST_PROBABILITY)) if probabilities else values


def _takes_probabilities(loss: Any) -> bool:
    """Tell whether a loss expects probabilities rather than logits."""
    if isinstance(loss, keras.losses.Loss):
        return not loss.get_config().get("from_logits", True)
    return getattr(loss, "__name__", "").endswith("crossentropy")
