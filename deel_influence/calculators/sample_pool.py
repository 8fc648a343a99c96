"""Keeping the few examples that top-k lists name, while a dataset streams past."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ..model.influence_model import BaseInfluenceModel
from ..types import Batch


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
            self._samples[key] = [leaf[position : position + 1] for leaf in leaves]
        if len(self._samples) > 2 * len(wanted):
            self._samples = {key: self._samples[key] for key in wanted.tolist()}

    def collect(self, ids: np.ndarray) -> Any:
        """Return the inputs named by ``ids`` ``(m, k)``, each tensor of shape ``(m, k, ...)``."""
        rows = [self._samples[key] for key in ids.ravel().tolist()]
        leaves = [
            tf.convert_to_tensor(np.concatenate(values).reshape(*ids.shape, *values[0].shape[1:]))
            for values in zip(*rows, strict=True)
        ]
        return tf.nest.pack_sequence_as(self._structure, leaves)
