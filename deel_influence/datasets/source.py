"""A training set and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from ..utils.example_ids import attach_ids, ids_of, with_names


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
    """

    name: str
    dataset: tf.data.Dataset
    ids: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    file_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Have the names go with the dataset."""
        if self.ids is not None:
            attach_ids(self.dataset, self.ids)
        object.__setattr__(self, "ids", ids_of(self.dataset))
        names = {"class_names": self.class_names, "feature_names": self.feature_names}
        with_names(self.dataset, **names)


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
