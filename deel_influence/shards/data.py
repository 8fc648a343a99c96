"""Shards of a training set as values, which other processes can open."""

from __future__ import annotations

import functools
import inspect
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ..datasets.cutting import bounds_of
from ..datasets.source import DataSource, check_batch_size
from ..datasets.sources import load_source
from ..model.influence_model import BaseInfluenceModel
from ..utils.datasets import count_examples
from ..utils.example_ids import attach_ids, ids_of
from ..utils.intake import BATCH_SIZE, as_dataset


@dataclass(frozen=True, eq=False)
class Shard:
    """Some batches of a training set, as a value that another process can open.

    `split` makes them. By hand, each is made of data of its own, such as
    ``Shard(functools.partial(read, files))``; the examples need ids of their own then.

    Attributes
    ----------
    data
        A path or another text that `load_source` takes, a function without arguments that returns
        data or a `DataSource`, or the data themselves. To go to another process they are pickled,
        which no dataset of TensorFlow can be: of these, pass a path or a function.
    number, count
        Which of how many runs of whole batches of the data, from 0. By default all of it.
    batch_size
        Examples in a batch, where the data are not in batches.
    first
        The place of the first example in the whole training set, where ``data`` are some of its
        rows.
    """

    data: Any
    number: int = 0
    count: int = 1
    batch_size: int = BATCH_SIZE
    first: int | None = None

    def open(self, model: BaseInfluenceModel | None = None) -> tf.data.Dataset:
        """Return the batches, with the ids that they have in the whole training set.

        Parameters
        ----------
        model
            The wrapped model that they are for.

        Raises
        ------
        DataSourceError
            If there is no such source.
        ValueError
            If there are fewer batches than shards.
        """
        data = self.data
        if isinstance(data, str | os.PathLike):
            network = None if model is None else model.model
            data = load_source(data, self.batch_size, model=network)
        elif _is_function(data):
            data = data()
        if not isinstance(data, DataSource):
            data = DataSource("data", as_dataset(data, "data", model, self.batch_size))
        if self.count > 1:
            return data.shard(self.number, self.count).dataset
        dataset = data.dataset
        if self.first is not None and ids_of(dataset) is None:
            ids = np.arange(self.first, self.first + count_examples(dataset))
            attach_ids(dataset, ids)
        return dataset


def split(train_set: Any, num_shards: int, batch_size: int = BATCH_SIZE) -> list[Shard]:
    """Cut a training set into shards of whole batches, as even as these allow.

    Each batch of a shard is one that the whole has, so that scores are the same to the last bit.

    Parameters
    ----------
    train_set
        As ``data`` of a `Shard`. Of arrays, such as ``(x, y)``, a shard holds its rows; all else is
        opened by whoever computes. Images, TensorFlow Datasets and saved datasets of examples are
        read from the place of the shard on; of other datasets, what is before is read as well.
    num_shards
        How many: for balance, some times the number of workers.
    batch_size
        Examples in a batch, where the data are not in batches.

    Raises
    ------
    ValueError
        If a number is out of its range, or there are fewer batches than shards of arrays.
    """
    check_batch_size(batch_size)
    if not _is_rows(train_set):
        bounds_of(num_shards, 0, num_shards)
        return [Shard(train_set, number, num_shards, batch_size) for number in range(num_shards)]
    n = len(_leaf(train_set))
    shards = []
    for number in range(num_shards):
        run = bounds_of(-(-n // batch_size), number, num_shards)
        first, last = (min(place * batch_size, n) for place in run)
        shards.append(Shard(_rows(train_set, first, last), 0, 1, batch_size, first))
    return shards


def _is_function(data: Any) -> bool:
    return inspect.isroutine(data) or isinstance(data, functools.partial)


def _is_rows(data: Any) -> bool:
    """Tell whether it is arrays, DataFrames, or tuples and dicts of them, which can be sliced."""
    if isinstance(data, tuple):
        return bool(data) and all(part is None or _is_rows(part) for part in data)
    if isinstance(data, dict):
        return bool(data) and all(map(_is_rows, data.values()))
    return hasattr(data, "__array__") or hasattr(data, "iloc")


def _leaf(data: Any) -> Any:
    while isinstance(data, tuple | dict):
        data = next(iter(data.values() if isinstance(data, dict) else data))
    return data


def _rows(data: Any, first: int, last: int) -> Any:
    if isinstance(data, tuple):
        return tuple(_rows(part, first, last) for part in data)
    if isinstance(data, dict):
        return {name: _rows(part, first, last) for name, part in data.items()}
    return None if data is None else getattr(data, "iloc", data)[first:last]
