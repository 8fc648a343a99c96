"""Running a compiled kernel on a batch, with errors that name the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import BatchError, DeelInfluenceError, NonFiniteError
from .datasets import Item
from .kernels import Kernel
from .reasons import reason_of
from .tensors import described


def run(
    kernel: Kernel,
    item: Item,
    arguments: tuple,
    device: str | None = None,
    axis: int | None = -1,
) -> Any:
    """Run a kernel on a batch and refuse NaN and infinity in the batch and the result.

    Parameters
    ----------
    kernel, arguments, device
        What to run, on what, and where.
    item
        Which batch it is.
    axis
        Which axis of the result, a nest of tensors, is the batch; None where it has none.

    Raises
    ------
    BatchError
        If TensorFlow or Keras refuses the batch, for instance a class label beyond the last class.
    NonFiniteError
        Names the batch and the first example that gave such a value.
    """
    if not kernel.is_compiled:  # Python code may fail in its own way where there is NaN
        check_finite_inputs(item)
    # The batch; what else is handed over shows in the result.
    places = tuple(i for i, argument in enumerate(arguments) if argument is item.batch)
    with _named(item):
        values, finite = kernel.checked(*arguments, device=device, looked_at=places)
    if not finite:
        check_finite_inputs(item)
        _check_finite(values, item, axis)
    return values


def named_by_part(compute: Callable[[Item], Any], item: Item) -> Any:
    """Compute a batch; an error of one that was joined is that of the part that it comes from."""
    try:
        return compute(item)
    except (BatchError, NonFiniteError):
        for part in item.parts:
            compute(part)
        raise


def call(kernel: Kernel, item: Item, arguments: tuple, device: str | None = None) -> Any:
    """Run a kernel on a batch, without looking at its numbers, which would wait for them.

    Raises
    ------
    BatchError
        If TensorFlow or Keras refuses the batch.
    """
    with _named(item):
        return kernel(*arguments, device=device)


@contextmanager
def _named(item: Item) -> Iterator[None]:
    """Say which batch it was if TensorFlow or Keras refuses it."""
    try:
        yield
    except DeelInfluenceError:
        raise
    except (ValueError, TypeError, tf.errors.OpError) as error:
        if str(error).startswith("Argument `"):  # which says it all
            raise
        check_finite_inputs(item)
        first, last = item.ids[0], item.ids[-1]
        message = (
            f"Batch {item.index} (counting from 0; examples {first} to {last}) must be one that "
            f"the model and its loss take. Received: {described(item.batch)}, which fails with: "
            f"{reason_of(error)}. {_REMEDIES.get(type(error), _other_remedy(error))}"
        )
        raise BatchError(message) from error


_UNFIT = "Check that its inputs are what the model takes."
_REMEDIES: dict[type[Exception], str] = {
    ValueError: _UNFIT,
    TypeError: _UNFIT,
    tf.errors.InvalidArgumentError: (
        "Check its inputs, and that class labels are below the number of classes."
    ),
    tf.errors.ResourceExhaustedError: "Make the batches smaller.",
}


def _other_remedy(error: Exception) -> str:
    return (
        f"TensorFlow raised {type(error).__name__}: it has no such computation, or not on this "
        "device. Check that the model and its loss run on it, or choose another strategy."
    )


def check_finite_inputs(item: Item) -> None:
    """Refuse NaN and infinity in a batch itself: some layers, ReLU for one, would hide them.

    Raises
    ------
    NonFiniteError
        Names the batch and the first such example.
    """
    _check_finite(item.batch, item, 0)


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


def _check_finite(nest: Any, item: Item, axis: int | None) -> None:
    for part in tf.nest.flatten(nest):
        if isinstance(part, tf.Tensor) and part.dtype.is_floating:
            finite = np.isfinite(part.numpy())
            if not finite.all():
                _refuse(finite, item, axis)


def _refuse(finite: np.ndarray, item: Item, axis: int | None) -> None:
    ids = item.ids
    where = f"examples {ids[0]} to {ids[-1]}"
    if axis is not None and finite.shape[axis] == len(ids):
        each = np.moveaxis(finite, axis, 0).reshape(len(ids), -1).all(axis=1)
        where = f"first for example {ids[np.argmin(each)]}"
    message = (
        f"Data and scores must be finite. Received: NaN or infinity from batch {item.index} "
        f"(counting from 0), {where}. Check its inputs and labels, and that the model's weights "
        "are finite."
    )
    raise NonFiniteError(message)
