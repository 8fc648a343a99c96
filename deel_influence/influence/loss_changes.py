"""The loss of examples at other parameters than the trained ones, without touching the model."""

from __future__ import annotations

import warnings

import keras
import tensorflow as tf

from ..errors import CurvatureWarning
from ..model.influence_model import BaseInfluenceModel
from ..model.keras_internals import all_layers
from ..types import Batch

HALF_PRECISION = ("float16", "bfloat16")


def warn_of_rounding(model: BaseInfluenceModel) -> None:
    """Warn where half precision rounds away small changes of the weights, or of the loss.

    Layers before the first watched one give the same at both places, whatever they round.
    """
    layers = [x for x in all_layers(model.model) if not isinstance(x, keras.Model)]
    watched = {id(v) for v in model.weights}
    moved = [any(id(v) in watched for v in layer.variables) for layer in layers]
    first = moved.index(True) if True in moved else 0
    narrow = [x for x in layers[first:] if x.compute_dtype in HALF_PRECISION]
    if narrow:
        message = (
            "Losses at moved weights need layers that compute in float32 or float64: half "
            f"precision rounds small steps away. Received: layer {narrow[0].name!r} in "
            f"{narrow[0].compute_dtype}. Pass linearize=True, which takes no difference of losses."
        )
        warnings.warn(message, CurvatureWarning, stacklevel=3)


def loss_changes(model: BaseInfluenceModel, batch: Batch, steps: tf.Tensor) -> tf.Tensor:
    """Return ``ℓ(z_i, θ̂ + δ_j) - ℓ(z_i, θ̂)``, shape ``(b, J)``; traceable.

    One forward pass for each step, in which Keras reads the moved weights in place of the
    variables, which stay as they are.

    Parameters
    ----------
    model
        The wrapped model; where it measures something else than the loss, the change is of that.
    batch
        A batch of the dataset.
    steps
        The δ, shape ``(J, p)``.
    """
    before = model.per_example_losses(batch)
    changes = tf.map_fn(lambda step: losses_at(model, batch, step) - before, steps)
    return tf.transpose(changes)


def losses_at(model: BaseInfluenceModel, batch: Batch, step: tf.Tensor) -> tf.Tensor:
    """Return ``ℓ(z_i, θ̂ + δ)`` for one step δ ``(p,)``, shape ``(b,)``; traceable."""
    parts = zip(model.weights, model.layout.unflatten(step), strict=True)
    moved = [(v, v.value + tf.cast(part, v.value.dtype)) for v, part in parts]
    with keras.StatelessScope(state_mapping=moved):
        return model.per_example_losses(batch)
