"""What batches are made of: dense tensors, sparse ones, which are made dense, and ragged ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def dense(nest: Any) -> Any:
    """Return a nest of tensors with the sparse ones made dense; all others stay as they are."""
    return tf.nest.map_structure(_dense, nest)


def dense_dataset(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Return a dataset whose sparse tensors are made dense; itself where it has none.

    Examples of sparse tensors can be neither cut out of a batch nor put together to one.
    """
    specs = tf.nest.flatten(dataset.element_spec)
    if not any(isinstance(spec, tf.SparseTensorSpec) for spec in specs):
        return dataset
    in_parts = isinstance(dataset.element_spec, tuple)
    return dataset.map(lambda *parts: dense(parts if in_parts else parts[0]))


def is_ragged(nest: Any) -> bool:
    """Tell whether a nest of tensors, or of their types, holds a ragged one."""
    ragged = (tf.RaggedTensor, tf.RaggedTensorSpec)
    return any(isinstance(part, ragged) for part in tf.nest.flatten(nest))


def described(nest: Any) -> str:
    """Tell the shapes of the tensors in a batch, for messages."""
    shapes = [str(tuple(part.shape)) for part in tf.nest.flatten(nest) if hasattr(part, "shape")]
    return f"a batch of shapes {', '.join(shapes)}"


def stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays of one rank along a new first axis, with zeros or empty texts at their ends.

    Parameters
    ----------
    arrays
        NumPy arrays, such as sequences of several lengths; the longest gives the shape.
    """
    shape = np.max([array.shape for array in arrays], axis=0).astype(int)
    empty = b"" if arrays[0].dtype == object else 0
    result = np.full((len(arrays), *shape), empty, arrays[0].dtype)
    for index, array in enumerate(arrays):
        place: tuple[Any, ...] = (index, *(slice(size) for size in array.shape), ...)
        result[place] = array
    return result


def _dense(part: Any) -> Any:
    return tf.sparse.to_dense(part) if isinstance(part, tf.SparseTensor) else part
