"""Training sets written by `tf.data.Dataset.save`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from ..errors import DataSourceError
from .source import DataSource, Rows, batched

_SPEC_FILE = "dataset_spec.pb"
_REMEDY = "Write it anew with tf.data.Dataset.save(FOLDER), single examples or batches of (x, y)."


def is_saved_dataset(path: Path) -> bool:
    """Tell whether ``path`` is a folder that `tf.data.Dataset.save` wrote."""
    return (path / _SPEC_FILE).is_file()


def load_saved_dataset(path: Path, batch_size: int) -> DataSource:
    """Load a saved dataset of ``(x, y)``; batches are cut anew to ``batch_size`` examples.

    Parameters
    ----------
    path
        The folder.
    batch_size
        Examples in a batch.

    Raises
    ------
    DataSourceError
        If the folder is unreadable or empty, or its elements are not ``(x, y)``.
    """
    dataset = _read(path)
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        message = (
            f"The saved dataset must yield tuples (x, y) or (x, y, sample_weight). "
            f"Received: {str(path)!r} with elements {spec}. {_REMEDY}"
        )
        raise DataSourceError(message)
    if _yields_batches(spec):
        in_batches = dataset.rebatch(batch_size).prefetch(tf.data.AUTOTUNE)
        return DataSource(path.name, in_batches)

    def read(first: int, last: int) -> tf.data.Dataset:
        return batched(dataset.skip(first).take(last - first), batch_size)

    # The folder tells how many elements it has.
    count = int(tf.data.experimental.cardinality(dataset))
    rows = Rows(count, batch_size, read) if count > 0 else None
    return DataSource(path.name, batched(dataset, batch_size), rows=rows)


def _read(path: Path) -> tf.data.Dataset:
    try:
        # TensorFlow's default interleaves as many shards as it has threads, so that the order
        # would depend on the machine; one shard after the other is the same everywhere.
        dataset = tf.data.Dataset.load(str(path), reader_func=_one_after_the_other)
        is_empty = next(iter(dataset.take(1)), None) is None
    except (tf.errors.OpError, DecodeError, ValueError) as error:
        message = (
            f"The saved dataset must be readable. Received: {str(path)!r}, which fails with: "
            f"{error} {_REMEDY}"
        )
        raise DataSourceError(message) from error
    if is_empty:
        message = (
            f"The saved dataset must hold at least one example. "
            f"Received: {str(path)!r}, which is empty. {_REMEDY}"
        )
        raise DataSourceError(message)
    return dataset


def _one_after_the_other(shards: tf.data.Dataset) -> tf.data.Dataset:
    return shards.flat_map(lambda shard: shard)


def _yields_batches(spec: Any) -> bool:
    """Tell batches from single examples by the leading axes of ``x`` and ``y``.

    Batches have as many labels as inputs: both axes unknown, as a partial last batch leaves them,
    or the same number. A single example's label is a scalar, or a vector of its own length.
    """
    leading = []
    for leaf in tf.nest.flatten(spec):
        if leaf.shape.rank is None or leaf.shape.rank == 0:
            return False
        leading.append(leaf.shape[0])
    return len(set(leading)) == 1
