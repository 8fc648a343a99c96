"""Running a compiled kernel on a batch, with errors that name the batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import BatchError, NonFiniteError
from .kernels import Kernel
from .reasons import reason_of


def run(
    kernel: Kernel,
    index: int,
    ids: np.ndarray,
    arguments: tuple,
    device: str | None,
    axis: int | None = -1,
) -> tf.Tensor:
    """Run a kernel on a batch and refuse NaN and infinity.

    Parameters
    ----------
    kernel, arguments, device
        What to run, on what, and where.
    index, ids
        Which batch it is, and the ids of its examples.
    axis
        Which axis of the result is the batch; None where it has none.

    Raises
    ------
    BatchError
        If TensorFlow refuses the batch, for instance a class label beyond the last class.
    NonFiniteError
        Names the batch and the first example that gave such a value.
    """
    values = call(kernel, index, ids, arguments, device)
    if not np.isfinite(tf.reduce_sum(values).numpy()):
        _report(values.numpy(), index, ids, axis)
    return values


def call(
    kernel: Kernel, index: int, ids: np.ndarray, arguments: tuple, device: str | None = None
) -> Any:
    """Run a kernel on a batch, and say which one if TensorFlow refuses it.

    Raises
    ------
    BatchError
        Names the batch, and gives TensorFlow's reason.
    MissingDerivativeError
        If a derivative that the kernel takes does not exist.
    """
    try:
        return kernel(*arguments, device=device)
    except tf.errors.OpError as error:
        message = (
            f"Batch {index} (counting from 0; examples {ids[0]} to {ids[-1]}) cannot be computed: "
            f"{reason_of(error)}. {_REMEDIES.get(type(error), _other_remedy(error))}"
        )
        raise BatchError(message) from error


_REMEDIES = {
    tf.errors.InvalidArgumentError: (
        "Check its inputs, and that class labels are below the number of classes."
    ),
    tf.errors.ResourceExhaustedError: "Make the batches smaller.",
}


def _other_remedy(error: tf.errors.OpError) -> str:
    return (
        f"TensorFlow raised {type(error).__name__}: it has no such computation, or not on this "
        "device. Check that the model and its loss run on it, or choose another strategy."
    )


def check_finite_inputs(batch: Any, index: int, ids: np.ndarray) -> None:
    """Refuse NaN and infinity in a batch itself: some layers, ReLU for one, would hide them.

    Raises
    ------
    NonFiniteError
        Names the batch and the first such example.
    """
    for part in tf.nest.flatten(batch):
        if not isinstance(part, tf.Tensor) or not part.dtype.is_floating:
            continue
        if not np.isfinite(tf.reduce_sum(part).numpy()):
            _report(part.numpy(), index, ids, 0)


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Keep TensorFlow from logging a failure that the caller is prepared for."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("FATAL")
    try:
        yield
    finally:
        logger.setLevel(level)


def _report(values: np.ndarray, index: int, ids: np.ndarray, axis: int | None) -> None:
    finite = np.isfinite(values)
    if finite.all():
        return  # the entries are finite, only their sum is not
    where = f"examples {ids[0]} to {ids[-1]}"
    if axis is not None:
        each = np.moveaxis(finite, axis, 0).reshape(len(ids), -1).all(axis=1)
        where = f"first for example {int(ids[np.argmin(each)])}"
    message = (
        f"Data and scores must be finite. Received: NaN or infinity from batch {index} (counting "
        f"from 0), {where}. Check its inputs and labels, and that the model's weights are finite."
    )
    raise NonFiniteError(message)
