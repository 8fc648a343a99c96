"""Whether each example of a batch has a loss of its own, with a gradient in the watched weights.

Attribution takes ``ℓ(z_i, θ)`` for a function of one example. A loss that compares the examples of
a batch (contrastive, in-batch softmax), one that divides by a sum over the batch, or a layer that
subtracts the batch's mean has no such function: scores would depend on how the data are batched.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import (
    CoupledExamplesError,
    NoGradientError,
    NoGradientWarning,
    UnsupportedModelError,
)
from ..model.finite import check_finite_weights
from ..model.influence_model import BaseInfluenceModel
from ..model.keras_internals import all_layers
from ..model.logit_reading import told_from_logits
from ..types import Batch
from .capture import TRACING, overlaid

NUM_TOGETHER = 16
"""How many examples are computed together."""

NUM_ALONE = 3
"""How many of them are also computed alone; the others make a batch of another size."""

MARGIN = 1e-2
"""So far beyond 0 and 1 rounding and smoothing may carry a probability."""

HALF_PRECISION = ("float16", "bfloat16")

# Batches of another size are added up in another order, and deep networks amplify the difference.
# Losses of float64 models may pass through float32.
TOLERANCES = {"float64": 1e-4, "float32": 1e-3}
HALF_TOLERANCE = 0.05


def check_examples(model: BaseInfluenceModel, batch: Batch) -> None:
    """Refuse a model and a loss that give the examples of a batch no gradient of their own.

    Parameters
    ----------
    model
        The wrapped model.
    batch
        A batch of real data; its first examples are computed, together and alone.

    Raises
    ------
    NonFiniteError
        If a weight of the model is NaN, or a trainable one infinite; the message names it.
    NoGradientError
        If no gradient of the loss reaches the watched weights.
    CoupledExamplesError
        If the examples influence each other; the message names the loss, the layer, or the
        function that reads batches.
    UnsupportedModelError
        If the model is random in inference mode.

    Warns
    -----
    NoGradientWarning
        If outputs beyond 0 and 1 go into a loss of probabilities.
    """
    check_finite_weights(model.model)
    some = tf.nest.map_structure(lambda t: t[:NUM_TOGETHER], batch)
    first = _connected(model, _rows(some, 0, 1))
    whole = _computed(model, some)
    _warn_of_logits(model, whole)
    count = _size(some)
    if count < 2:
        return
    tolerance = _tolerance(model)
    cuts = [*range(1, min(NUM_ALONE, count)), count]
    parts = [first, *(_computed(model, _rows(some, *cut)) for cut in itertools.pairwise(cuts))]
    if _losses_agree(whole, parts, tolerance) or _rounding_alone(model, whole, parts, tolerance):
        return
    if not _losses_agree(whole, [_computed(model, some)], tolerance):
        message = (
            "The model and the loss must give the same for the same batch. Received: two losses "
            "of one batch. Is the model random in inference mode? Pass training=False on to the "
            "layers that draw."
        )
        raise UnsupportedModelError(message)
    raise _coupled(model, _culprit(model, whole, first, some, tolerance))


@dataclass
class _Computed:
    """What a batch gives: what was read of it, the outputs, the losses, and calls of layers."""

    read: tuple[Any, ...]
    outputs: Any
    losses: tf.Tensor
    calls: list[tuple[keras.layers.Layer, list[np.ndarray], list[np.ndarray]]] = field(
        default_factory=list
    )


def _computed(model: BaseInfluenceModel, batch: Batch) -> _Computed:
    read = model.process_batch_for_loss_fn(batch)
    outputs = model(read[0])
    return _Computed(read, outputs, model.loss_function(read[1], outputs, read[2]))


def _losses_agree(whole: _Computed, parts: Sequence[_Computed], tolerance: float) -> bool:
    """Compare the losses of a batch with those of its parts."""
    together = np.concatenate([np.asarray(part.losses, np.float64) for part in parts])
    return _agree(np.asarray(whole.losses, np.float64), together, tolerance)


def _rounding_alone(
    model: BaseInfluenceModel, whole: _Computed, parts: Sequence[_Computed], tolerance: float
) -> bool:
    """Tell whether losses differ only because they are as small as the rounding of the outputs.

    So they are where a model fits its data exactly. From the same outputs they are the same then.
    """
    expected = tf.nest.flatten(whole.outputs)
    found = zip(*(tf.nest.flatten(part.outputs) for part in parts), strict=True)
    outputs = []
    for one, several in zip(expected, found, strict=True):
        if any(part.shape[1:] != one.shape[1:] for part in several):
            return False
        outputs.append(tf.concat(several, axis=0))
        if not _agree(one, outputs[-1], tolerance):
            return False
    together = tf.nest.pack_sequence_as(whole.outputs, outputs)
    losses = model.loss_function(whole.read[1], together, whole.read[2])
    return _losses_agree(_Computed(whole.read, together, losses), parts, tolerance)


def _with_calls(model: BaseInfluenceModel, batch: Batch) -> _Computed:
    """Compute a batch and note what each layer makes of what."""
    calls: list[tuple[keras.layers.Layer, list[np.ndarray], list[np.ndarray]]] = []
    with TRACING, ExitStack() as stack:
        for layer in all_layers(model.model):
            if not isinstance(layer, keras.Model):
                stack.enter_context(overlaid(layer, "call", _noted(layer, calls)))
        result = _computed(model, batch)
    result.calls = calls
    return result


def _noted(layer: keras.layers.Layer, calls: list) -> Any:
    original = layer.call

    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        calls.append((layer, _arrays((args, kwargs)), _arrays(result)))
        return result

    return call


def _culprit(
    model: BaseInfluenceModel, whole: _Computed, alone: _Computed, batch: Batch, tolerance: float
) -> str:
    """Name what makes another number of the first example than it gives of it alone."""
    if not _first_agrees(_arrays(whole.read), _arrays(alone.read), tolerance):
        return "the function `process_batch_for_loss_fn`"
    if _first_agrees(_arrays(whole.outputs), _arrays(alone.outputs), tolerance):
        return f"the {model.loss_function.description}"
    pairs = zip(
        _with_calls(model, batch).calls, _with_calls(model, _rows(batch, 0, 1)).calls, strict=False
    )
    for (layer, inputs, outputs), (same, inputs_alone, outputs_alone) in pairs:
        fits = layer is same and _first_agrees(inputs, inputs_alone, tolerance)
        if fits and not _first_agrees(outputs, outputs_alone, tolerance):
            return f"the layer {layer.name!r} ({type(layer).__name__})"
    return f"the call of {type(model.model).__name__} {model.model.name!r}"


def _coupled(model: BaseInfluenceModel, culprit: str) -> CoupledExamplesError:
    message = (
        "Each example must have a loss of its own. Received: losses that depend on which other "
        f"examples are in the batch, because of {culprit}. Scores would depend on the batch size. "
        "Pass `loss_function=` a loss of single examples, or attribute to groups that are whole "
        "batches of training, one example of the dataset each."
    )
    return CoupledExamplesError(message)


def _connected(model: BaseInfluenceModel, example: Batch) -> _Computed:
    """Compute an example, and refuse a loss from which no gradient reaches the watched weights."""
    values = [v.value for v in model.weights]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        result = _computed(model, example)
        total = tf.reduce_sum(result.losses)
    if any(gradient is not None for gradient in tape.gradient(total, values)):
        return result
    watched = sorted({block.name for block in model.layout.blocks})
    message = (
        f"A gradient of the {model.loss_function.description} must reach the watched weights. "
        f"Received: none for any weight of {watched}. An argmax, a cast to integers or a constant "
        "has no gradient; nor have layers that the loss does not see, such as those of another "
        "output. Pass a differentiable loss, or watch other layers."
    )
    raise NoGradientError(message)


def _warn_of_logits(model: BaseInfluenceModel, whole: _Computed) -> None:
    """Say so where a loss of probabilities is given logits, whose gradient it clips away."""
    _, targets, sample_weight = whole.read
    parts = model.loss_function.per_output(targets, whole.outputs, sample_weight)
    for loss, _, _, output, _ in parts:
        if told_from_logits(loss) is not False:
            continue
        values = tf.cast(output, tf.float32)
        low, high = float(tf.reduce_min(values)), float(tf.reduce_max(values))
        if low < -MARGIN or high > 1 + MARGIN:
            message = (
                f"The {model.loss_function.description} takes probabilities, from 0 to 1. "
                f"Received: outputs from {low:.3g} to {high:.3g}, whose gradients it clips to "
                "zero. Pass the loss with from_logits=True, as an object: "
                "keras.losses.SparseCategoricalCrossentropy(from_logits=True), for one."
            )
            warnings.warn(message, NoGradientWarning, stacklevel=4)


def _arrays(nest: Any) -> list[np.ndarray]:
    """Return the numbers of a nest of tensors, those of one row per example or none."""
    tensors = [t for t in tf.nest.flatten(nest) if isinstance(t, (tf.Tensor, np.ndarray))]
    arrays = [tf.convert_to_tensor(t) for t in tensors]
    return [
        tf.cast(t, tf.float64).numpy()
        for t in arrays
        if (t.dtype.is_floating or t.dtype.is_integer or t.dtype.is_bool) and t.shape.rank
    ]


def _rows(batch: Batch, start: int, end: int) -> Batch:
    return tf.nest.map_structure(lambda t: t[start:end], batch)


def _size(batch: Batch) -> int:
    return int(tf.shape(tf.nest.flatten(batch)[0])[0])


def _first_agrees(
    whole: Sequence[np.ndarray], alone: Sequence[np.ndarray], tolerance: float
) -> bool:
    return all(
        _agree(together[:1], single, tolerance, scale=together)
        for together, single in zip(whole, alone, strict=False)
        if len(single) == 1
    )


def _agree(one: Any, other: Any, tolerance: float, scale: Any = None) -> bool:
    """Compare arrays, or lists of one; what is not finite is for others to report."""
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape:
        return True  # padded to another length; what comes of it shows in the losses
    size = np.abs(one if scale is None else np.asarray(scale))
    largest = size[np.isfinite(size)].max(initial=0.0)
    finite = np.isfinite(one) & np.isfinite(other)
    return bool(np.all(np.abs(one - other)[finite] <= tolerance * largest))


def _tolerance(model: BaseInfluenceModel) -> float:
    if any(layer.compute_dtype in HALF_PRECISION for layer in all_layers(model.model)):
        return HALF_TOLERANCE
    return TOLERANCES[model.dtype.name]
