"""Inputs and labels that are held as tensors, and read by rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ..utils.digests import array_digest


class InMemoryData:
    """Examples as one nest of tensors.

    Parameters
    ----------
    parts
        Arrays, or tuples, lists and dicts of arrays, whose rows are the examples.
    names
        Their names, for the message.

    Raises
    ------
    ValueError
        If they have no rows, or not the same number.
    """

    def __init__(self, parts: tuple[Any, ...], names: tuple[str, ...]) -> None:
        self.tensors = tuple(_as_tensors(part) for part in parts)
        flat = tf.nest.flatten(self.tensors)
        sizes = sorted({int(t.shape[0]) if t.shape.rank else 0 for t in flat})
        if len(sizes) != 1 or sizes[0] == 0:
            message = (
                f"Argument {' and '.join(f'`{name}`' for name in names)} must have one row for "
                f"each example, and at least one. Received: {' and '.join(map(str, sizes))} rows."
            )
            raise ValueError(message)
        self.num_examples = sizes[0]

    def to_float64(self) -> None:
        """Hold floating values as float64, and leave the others."""

        def widened(tensor: tf.Tensor) -> tf.Tensor:
            return tf.cast(tensor, tf.float64) if tensor.dtype.is_floating else tensor

        self.tensors = tf.nest.map_structure(widened, self.tensors)

    def digest(self) -> str:
        """Return a text that changes with any number of any row."""
        return array_digest(*(tensor.numpy() for tensor in tf.nest.flatten(self.tensors)))

    def slice(self, start: Any, end: Any) -> Any:
        """Return the rows from ``start`` to before ``end``; both may be tensors."""
        return tf.nest.map_structure(lambda tensor: tensor[start:end], self.tensors)

    def rows(self, positions: tf.Tensor) -> Any:
        """Return the rows at ``positions``, int, shape ``(b,)``."""
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, positions), self.tensors)


def _as_tensors(part: Any) -> Any:
    """Keep the structure of several arrays; a list of numbers is one array."""
    if isinstance(part, dict):
        return {name: _as_tensors(value) for name, value in part.items()}
    several = isinstance(part, (tuple, list)) and all(
        isinstance(value, (np.ndarray, tf.Tensor)) and value.ndim > 0 for value in part
    )
    if several and len(part):
        return tuple(tf.convert_to_tensor(value) for value in part)
    return tf.convert_to_tensor(part)
