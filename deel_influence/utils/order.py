"""Whether a dataset comes in the same order on every pass."""

from __future__ import annotations

import weakref

import numpy as np
import tensorflow as tf

from ..errors import DatasetOrderError
from ..types import Batch
from .datasets import batch_size_of
from .reasons import readable
from .tensors import dense_dataset


class OrderGuard:
    """Refuse datasets whose first batch differs from pass to pass.

    What the first batch was is remembered, at the cost of reading a few thousand numbers of it. A
    dataset that was not read before is opened once more for it.
    """

    def __init__(self) -> None:
        self._first_batches: weakref.WeakKeyDictionary[tf.data.Dataset, list[bytes]] = (
            weakref.WeakKeyDictionary()
        )
        # Those whose first batch was the same twice.
        self._confirmed: weakref.WeakSet[tf.data.Dataset] = weakref.WeakSet()

    def check(self, dataset: tf.data.Dataset, argument: str) -> None:
        """Open a dataset, twice if nothing has read it, unless its order was confirmed before.

        Raises
        ------
        DatasetOrderError
            If positions in the dataset identify nothing.
        """
        if dataset not in self._confirmed:
            self.compare(dataset, _first_batch(dataset, argument), argument)

    def compare(self, dataset: tf.data.Dataset, first_batch: Batch, argument: str) -> None:
        """Compare the first batch of a pass with what it was before.

        Raises
        ------
        DatasetOrderError
            If it is another one.
        """
        before = self._first_batches.get(dataset)
        if before is None:
            before = fingerprint(_first_batch(dataset, argument))
        if before == fingerprint(first_batch):
            self._first_batches[dataset] = before
            self._confirmed.add(dataset)
            return
        option = "query_id_fn" if argument == "dataset_to_evaluate" else "id_fn"
        message = (
            f"Argument `{argument}` must yield its examples in the same order on every pass, "
            "because their positions are their ids. Received: a dataset whose first batch "
            "changed. Load it with shuffle=False or shuffle(..., reshuffle_each_iteration=False), "
            f"or pass `{option}=`, a function of a batch that returns the ids of its examples."
        )
        raise DatasetOrderError(message)

    def note(self, dataset: tf.data.Dataset, first_batch: Batch) -> None:
        """Remember the first batch of a pass in which the order does not matter."""
        self._first_batches.setdefault(dataset, fingerprint(first_batch))


def check_fixed_order(dataset: tf.data.Dataset, argument: str = "dataset") -> None:
    """Open a dataset twice, and refuse it if its first batch differs.

    Raises
    ------
    DatasetOrderError
        If positions in the dataset identify nothing.
    """
    OrderGuard().check(dataset, argument)


def fingerprint(batch: Batch | None) -> list[bytes]:
    """Return some thousand numbers, spread evenly over each tensor of a batch, as bytes."""
    if batch is None:
        return []
    flat = [np.ravel(t) for t in tf.nest.flatten(batch, expand_composites=True)]
    some = [values[:: max(len(values) // 4096, 1)] for values in flat]
    # The bytes of an array of strings are addresses, not texts.
    return [repr(v.tolist()).encode() if v.dtype == object else v.tobytes() for v in some]


def _first_batch(dataset: tf.data.Dataset, argument: str) -> Batch | None:
    """Return the first batch that is not empty, as `numbered_batches` would yield it."""
    batches = readable(dense_dataset(dataset), argument)
    return next((batch for batch in batches if batch_size_of(batch)), None)
