"""The gradients of some examples as a matrix."""

from __future__ import annotations

import tensorflow as tf

from ..utils.kernels import Kernel
from ..utils.running import call
from .engine import GradientEngine
from .passes import Pass


def rows_kernel(engine: GradientEngine) -> Kernel:
    """Return the compiled form of the gradients of a batch, rows ``(b, p)``."""
    return engine.kernel("rows", lambda batch: engine.gradients(batch).materialize())


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
    for item in Pass(dataset, "dataset", in_order=False).items(engine):
        left = count - sum(int(part.shape[0]) for part in rows)
        batch = tf.nest.map_structure(lambda t, left=left: t[:left], item.batch)
        rows.append(call(rows_kernel(engine), item, (batch,)))
        if item.size >= left:
            break
    return tf.concat(rows, axis=0)
