"""Rows that a compiled training step writes and that the host reads now and then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ..utils.content_keys import content_keys

ROWS_KEPT = 2**17
"""How many examples the device keeps, at least, before the host reads them."""

CALLS_KEPT = 32
"""How many calls of the train function go by at most: reading waits for the device."""

Statistic = Callable[[Any, Any], tf.Tensor]
"""``statistic(targets, outputs)``, one number for each example, shape ``(b,)``."""


class StepRecorder:
    """Write the key and the statistics of each example of a training step.

    The rows go into tables of a fixed size, as XLA needs them, from the top; the host empties them
    long before they are full.

    Parameters
    ----------
    statistics
        Functions of targets and outputs by name; q of them.
    dtype
        That of the statistics.
    id_fn
        Reads ids off ``(x, y)``, traceably; None makes keys of their content.
    rows_per_call
        How many examples one call of the train function has at most; None if that is not known.
    """

    def __init__(
        self,
        statistics: Mapping[str, Statistic],
        dtype: tf.DType,
        id_fn: Callable[[Any], Any] | None = None,
        rows_per_call: int | None = None,
    ) -> None:
        self._statistics = dict(statistics)
        self._dtype = dtype
        self._id_fn = id_fn
        self._capacity = max(ROWS_KEPT, rows_per_call or 0)
        self._largest_call = rows_per_call or 0
        self._calls = 0
        self._rows: list[tuple[np.ndarray, np.ndarray]] = []
        # One row more takes what is too much, which then shows in the count.
        rows, width = self._capacity + 1, len(self._statistics)
        self._keys = tf.Variable(tf.zeros(rows, tf.int64), trainable=False)
        self._values = tf.Variable(tf.zeros((rows, width), dtype), trainable=False)
        # int64, because a GPU keeps no int32 variables.
        self._count = tf.Variable(tf.constant(0, tf.int64), trainable=False)

    def note(self, x: Any, y: Any, y_pred: Any) -> None:
        """Write the rows of a batch; runs inside the training step."""
        keys = example_keys(x, y, self._id_fn)
        columns = [function(y, y_pred) for function in self._statistics.values()]
        values = tf.stack([tf.cast(column, self._dtype) for column in columns], axis=1)
        size = tf.shape(keys, tf.int64)[0]
        rows = tf.minimum(self._count + tf.range(size), self._capacity)
        self._keys.scatter_update(tf.IndexedSlices(keys, rows))
        self._values.scatter_update(tf.IndexedSlices(tf.stop_gradient(values), rows))
        self._count.assign_add(size)

    def call_ended(self) -> None:
        """Count a call of the train function, and empty the tables in time."""
        self._calls += 1
        # Half of the room stays free for batches that are larger than those before.
        rows = 2 * (self._largest_call or self._capacity)
        if self._calls >= min(CALLS_KEPT, self._capacity // rows):
            self._read()

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the keys ``(r,)`` and the statistics ``(r, q)`` since the last `take`."""
        self._read()
        rows, self._rows = self._rows, []
        return np.concatenate([k for k, _ in rows]), np.concatenate([v for _, v in rows])

    def _read(self) -> None:
        """Move the rows to the host.

        Raises
        ------
        ValueError
            If there were too many for the tables.
        """
        count = int(self._count.numpy())
        if count > self._capacity:
            message = (
                "Argument `batch_size` of TrainingDynamics must be given for batches this large. "
                f"Received: {count} examples in {max(self._calls, 1)} calls of the train function, "
                f"where {self._capacity} fit. Pass TrainingDynamics(batch_size=...)."
            )
            raise ValueError(message)
        self._rows.append((self._keys[:count].numpy(), self._values[:count].numpy()))
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
