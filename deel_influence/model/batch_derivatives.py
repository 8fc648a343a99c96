"""Losses and gradients by plain automatic differentiation, under the names of Influenciae."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import keras
import tensorflow as tf

from ..types import Batch, Data
from ..utils.datasets import check_dataset, numbered_batches
from ..utils.intake import as_dataset
from .parameters import ParameterLayout


class BatchDerivatives(ABC):
    """The slow, independent reference; `GradientEngine` gives the same numbers much faster.

    To be implemented by subclasses: what is abstract here.
    """

    weights: list[keras.Variable]
    layout: ParameterLayout

    @property
    @abstractmethod
    def dtype(self) -> tf.DType:
        """The dtype of losses and gradients."""

    @property
    @abstractmethod
    def input_rank(self) -> int | None:
        """The rank of the inputs, batch axis included, where it is known."""

    @abstractmethod
    def per_example_losses(self, batch: Batch) -> tf.Tensor:
        """Return the losses ``(b,)`` of a batch, sample weights included."""

    def batch_loss_tensor(self, batch: Batch) -> tf.Tensor:
        """Return the losses ``(b,)`` of a batch."""
        return self.per_example_losses(batch)

    def batch_gradient_tensor(self, batch: Batch) -> tf.Tensor:
        """Return the gradient ``(p,)`` of the summed losses of a batch."""
        values = [v.value for v in self.weights]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            total = tf.reduce_sum(self.per_example_losses(batch))
        gradients = tape.gradient(total, values, unconnected_gradients="zero")
        return self.layout.flatten(
            [tf.cast(tf.convert_to_tensor(g), self.dtype) for g in gradients]
        )

    def batch_jacobian_tensor(self, batch: Batch) -> tf.Tensor:
        """Return the gradients ``(b, p)`` of the losses of a batch."""
        values = [v.value for v in self.weights]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            losses = self.per_example_losses(batch)
        rows = tape.jacobian(losses, values, unconnected_gradients="zero")
        return self.layout.flatten_rows(rows)

    def batch_loss(self, dataset: Data) -> tf.Tensor:
        """Return the losses ``(n,)`` of data in any form."""
        return tf.concat(self._of_batches(dataset, self.batch_loss_tensor), axis=0)

    def batch_gradient(self, dataset: Data) -> tf.Tensor:
        """Return the gradient of the summed losses of each batch, ``(number of batches, p)``."""
        return tf.stack(self._of_batches(dataset, self.batch_gradient_tensor))

    def batch_jacobian(self, dataset: Data) -> tf.Tensor:
        """Return the gradients ``(n, p)`` of the losses of data in any form."""
        return tf.concat(self._of_batches(dataset, self.batch_jacobian_tensor), axis=0)

    def _of_batches(self, dataset: Data, function: Callable[[Batch], tf.Tensor]) -> list[tf.Tensor]:
        batches = as_dataset(dataset, "dataset", self)
        check_dataset(batches, "dataset", self.input_rank)
        return [function(batch) for batch, _ in numbered_batches(batches)]
