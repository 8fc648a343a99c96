"""Some examples of a training set, and the training set with others in their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ..calculators.specs import relaxed_element_spec
from ..errors import UnsupportedModelError
from ..model.influence_model import BaseInfluenceModel, default_process_batch
from ..types import Batch, IdFunction
from ..utils.datasets import batch_size_of, numbered_batches
from ..utils.example_ids import as_ids, check_unique
from ..utils.lazy import lazy_dataset
from .perturbed_tensors import choose_perturbed, named_leaves


class ReplacedExamples:
    """Examples whose inputs are to be replaced.

    Parameters
    ----------
    model
        The wrapped model.
    train_set
        A batched dataset of ``(x, y)`` or ``(x, y, sample_weight)``.
    ids
        The examples.
    input_name
        Which of several inputs is replaced.
    id_fn
        Reads ids ``(b,)`` off a batch; see `numbered_batches`.

    Raises
    ------
    ValueError
        If batches have another form, or an id is not in ``train_set``, or there twice.
    UnsupportedModelError
        If it is not one input of numbers that can be replaced.
    """

    def __init__(
        self,
        model: BaseInfluenceModel,
        train_set: tf.data.Dataset,
        ids: Sequence[Any],
        input_name: str | int | None,
        id_fn: IdFunction | None,
    ) -> None:
        if model.process_batch_for_loss_fn is not default_process_batch:
            message = (
                "Argument `model` must read batches (x, y), because an attack must know where the "
                "inputs are. Received: a model with a `process_batch_for_loss_fn`. Map the dataset "
                "to (x, y) instead, and wrap the model without it."
            )
            raise ValueError(message)
        self._train_set, self._id_fn = train_set, id_fn
        self.ids = _checked_ids(ids)
        self.input_name = _one_input(model, train_set, input_name)
        self._num_batches, self._examples_per_batch = 0, 1
        self._examples = self._collect()
        self.originals: np.ndarray = self._inputs(self._examples)[1]

    def alone(self, inputs: np.ndarray) -> tf.data.Dataset:
        """Return a dataset of these examples, with the inputs ``(k, *x.shape)``."""
        examples = self._with_inputs(self._examples, inputs)
        return tf.data.Dataset.from_tensor_slices(examples).batch(self._examples_per_batch)

    def within(self, inputs: np.ndarray) -> tf.data.Dataset:
        """Return the training set, with the inputs ``(k, *x.shape)`` of these examples."""

        def generate() -> Iterator[Batch]:
            for batch, ids in numbered_batches(self._train_set, self._id_fn, "train_set"):
                here = np.flatnonzero(np.isin(ids, self.ids))
                yield self._replaced(batch, ids, here, inputs) if len(here) else batch

        signature = relaxed_element_spec(self._train_set)
        # `fit` warns of the end of a dataset whose length it does not know.
        return lazy_dataset(generate, signature, self._num_batches)

    def _replaced(
        self, batch: Batch, ids: np.ndarray, here: np.ndarray, inputs: np.ndarray
    ) -> Batch:
        values = np.array(self._inputs(batch)[1])
        rows = np.argsort(self.ids)
        values[here] = inputs[rows[np.searchsorted(self.ids[rows], ids[here])]]
        return self._with_inputs(batch, values)

    def _inputs(self, batch: Batch) -> tuple[int, Any]:
        """Return the position of the input among the leaves of x, and its values."""
        leaves = named_leaves(batch[0])
        position = [name for name, _ in leaves].index(self.input_name)
        return position, leaves[position][1]

    def _with_inputs(self, batch: Batch, values: np.ndarray) -> Batch:
        leaves = tf.nest.flatten(batch[0])
        leaves[self._inputs(batch)[0]] = values
        return (tf.nest.pack_sequence_as(batch[0], leaves), *batch[1:])

    def _collect(self) -> Batch:
        """Return the examples as a batch, in the order of the ids; note how the batches are."""
        found, found_ids = [], []
        for batch, ids in numbered_batches(self._train_set, self._id_fn, "train_set"):
            self._num_batches += 1
            self._examples_per_batch = max(self._examples_per_batch, batch_size_of(batch))
            here = np.flatnonzero(np.isin(ids, self.ids))
            if len(here):
                found.append(tf.nest.map_structure(lambda t, h=here: np.asarray(t)[h], batch))
                found_ids.append(ids[here])
        ids = np.concatenate(found_ids) if found_ids else np.empty(0, np.int64)
        if sorted(ids) != sorted(self.ids):
            message = (
                "Argument `ids` must hold ids of examples of `train_set`, each of one example. "
                f"Received: {self.ids.tolist()}, of which {ids.tolist()} were found."
            )
            raise ValueError(message)
        order = np.argsort(ids)[np.argsort(np.argsort(self.ids))]
        return tf.nest.map_structure(lambda *parts: np.concatenate(parts)[order], *found)


def _checked_ids(ids: Sequence[Any]) -> np.ndarray:
    values = check_unique(as_ids(ids, "ids"), "ids")
    if not len(values):
        message = "Argument `ids` must name at least one training example. Received: none."
        raise ValueError(message)
    return values


def _one_input(
    model: BaseInfluenceModel, train_set: tf.data.Dataset, input_name: str | int | None
) -> str:
    tensors = choose_perturbed(model, train_set, input_name, None)
    if tensors.layers or len(tensors.inputs) > 1:
        names = [*tensors.inputs, *(layer.name for layer in tensors.layers)]
        message = (
            "An attack changes one input of numbers. Received: a model in which these can be "
            f"moved: {names}. Name an input with input_name='...'; indices, which an Embedding "
            "reads, cannot be changed step by step."
        )
        raise UnsupportedModelError(message)
    return tensors.inputs[0]
