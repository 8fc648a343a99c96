"""Datasets of what yields batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import tensorflow as tf

from ..errors import BatchError
from .conversion import tensor_of
from .lazy import lazy_dataset


def of_batches(start: Callable[[], Iterable[Any]], size: int | None, argument: str) -> Any:
    """Make a dataset of what yields batches, anew for each pass."""

    def batches() -> Iterator[Any]:
        for batch in start():
            yield _as_batch(batch, argument)

    first = list(islice(batches(), 2))
    if not first:
        return tf.data.Dataset.from_tensors(tf.zeros((0, 1)))
    spec = tf.nest.map_structure(_common_spec, first[0])
    if _has_structure(first[-1], spec):
        # Of two batches, so that an axis that varies is known to.
        spec = tf.nest.map_structure(_common_spec, *first)
    else:
        _fitting(first[-1], spec, 1, argument)

    def generate() -> Iterator[Any]:
        for number, batch in enumerate(batches()):
            yield _fitting(batch, spec, number, argument)

    return lazy_dataset(generate, spec, size)


def _as_batch(batch: Any, argument: str) -> Any:
    """Return a batch of arrays as one of tensors, lists as tuples."""
    if isinstance(batch, dict):
        return {name: _as_batch(part, argument) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(_as_batch(part, argument) for part in batch if part is not None)
    return tensor_of(batch, argument)


def _common_spec(*parts: tf.Tensor) -> tf.TypeSpec:
    shapes = [part.shape for part in parts]
    if not all(isinstance(part, tf.Tensor) for part in parts) or not shapes[0].rank:
        return tf.type_spec_from_value(parts[0])
    axes = [a[0] if len(set(a)) == 1 else None for a in zip(*shapes, strict=False)]
    return tf.TensorSpec([None, *axes[1:]], parts[0].dtype)


def _has_structure(batch: Any, spec: Any) -> bool:
    try:
        tf.nest.assert_same_structure(batch, spec)
    except (TypeError, ValueError):
        return False
    return True


def _fitting(batch: Any, spec: Any, number: int, argument: str) -> Any:
    """Return a batch that has the form of the first ones."""
    pairs = zip(tf.nest.flatten(batch), tf.nest.flatten(spec), strict=False)
    if _has_structure(batch, spec) and all(one.is_compatible_with(part) for part, one in pairs):
        return batch
    found = [f"{tuple(part.shape)} {part.dtype.name}" for part in tf.nest.flatten(batch)]
    message = (
        f"Argument `{argument}` must yield batches of one form. Received: batch {number} (counting "
        f"from 0) of {', '.join(found)}, which the first ones are not. Pad sequences to one length."
    )
    raise BatchError(message)
