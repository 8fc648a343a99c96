"""Shards of a dataset: runs of whole batches, so that each batch is one that the whole has."""

from __future__ import annotations

import tensorflow as tf

from ..linalg.checks import check_shard
from ..utils.datasets import batch_sizes
from ..utils.example_ids import names_of, with_names


def bounds_of(num_batches: int, number: int, num_shards: int) -> tuple[int, int]:
    """Return the first batch of a shard, and the one after its last.

    Raises
    ------
    ValueError
        If there is no such shard, or are fewer batches than shards.
    """
    number, num_shards = check_shard(number, num_shards)
    if num_shards > num_batches:
        message = (
            f"Argument `num_shards` must be at most the number of batches, {num_batches}. "
            f"Received: {num_shards}. Cut the data into fewer shards, or into smaller batches."
        )
        raise ValueError(message)
    return number * num_batches // num_shards, (number + 1) * num_batches // num_shards


def shard_of(
    dataset: tf.data.Dataset, number: int, num_shards: int
) -> tuple[int, int, tf.data.Dataset]:
    """Return the place of a shard's first example in the whole, its end, and its batches.

    The dataset is read once to count, and the batches before the shard whenever it is.

    Parameters
    ----------
    dataset
        The whole, batched.
    number, num_shards
        Which shard, from 0, of how many.

    Raises
    ------
    ValueError
        As `bounds_of`.
    """
    sizes = batch_sizes(dataset)
    first, last = bounds_of(len(sizes), number, num_shards)
    known = names_of(dataset)
    part = with_names(
        dataset.skip(first).take(last - first),
        class_names=known.class_names,
        feature_names=known.feature_names,
        find_unreadable=known.find_unreadable,
    )
    return int(sizes[:first].sum()), int(sizes[:last].sum()), part
