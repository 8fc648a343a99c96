"""The gradients of some examples as a matrix."""

from __future__ import annotations

import tensorflow as tf

from ..utils.datasets import batch_size_of, numbered_batches
from ..utils.running import call
from .engine import GradientEngine


def first_gradients(engine: GradientEngine, dataset: tf.data.Dataset, count: int) -> tf.Tensor:
    """Return the gradients of the first examples of a dataset, shape ``(count, p)`` or fewer.

    Parameters
    ----------
    engine
        The engine of the model.
    dataset
        A batched dataset.
    count
        How many examples.
    """
    rows: list[tf.Tensor] = []
    for index, (batch, ids) in enumerate(numbered_batches(dataset)):
        engine.prepare(batch)
        left = count - sum(int(part.shape[0]) for part in rows)
        if batch_size_of(batch) > left:
            batch = tf.nest.map_structure(lambda t, left=left: t[:left], batch)
        kernel = engine.kernel("first_gradients", lambda b: engine.gradients(b).materialize())
        rows.append(call(kernel, index, ids, (batch,)))
        if batch_size_of(batch) == left:
            break
    return tf.concat(rows, axis=0)
