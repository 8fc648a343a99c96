"""Rows that a compiled training step writes and that the host reads now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import NonFiniteError
from ..utils.content_keys import content_keys

ROWS_KEPT = 2**17
"""How many examples the device keeps, at least, before the host reads them."""

BYTES_KEPT = 2**26
"""How many bytes of wide rows it keeps, at least those of one call of the train function."""

CALLS_KEPT = 32
"""How many calls of the train function go by at most: reading waits for the device."""


class StepRecorder:
    """Write the key and q numbers of each example of a training step.

    The rows go into tables of a fixed size, as XLA needs them, from the top; the host empties them
    long before they are full.

    Parameters
    ----------
    width
        The number q.
    dtype
        That of the numbers.
    id_fn
        Reads ids off ``(x, y)``, traceably; None makes keys of their content.
    rows_per_call
        How many examples one call of the train function has at most; None if that is not known.
    is_finite
        Whether the numbers have to be finite.
    """

    def __init__(
        self,
        width: int,
        dtype: tf.DType,
        id_fn: Callable[[Any], Any] | None = None,
        rows_per_call: int | None = None,
        is_finite: bool = False,
    ) -> None:
        self._dtype = dtype
        self._id_fn = id_fn
        self._is_finite = is_finite
        # Of rows as narrow as usual there is room for ROWS_KEPT.
        self._capacity = max(min(ROWS_KEPT, BYTES_KEPT // (width * dtype.size)), rows_per_call or 0)
        self._largest_call = rows_per_call or 0
        self._calls = 0
        self._rows: list[tuple[np.ndarray, np.ndarray]] = []
        # One row more takes what is too much, which then shows in the count.
        rows = self._capacity + 1
        self._keys = tf.Variable(tf.zeros(rows, tf.int64), trainable=False)
        self._values = tf.Variable(tf.zeros((rows, width), dtype), trainable=False)
        # int64, because a GPU keeps no int32 variables.
        self._count = tf.Variable(tf.constant(0, tf.int64), trainable=False)

    @property
    def largest_call(self) -> int:
        """How many examples a call of the train function had at most, as far as it was read."""
        return self._largest_call

    def write(self, x: Any, y: Any, values: tf.Tensor) -> None:
        """Write the rows ``(b, q)`` of a batch; runs inside the training step."""
        keys = example_keys(x, y, self._id_fn)
        size = tf.shape(keys, tf.int64)[0]
        rows = tf.minimum(self._count + tf.range(size), self._capacity)
        values = tf.stop_gradient(tf.cast(values, self._dtype))
        self._keys.scatter_update(tf.IndexedSlices(keys, rows))
        self._values.scatter_update(tf.IndexedSlices(values, rows))
        self._count.assign_add(size)

    def call_ended(self) -> None:
        """Count a call of the train function, and empty the tables in time."""
        self._calls += 1
        # Half of the room stays free for batches that are larger than those before.
        rows = 2 * (self._largest_call or self._capacity)
        if self._calls >= min(CALLS_KEPT, self._capacity // rows):
            self.read()

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the keys ``(r,)`` and the statistics ``(r, q)`` since the last `take`."""
        self.read()
        rows, self._rows = self._rows, []
        return np.concatenate([k for k, _ in rows]), np.concatenate([v for _, v in rows])

    def read(self) -> None:
        """Move the rows to the host.

        Raises
        ------
        ValueError
            If there were too many for the tables.
        NonFiniteError
            If numbers that have to be finite are not.
        """
        count = int(self._count.numpy())
        if count > self._capacity:
            message = (
                "Argument `batch_size` of TrainingDynamics must be given for batches this large. "
                f"Received: {count} examples in {max(self._calls, 1)} calls of the train function, "
                f"where {self._capacity} fit. Pass TrainingDynamics(batch_size=...)."
            )
            raise ValueError(message)
        values = self._values[:count].numpy()
        if self._is_finite and not np.isfinite(values).all():
            message = (
                "What a training step does must be finite to be recorded. Received: NaN or "
                f"infinity within the last {max(self._calls, 1)} steps: the loss, a gradient or "
                "the learning rate was. Lower the learning rate, or clip the gradients."
            )
            raise NonFiniteError(message)
        self._rows.append((self._keys[:count].numpy(), values))
        if self._calls:
            self._largest_call = max(self._largest_call, -(-count // self._calls))
        self._count.assign(0)
        self._calls = 0


def example_keys(x: Any, y: Any, id_fn: Callable[[Any], Any] | None) -> tf.Tensor:
    """Return the keys of examples, int64, shape ``(b,)``.

    Where a function gives ids, a whole number is its own key, and a string's is its hash.
    """
    if id_fn is None:
        return content_keys(x, y)
    ids = tf.reshape(id_fn((x, y)), (-1,))
    if ids.dtype == tf.string:
        return tf.strings.to_hash_bucket_fast(ids, 2**63 - 1)
    return tf.cast(ids, tf.int64)
