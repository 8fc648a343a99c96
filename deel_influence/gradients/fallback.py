"""Per-example gradients by automatic differentiation of one example, for what no rule serves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import keras
import tensorflow as tf

from ..model.influence_model import BaseInfluenceModel
from ..model.keras_internals import all_layers
from ..types import Batch
from .capture import overlaid

MODES = ("vectorized", "unrolled", "sequential")
"""Ways of going through the examples, fastest first.

``"vectorized"`` computes them side by side; ``"unrolled"`` does so with recurrent layers written
out step by step, because TensorFlow cannot vectorise the gradient of every loop;
``"sequential"`` takes one example after the other, and works for any model.
"""


def differentiated_rows(
    model: BaseInfluenceModel,
    variables: Sequence[keras.Variable],
    batch: Batch,
    mode: str = "vectorized",
    objective: Callable[[Any], tf.Tensor] | None = None,
) -> list[tf.Tensor]:
    """Return the gradient rows ``(b, size)`` of each variable.

    Parameters
    ----------
    model
        The wrapped model.
    variables
        The variables to differentiate in, and no others.
    batch
        A batch of the dataset.
    mode
        One of `MODES`.
    objective
        What to differentiate, a function of a batch of one; None means the loss.
    """
    values = [v.value for v in variables]

    def gradients_of_one(example: Batch) -> list[tf.Tensor]:
        single = tf.nest.map_structure(lambda t: tf.expand_dims(t, 0), example)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            value = tf.reduce_sum((objective or model.per_example_losses)(single))
        gradients = tape.gradient(value, values, unconnected_gradients="zero")
        flat = [tf.reshape(tf.convert_to_tensor(g), (-1,)) for g in gradients]
        return [tf.cast(g, model.dtype) for g in flat]

    if mode == "sequential":
        rows = tf.map_fn(gradients_of_one, batch, fn_output_signature=[model.dtype] * len(values))
    else:
        with _unrolled(model.model) if mode == "unrolled" else nullcontext():
            rows = _vectorized(gradients_of_one, batch)
    sizes = [math.prod(v.shape) for v in variables]
    return [tf.reshape(r, (-1, size)) for r, size in zip(rows, sizes, strict=True)]


def _vectorized(function: Callable[[Batch], list[tf.Tensor]], batch: Batch) -> list[tf.Tensor]:
    """Apply a function to all examples side by side.

    One example too many is computed, and dropped: TensorFlow's vectorised loops fail at run time
    on a batch of one, which a last batch may well be.
    """
    padded = tf.nest.map_structure(lambda t: tf.concat([t, t[:1]], axis=0), batch)
    return [rows[:-1] for rows in tf.vectorized_map(function, padded)]


@contextmanager
def _unrolled(model: keras.Model) -> Iterator[None]:
    """Let recurrent layers write out their steps while a function is traced."""
    with ExitStack() as stack:
        for layer in all_layers(model):
            if isinstance(layer, keras.layers.RNN):
                stack.enter_context(overlaid(layer, "unroll", True))
        yield
