"""The Hessian of a batch as a matrix, some rows and some examples at a time.

Each row is a product of the Hessian with a unit vector. TensorFlow computes rows side by side
faster than one by one, and each of them takes about twice what the gradient of the batch takes:
as many go together as fit in a bounded amount of memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from ..gradients.engine import GradientEngine
from ..model.influence_model import BaseInfluenceModel
from ..types import Batch
from ..utils.datasets import Item, batch_size_of
from ..utils.memory import available_bytes
from ..utils.running import quiet_tensorflow, run

MAX_ROWS = 32
"""Rows side by side; more of them are no faster."""

ROW_SHARE = 2
"""How often a row takes the memory of the gradient, which all rows share."""

WORKING_BYTES = 2**29
"""Memory that rows side by side may take, and a quarter of what is free at most."""


@dataclass(frozen=True)
class RowChunks:
    """How a Hessian is cut.

    Attributes
    ----------
    rows
        Rows of the matrix that are computed side by side.
    examples
        Examples of a batch that are taken at once.
    """

    rows: int
    examples: int


def gradient_bytes(model: BaseInfluenceModel, batch: Batch) -> int:
    """Return how much memory each example of a batch adds to what a gradient takes."""
    first = tf.nest.map_structure(lambda t: t[:1], batch)
    shapes = tuple(str(tensor.shape) for tensor in tf.nest.flatten(first))

    def measure() -> int:
        one, two = (_graph_bytes(model, first, count) for count in (1, 2))
        return max(two - one, 1)  # what both have is weights

    return model.resource(("gradient_bytes", shapes), measure)


def smallest_bytes(model: BaseInfluenceModel, batch: Batch) -> int:
    """Return about how much memory one row of the Hessian of one example takes."""
    return (1 + ROW_SHARE) * gradient_bytes(model, batch)


def row_chunks(model: BaseInfluenceModel, batch: Batch) -> RowChunks:
    """Choose how to cut the Hessian of a batch."""
    free = available_bytes()
    allowed = WORKING_BYTES if free is None else min(WORKING_BYTES, free // 4)
    examples = allowed // smallest_bytes(model, batch)
    examples = int(np.clip(examples, 1, batch_size_of(batch)))
    gradient = examples * gradient_bytes(model, batch)
    rows = (allowed - gradient) // (ROW_SHARE * gradient)
    return RowChunks(int(np.clip(rows, 1, min(MAX_ROWS, model.nb_params))), examples)


def hessian_of_batch(engine: GradientEngine, item: Item) -> np.ndarray:
    """Return ``Σ_i ∇²ℓ(z_i)`` over a batch, float64, shape ``(p, p)``.

    Parameters
    ----------
    engine
        A prepared engine.
    item
        A batch.

    Raises
    ------
    BatchError
        If TensorFlow refuses the batch.
    NonFiniteError
        If there is NaN or infinity in it, or in the result.
    """
    p, chunks = engine.model.nb_params, row_chunks(engine.model, item.batch)
    kernel = engine.kernel("hessian_rows", rows_function(engine.model))
    total = np.zeros((p, p))
    for first in range(0, item.size, chunks.examples):
        part = item
        if item.size > chunks.examples:
            rows = slice(first, first + chunks.examples)
            taken = tf.nest.map_structure(lambda t, rows=rows: t[rows], item.batch)
            part = Item(item.index, item.ids[rows], taken)
        for start in range(0, p, chunks.rows):
            numbers = tf.range(start, min(start + chunks.rows, p))
            rows = run(kernel, part, (part.batch, numbers), axis=None)
            total[start : start + chunks.rows] += rows.numpy()
    return total


def rows_function(model: BaseInfluenceModel) -> Callable[[Batch, tf.Tensor], tf.Tensor]:
    """Return the kernel ``(batch, numbers (k,)) -> rows (k, p)`` of ``Σ_i ∇²ℓ(z_i)``."""

    def rows(batch: Batch, numbers: tf.Tensor) -> tf.Tensor:
        values = [v.value for v in model.weights]
        with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
            tape.watch(values)
            gradient = model.batch_gradient_tensor(batch)
            chosen = tf.gather(gradient, numbers)
        parts = _jacobian(tape, chosen, values)
        return model.layout.flatten_rows([tf.convert_to_tensor(part) for part in parts])

    return rows


def _jacobian(tape: tf.GradientTape, target: tf.Tensor, sources: list) -> list[tf.Tensor]:
    """Differentiate each entry of ``target``, side by side where TensorFlow can."""
    try:
        with quiet_tensorflow():
            return tape.jacobian(target, sources, unconnected_gradients="zero")
    except (ValueError, TypeError, NotImplementedError):
        # TensorFlow cannot vectorise second derivatives of loops (recurrent layers). One entry
        # after the other works for every model, and fails with the true reason if there is one.
        return tape.jacobian(
            target, sources, unconnected_gradients="zero", experimental_use_pfor=False
        )


def _graph_bytes(model: BaseInfluenceModel, first: Batch, count: int) -> int:
    """Return what all tensors take in the graph of the gradient of ``count`` examples."""
    batch = tf.nest.map_structure(lambda t: tf.concat([t] * count, axis=0), first)
    function = tf.function(model.batch_gradient_tensor, autograph=False)
    operations = function.get_concrete_function(batch).graph.get_operations()
    tensors = [tensor for operation in operations for tensor in operation.outputs]
    known = [tensor for tensor in tensors if tensor.shape.is_fully_defined()]
    return sum(int(np.prod(tensor.shape)) * tensor.dtype.size for tensor in known)
