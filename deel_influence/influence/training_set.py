"""The size of the training set, by which predicted changes are divided."""

from __future__ import annotations

import tensorflow as tf

from ..errors import EmptyDatasetError
from ..ihvp.base import InverseHessianVectorProduct
from ..utils.datasets import count_examples


def size_of_training_set(strategy: InverseHessianVectorProduct, dataset: tf.data.Dataset) -> int:
    """Return the number n of examples that training had.

    That is the size of the dataset; but a strategy that was fitted elsewhere, on the whole of what
    ``dataset`` is a part of, knows the size of the whole. One that was fitted on a sample of the
    dataset does not.

    Raises
    ------
    EmptyDatasetError
        If there are none.
    """
    known = strategy.num_train_examples or 0
    same = known > 0 and strategy.train_dataset is dataset
    count = known if same else max(known, count_examples(dataset))
    if count == 0:
        message = "Argument `dataset` must yield at least one example. Received: none."
        raise EmptyDatasetError(message)
    return count
