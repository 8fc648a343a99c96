"""A training set and what is known about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from ..utils.example_ids import attach_ids, ids_of, with_names
from .cutting import bounds_of, shard_of


@dataclass(frozen=True)
class Rows:
    """The n examples of a source, any run of which can be read without those before it.

    Attributes
    ----------
    count
        The number n.
    batch_size
        Examples in a batch.
    read
        Returns the batches of the examples from one place up to another.
    """

    count: int
    batch_size: int
    read: Callable[[int, int], tf.data.Dataset]

    def shard(self, number: int, count: int) -> tuple[int, int, tf.data.Dataset]:
        """Return the place of a shard's first example, its end, and its batches."""
        num_batches = -(-self.count // self.batch_size)
        first, last = (
            min(place * self.batch_size, self.count)
            for place in bounds_of(num_batches, number, count)
        )
        return first, last, self.read(first, last)


@dataclass(frozen=True, eq=False)
class DataSource:
    """A training set of n examples, in batches and in a fixed order, with its names.

    Attributes
    ----------
    name
        How the user calls it.
    dataset
        Batches ``(x, y)``, the same examples in the same order at every pass.
    ids
        Ids of the examples, integers or texts, shape ``(n,)``, which go with the dataset; None
        means their positions, from 0.
    class_names
        What the labels 0, 1, ... mean, where the source says it.
    feature_names
        What the columns of ``x`` mean, where the source says it.
    file_names
        The file of each example, n of them, where each example is a file.
    rows
        The same examples by their places; None where those before are read to get at one.
    """

    name: str
    dataset: tf.data.Dataset
    ids: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    file_names: tuple[str, ...] | None = None
    rows: Rows | None = None

    def __post_init__(self) -> None:
        """Have the names go with the dataset."""
        if self.ids is not None:
            attach_ids(self.dataset, self.ids)
        object.__setattr__(self, "ids", ids_of(self.dataset))
        names = {"class_names": self.class_names, "feature_names": self.feature_names}
        with_names(self.dataset, **names)

    def shard(self, number: int, num_shards: int) -> DataSource:
        """Return one of several runs of whole batches, with the ids of the whole.

        Parameters
        ----------
        number
            Which one, from 0.
        num_shards
            Of how many, as even as batches allow.

        Raises
        ------
        ValueError
            If there is no such shard, or are fewer batches than shards.
        """
        if self.rows is None:
            first, last, dataset = shard_of(self.dataset, number, num_shards)
        else:
            first, last, dataset = self.rows.shard(number, num_shards)
        ids = np.arange(first, last) if self.ids is None else self.ids[first:last]
        files = self.file_names and self.file_names[first:last]
        return replace(self, dataset=dataset, ids=ids, file_names=files, rows=None)


def stream_arrays(*arrays: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """Return arrays of n rows each as a prefetched dataset of batches, in their order."""
    return batched(tf.data.Dataset.from_tensor_slices(arrays), batch_size)


def batched(dataset: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    """Return a dataset of single examples as prefetched batches.

    Raises
    ------
    ValueError
        If ``batch_size`` is no positive integer.
    """
    return dataset.batch(check_batch_size(batch_size)).prefetch(tf.data.AUTOTUNE)


def check_batch_size(batch_size: int) -> int:
    """Return ``batch_size`` if it is a positive integer.

    Raises
    ------
    ValueError
        If it is not.
    """
    is_integer = isinstance(batch_size, int | np.integer) and not isinstance(batch_size, bool)
    if not is_integer or batch_size < 1:
        message = (
            "Argument `batch_size` must be an integer of at least 1. "
            f"Received: batch_size={batch_size!r}."
        )
        raise ValueError(message)
    return int(batch_size)
