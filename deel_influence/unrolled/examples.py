"""Data that are read once and held in memory, with the ids of their examples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from ..model.influence_model import BaseInfluenceModel
from ..model.reading import check_density
from ..types import Data, IdFunction
from ..utils.datasets import Item, check_dataset, numbered_batches
from ..utils.digests import array_digest
from ..utils.example_ids import check_unique
from ..utils.intake import as_dataset


def read_examples(
    data: Data, argument: str, model: BaseInfluenceModel, id_fn: IdFunction | None = None
) -> tuple[Any, np.ndarray]:
    """Return data in any form as one nest of tensors ``(n, ...)``, and their ids ``(n,)``.

    Raises
    ------
    DeelInfluenceError
        If the data cannot be gone over.
    ValueError
        If examples have the same id, or other shapes than others.
    """
    dataset = as_dataset(data, argument, model)
    check_dataset(dataset, argument, model.input_rank)
    check_density(dataset, argument, model)
    process = model.process_batch_for_loss_fn
    read = list(numbered_batches(dataset, id_fn, argument, lambda batch: process(batch)[0]))
    batches = [batch for batch, _ in read]
    try:
        nest = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *batches)
    except tf.errors.InvalidArgumentError as error:
        message = (
            f"Argument `{argument}` must hold examples of one shape. Received: batches of several. "
            "Pad the examples to a fixed length."
        )
        raise ValueError(message) from error
    return nest, check_unique(np.concatenate([ids for _, ids in read]), argument)


def items_of(nest: Any, ids: np.ndarray, size: int) -> Iterator[Item]:
    """Yield examples that are held in memory in batches of ``size``."""
    for index, item in enumerate(Item(0, ids, nest).pieces(size)):
        yield replace(item, index=index)


def digest_of(nest: Any, ids: np.ndarray) -> str:
    """Return a text that changes with any number of any example, the order, and the ids."""
    return array_digest(*(part.numpy() for part in tf.nest.flatten(nest)), ids)
