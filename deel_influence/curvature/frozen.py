"""Search for the part of a model before the watched weights, which needs computing only once.

Products with a curvature matrix go over the data some hundred times. Where only late layers are
watched, what comes before them gives the same tensors every time: `find_frozen_part` finds those
tensors for any model, `FrozenPart.compute` computes them for a batch, and inside
`FrozenPart.replayed` the model runs from them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..model.influence_model import BaseInfluenceModel
from ..model.keras_internals import all_layers
from ..types import Batch
from ..utils.datasets import Item, batch_size_of
from ..utils.kernels import Kernel, relax
from ..utils.reasons import reason_of
from ..utils.running import call, quiet_tensorflow
from .frozen_calls import EarlyCalls, find_early_calls
from .frozen_part import FeatureSource, FrozenPart, KeptOutput, Script

NUM_EXAMPLES = 3
# The same operations run in batches of another size, which may round otherwise (with TF32, a lot).
TOLERANCES = {tf.float64: 1e-10, tf.float32: 2e-3}
HALF_TOLERANCE = 0.1
# Where a model fits its examples perfectly, losses and gradients are nothing but rounding errors.
FLOOR = 1e-3


@dataclass(frozen=True)
class FrozenSearch:
    """What `find_frozen_part` found.

    Attributes
    ----------
    part
        The frozen part, or None if the whole model has to run.
    reason
        Why the whole model has to run, as a clause after "because"; empty where it has not.
    """

    part: FrozenPart | None
    reason: str = ""


def find_frozen_part(model: BaseInfluenceModel, batch: Batch) -> FrozenSearch:
    """Find the part of a model that needs to be computed only once for each batch.

    What is found is compared, on a few examples and in another batch of them, with the whole
    model: its losses and its gradients in the watched weights. The answer is kept with the model,
    so that everything that is compiled for a frozen part is compiled once.

    Parameters
    ----------
    model
        The wrapped model.
    batch
        A batch of real data.
    """
    few = tf.nest.map_structure(_first_examples, batch)
    form = tf.nest.map_structure(lambda part: relax(tf.type_spec_from_value(part)), few)
    return model.resource(("frozen_part", repr(form)), lambda: _search(model, few))


def _first_examples(part: Any) -> Any:
    few = part[:NUM_EXAMPLES]
    return few if tf.is_tensor(few) else tf.convert_to_tensor(few)


def _search(model: BaseInfluenceModel, few: Batch) -> FrozenSearch:
    early = find_early_calls(model, few)
    if not early.losses_are_late:
        return FrozenSearch(None, "the losses do not depend on the watched weights")
    if not early.frontier:
        if early.unreadable:
            return FrozenSearch(
                None,
                f"the outputs of the layers {early.unreadable} before the watched weights cannot "
                "be kept: they are no tensors with one row per example, or have masks of their own",
            )
        return FrozenSearch(None, "no layer with weights runs before the watched ones")
    part = _plan(model, early)
    difference = _difference(part, few)
    if difference:
        return FrozenSearch(
            None, f"it cannot be continued from the outputs of {part.layers}: {difference}"
        )
    return FrozenSearch(part)


def _plan(model: BaseInfluenceModel, early: EarlyCalls) -> FrozenPart:
    indices = {name: index for index, name in enumerate(early.frontier)}

    def kept(tensor: tf.Tensor) -> KeptOutput:
        return KeptOutput(indices.get(tensor.name), tuple(tensor.shape[1:]), tensor.dtype)

    outputs: dict[int, list[Any]] = {}
    owners: dict[int, keras.layers.Layer] = {}
    for made in early.calls:
        owners[id(made.layer)] = made.layer
        replaced = made in early.replaceable
        nest = tf.nest.map_structure(kept, made.outputs) if replaced else None
        outputs.setdefault(id(made.layer), []).append(nest)
    scripts = [
        Script(owners[key], tuple(nests))
        for key, nests in outputs.items()
        if any(nest is not None for nest in nests)
    ]
    sources = [
        FeatureSource(made.layer, made.number, position, kept(made.tensors[position]))
        for made, position in early.frontier.values()
    ]
    return FrozenPart(model, tuple(sources), tuple(scripts))


def _difference(part: FrozenPart, few: Batch) -> str:
    """Say how replaying differs from the whole model on a few examples; empty if it does not."""
    model, tolerance = part.model, _tolerance(part.model)

    def replay(batch: Batch, features: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        with part.replayed(features):
            return _losses_and_gradient(model, batch)

    whole, replayed = Kernel(lambda batch: _losses_and_gradient(model, batch)), Kernel(replay)
    features = part.compute(few)
    ids = np.arange(batch_size_of(few))
    # Once as they are, and once fewer of them in another order: features go with the examples.
    for rows in (ids, np.roll(ids, 1)[: max(len(ids) - 1, 1)]):
        batch, kept = _taken((few, features), rows)
        if not all(map(_agree, part.compute(batch), kept, itertools.repeat(tolerance))):
            return "they are not the same when the example comes in another batch"
        expected = call(whole, Item(0, ids, batch), (batch,))
        try:
            with quiet_tensorflow():
                actual = replayed(batch, kept)
        # A model that hands tensors on behind its layers' backs fails in ways of its own; the
        # reason is reported, and the whole model runs.
        except (ValueError, TypeError, NotImplementedError, tf.errors.OpError) as error:
            return f"{type(error).__name__}, {reason_of(error)}"
        for name, one, other in zip(("losses", "gradients"), actual, expected, strict=True):
            if not _agree(one, other, tolerance):
                return f"the {name} differ"
    return ""


def _taken(nest: Any, rows: np.ndarray) -> Any:
    return tf.nest.map_structure(lambda part: tf.gather(part, rows), nest)


def _losses_and_gradient(model: BaseInfluenceModel, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
    values = [variable.value for variable in model.weights]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        losses = model.per_example_losses(batch)
    gradients = tape.gradient(losses, values, unconnected_gradients="zero")
    parts = [tf.cast(tf.convert_to_tensor(part), model.dtype) for part in gradients]
    return losses, model.layout.flatten(parts)


def _agree(actual: tf.Tensor, expected: tf.Tensor, tolerance: float) -> bool:
    one, other = actual.numpy(), expected.numpy()
    if one.shape != other.shape or not expected.dtype.is_floating:
        return np.array_equal(one, other)
    largest = np.max(np.abs(other), initial=FLOOR, where=np.isfinite(other))
    return np.allclose(one, other, rtol=0.0, atol=tolerance * largest, equal_nan=True)


def _tolerance(model: BaseInfluenceModel) -> float:
    if any(layer.compute_dtype in ("float16", "bfloat16") for layer in all_layers(model.model)):
        return HALF_TOLERANCE
    return TOLERANCES[model.dtype]
