"""Products of vectors with the derivative of the gradients in what is moved."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..errors import UnsupportedModelError
from ..gradients.engine import GradientEngine
from ..types import Batch
from ..utils.datasets import Item
from ..utils.running import run
from .perturbed_tensors import PerturbedTensors

Values = Any
"""An array ``(m, b, *x.shape)`` or, where several tensors are moved, a dict of them by name."""


class MixedDerivatives:
    """``s ↦ sᵀ ∇_x ∇_θ ℓ(z_i)`` for all examples of a batch and m vectors s.

    The examples of a batch do not touch each other in inference mode, so that the derivative of
    ``Σ_i g(z_i)ᵀ s`` in the whole batch holds that of every example. One forward and one backward
    pass are shared by all vectors; each vector then costs one more backward pass through both.
    The vectors come one after the other: side by side they take no less time, and three times the
    memory.

    Parameters
    ----------
    tensors
        The tensors x.
    """

    def __init__(self, tensors: PerturbedTensors) -> None:
        self.tensors = tensors
        self._engine = GradientEngine.of(tensors.model)

    def products(self, vectors: tf.Tensor, item: Item, device: str | None) -> Values:
        """Return the products for vectors ``(m, p)``; see `run` for the other arguments.

        Raises
        ------
        NonFiniteError
            If there is NaN or infinity among them; names the batch and the first such example.
        """
        tensors, is_single = self.tensors, int(vectors.shape[0]) == 1
        # Kept with the model, so that a training attack traces it once for all steps.
        kernel = self._engine.kernel(
            ("mixed_derivatives", tensors, is_single),
            lambda some, examples: _products(tensors, some, examples, is_single),
        )
        values = run(kernel, item, (vectors, item.batch), device, axis=1)
        for part in values.values():
            _check_rows(part, item.size)
        arrays = {name: part.numpy() for name, part in values.items()}
        return arrays if len(arrays) > 1 else next(iter(arrays.values()))


def _products(
    tensors: PerturbedTensors, vectors: tf.Tensor, batch: Batch, is_single: bool
) -> dict[str, tf.Tensor]:
    model = tensors.model
    weights = [v.value for v in model.weights]
    with tf.GradientTape(watch_accessed_variables=False, persistent=True) as outer:
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(weights)
            losses, moved = tensors.forward(batch, outer)
            total = tf.reduce_sum(losses)
        parts = inner.gradient(total, weights, unconnected_gradients="zero")
        gradients = [tf.convert_to_tensor(part) for part in parts]
    tensors.check_connected(outer.gradient(total, moved))

    def along(vector: tf.Tensor) -> dict[str, tf.Tensor]:
        # Weighting the gradients and differentiating the sum is one backward pass.
        seeds = [
            tf.cast(part, gradient.dtype)
            for part, gradient in zip(model.layout.unflatten(vector), gradients, strict=True)
        ]
        products = outer.gradient(
            gradients, moved, output_gradients=seeds, unconnected_gradients="zero"
        )
        return {
            name: tf.cast(tf.convert_to_tensor(part), model.dtype)
            for name, part in products.items()
        }

    if is_single:
        return {name: part[None] for name, part in along(vectors[0]).items()}
    return tf.map_fn(along, vectors, fn_output_signature=dict.fromkeys(moved, model.dtype))


def _check_rows(part: tf.Tensor, size: int) -> None:
    """Refuse a second axis that is not that of the examples."""
    if part.shape[1] != size:
        message = (
            "What is moved must have a row for each example. Received: a layer that returns "
            f"{part.shape[1]} rows for {size} examples. Name another with layer='...'."
        )
        raise UnsupportedModelError(message)
