"""Running compiled kernels over datasets, and handing on what they give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import BatchError, NonFiniteError
from ..gradients.engine import GradientEngine
from ..types import Batch, IdFunction
from ..utils.datasets import check_dataset, numbered_batches
from ..utils.kernels import Kernel
from ..utils.progress import progress_bar


def check_examples(
    engine: GradientEngine, dataset: Any, argument: str, id_fn: IdFunction | None
) -> None:
    """Refuse a dataset that cannot be scored: unbatched, endless, or without lasting ids."""
    check_dataset(dataset, argument, engine.model.input_rank)
    if id_fn is None:
        engine.order_guard.check(dataset, argument)


def stream(
    engine: GradientEngine,
    dataset: tf.data.Dataset,
    id_fn: IdFunction | None,
    description: str,
    verbose: str | int,
    argument: str = "train_set",
) -> Iterator[tuple[int, Batch, np.ndarray]]:
    """Yield index, batch and ids ``(b,)`` for each batch, the engine prepared, under a bar."""
    batches = progress_bar(numbered_batches(dataset, id_fn, argument), description, None, verbose)
    for index, (batch, ids) in enumerate(batches):
        if index == 0 and id_fn is None:
            engine.order_guard.compare(dataset, batch, argument)
        engine.prepare(batch)
        yield index, batch, ids


def run(
    kernel: Kernel,
    index: int,
    ids: np.ndarray,
    arguments: tuple,
    device: str | None,
    axis: int = -1,
) -> tf.Tensor:
    """Run a kernel on a batch and refuse NaN and infinity.

    Parameters
    ----------
    kernel, arguments, device
        What to run, on what, and where.
    index, ids
        Which batch it is, and the ids of its examples.
    axis
        Which axis of the result is the batch.

    Raises
    ------
    BatchError
        If TensorFlow refuses the batch, for instance a class label beyond the last class.
    NonFiniteError
        Names the batch and the first example that gave such a value.
    """
    try:
        values = kernel(*arguments, device=device)
    except tf.errors.InvalidArgumentError as error:
        # TensorFlow appends the graph's history to its reason; the first line is the reason.
        reason = str(error.message).strip().splitlines()[0]
        message = (
            f"Batch {index} (counting from 0; examples {ids[0]} to {ids[-1]}) cannot be computed: "
            f"{reason} Check its inputs, and that class labels are below the number of classes."
        )
        raise BatchError(message) from error
    if not np.isfinite(tf.reduce_sum(values).numpy()):
        _report(values.numpy(), index, ids, axis)
    return values


def _report(values: np.ndarray, index: int, ids: np.ndarray, axis: int) -> None:
    finite = np.moveaxis(np.isfinite(values), axis, 0).reshape(len(ids), -1).all(axis=1)
    if finite.all():
        return  # the entries are finite, only their sum is not
    first = int(np.argmin(finite))
    message = (
        f"Scores must be finite. Received: NaN or infinity from batch {index} (counting from "
        f"0), first for example {int(ids[first])}. Check its inputs and labels, and that the "
        "model's weights are finite."
    )
    raise NonFiniteError(message)
