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
    evaluate = objective or model.per_example_losses
    copies = copies_of_example(evaluate, batch) if mode != "sequential" else 1

    def gradients_of_one(example: Batch) -> list[tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            # Further copies are there for their shape alone.
            value = tf.reduce_sum(evaluate(batch_of_copies(example, copies))[:1])
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


def batch_of_copies(example: Batch, copies: int) -> Batch:
    """Return a batch that holds an example so many times."""
    return tf.nest.map_structure(lambda t: tf.stack([t] * copies), example)


def copies_of_example(function: Callable[[Batch], Any], batch: Batch) -> int:
    """Return how many copies of an example a vectorised map has to hand to ``function``.

    Two where there is a matrix product of three-dimensional tensors, as in attention, and one
    elsewhere. Vectorising makes the product of an example alone, ``(1, t, i)`` by ``(i, o)``, one
    of ``(b, 1, t, i)`` by ``(i, o)``, for which TensorFlow on processors reads and writes beyond
    its buffers: wrong numbers, or a crash [1]_. With ``(b, 2, t, i)`` it does not.

    Parameters
    ----------
    function
        A function of a batch.
    batch
        The examples that it is to be mapped over.

    References
    ----------
    .. [1] https://github.com/tensorflow/tensorflow/issues/117700, in TensorFlow 2.20 and 2.21.
    """
    one = tf.nest.map_structure(lambda t: tf.type_spec_from_value(t[:1]), batch)
    traced = tf.function(function, autograph=False).get_concrete_function(one)
    definition = traced.graph.as_graph_def()
    bodies = (definition.node, *(body.node_def for body in definition.library.function))
    products = any(node.op.startswith("BatchMatMul") for nodes in bodies for node in nodes)
    return 2 if products else 1


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
