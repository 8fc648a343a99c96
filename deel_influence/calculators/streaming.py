"""Checking datasets, and going through their batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ..gradients.engine import GradientEngine
from ..types import Batch, IdFunction
from ..utils.datasets import check_dataset, numbered_batches
from ..utils.devices import check_device
from ..utils.progress import progress_bar
from ..utils.running import check_finite_inputs


def check_examples(
    engine: GradientEngine, dataset: Any, argument: str, id_fn: IdFunction | None
) -> None:
    """Refuse a dataset that cannot be scored: unbatched, endless, or without lasting ids."""
    check_dataset(dataset, argument, engine.model.input_rank)
    if id_fn is None:
        engine.order_guard.check(dataset, argument)


def check_pair(
    engine: GradientEngine,
    dataset_to_evaluate: Any,
    train_set: Any,
    id_fn: IdFunction | None,
    device: str | None,
) -> None:
    """Refuse queries or training examples that cannot be scored, or a device that is not there."""
    check_examples(engine, dataset_to_evaluate, "dataset_to_evaluate", id_fn)
    check_examples(engine, train_set, "train_set", id_fn)
    check_device(device)


def stream(
    engine: GradientEngine,
    dataset: tf.data.Dataset,
    id_fn: IdFunction | None,
    description: str,
    verbose: str | int,
    argument: str = "train_set",
) -> Iterator[tuple[int, Batch, np.ndarray]]:
    """Yield index, batch and ids ``(b,)`` for each batch, the engine prepared, under a bar."""
    batches = progress_bar(numbered_batches(dataset, id_fn, argument), description, None, verbose)
    for index, (batch, ids) in enumerate(batches):
        if index == 0 and id_fn is None:
            engine.order_guard.compare(dataset, batch, argument)
        check_finite_inputs(batch, index, ids)
        engine.prepare(batch)
        yield index, batch, ids
