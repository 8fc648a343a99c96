"""Keeping the few examples that top-k lists name, while a dataset streams past."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from ..model.influence_model import BaseInfluenceModel
from ..types import Batch
from ..utils.example_ids import attach_ids
from ..utils.lazy import lazy_dataset
from ..utils.tensors import stacked
from .specs import relaxed_element_spec


class SamplePool:
    """The inputs of the examples that are in some list at the moment.

    Memory is bounded by the number of list entries, not by the dataset.

    Parameters
    ----------
    model
        Tells which part of a batch the inputs are.
    """

    def __init__(self, model: BaseInfluenceModel) -> None:
        self._model = model
        self._samples: dict[Any, list[np.ndarray]] = {}
        self._structure: Any = None

    def update(self, batch: Batch, ids: np.ndarray, wanted: np.ndarray) -> None:
        """Take in what is wanted of a batch, and let go of what no list names any more.

        Parameters
        ----------
        batch
            A batch of the dataset.
        ids
            Ids of its examples, shape ``(b,)``.
        wanted
            Ids in the lists after this batch, any shape.
        """
        inputs = self._model.process_batch_for_loss_fn(batch)[0]
        self._structure = tf.nest.map_structure(lambda _: 0, inputs)
        wanted = np.unique(wanted)
        leaves = None
        for position in np.flatnonzero(np.isin(ids, wanted)):
            # Only a batch that made it into a list is brought to the host.
            leaves = leaves or [np.asarray(leaf) for leaf in tf.nest.flatten(inputs)]
            key = ids[position].item()
            if key in self._samples:
                message = (
                    "Argument `id_fn` must give every example an id of its own. Received: "
                    f"{key!r} for two of the examples."
                )
                raise ValueError(message)
            self._samples[key] = [leaf[position, ...] for leaf in leaves]
        if len(self._samples) > 2 * len(wanted):
            self._samples = {key: self._samples[key] for key in wanted.tolist()}

    def collect(self, ids: np.ndarray) -> Any:
        """Return the inputs named by ``ids`` ``(m, k)``, each tensor of shape ``(m, k, ...)``.

        Where batches are padded to lengths of their own, the longest of these inputs gives it.
        """
        rows = [self._samples[key] for key in ids.ravel().tolist()]
        stacks = [stacked(values) for values in zip(*rows, strict=True)]
        leaves = [tf.convert_to_tensor(s.reshape(*ids.shape, *s.shape[1:])) for s in stacks]
        return tf.nest.pack_sequence_as(self._structure, leaves)


def examples_with(
    ids: np.ndarray,
    numbered: Iterable[tuple[Batch, np.ndarray]],
    dataset: tf.data.Dataset,
    argument: str = "train_set",
) -> tf.data.Dataset:
    """Return the examples that some ids belong to, in batches, held in memory with their ids.

    Parameters
    ----------
    ids
        Shape ``(k,)``.
    numbered
        Each batch of the dataset with the ids ``(b,)`` of its examples.
    dataset, argument
        The dataset, and its name for messages.

    Raises
    ------
    ValueError
        If an id belongs to none.
    """
    batches, known = [], []
    for batch, own in numbered:
        rows = np.flatnonzero(np.isin(own, ids))
        if len(rows):
            batches.append(tf.nest.map_structure(partial(tf.gather, indices=rows), batch))
            known.append(own[rows])
    found = np.concatenate([ids[:0], *known])
    missing = np.setdiff1d(ids, found)
    if len(missing):
        message = (
            f"Argument `{argument}` must have every example that is asked for. Received: data "
            f"without {len(missing)} of them, such as {missing[:3].tolist()}. Check `id_fn=`."
        )
        raise ValueError(message)
    held = lazy_dataset(lambda: iter(batches), relaxed_element_spec(dataset))
    return attach_ids(held, found)
