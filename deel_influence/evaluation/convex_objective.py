"""The mean loss of chosen examples plus the regularisers, with its derivatives, in float64."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..curvature.dense import dense_curvature, regularizer_hessian
from ..curvature.regularizer import regularizer_diagonal
from ..model.fingerprint import model_fingerprint
from ..model.influence_model import BaseInfluenceModel
from ..utils.digests import array_digest
from .double_precision import float64_copy
from .in_memory_data import InMemoryData

HESSIAN_BATCH = 512
"""Examples at a time in a Hessian: the closed form of ten classes holds 55 products of each."""


class ConvexObjective:
    """``J(θ) = (1/k) Σ ℓ(z_i, θ) + R(θ)`` over the k examples of a subset.

    The data are held once, and a weight for each row says which count, so that all subsets share
    one compiled function and no row is copied.

    Parameters
    ----------
    model
        The Keras model; a float64 copy is made.
    inputs, labels
        The n examples.
    loss
        Of `deel_influence.common.BaseInfluenceModel`.
    chunk_size
        Most examples that pass the model at once.
    """

    def __init__(
        self, model: keras.Model, inputs: Any, labels: Any, loss: Any, chunk_size: int
    ) -> None:
        given = BaseInfluenceModel(model, loss_function=loss)
        losses = given.loss_function
        self._losses = {"loss": losses.loss, "loss_weights": losses.loss_weights}
        self.model = self._compiled_copy(model)
        self.wrapped = given.rewrapped(self.model, self.model.trainable_variables)
        self._data = InMemoryData((inputs, labels), ("inputs", "labels"))
        self._data.to_float64()
        self.num_examples = self._data.num_examples
        self.chunk_size = chunk_size
        vector = tf.TensorSpec([self.size], tf.float64)
        weights = tf.TensorSpec([self.num_examples], tf.float64)
        self._compiled = tf.function(
            self._value_and_gradient, input_signature=[vector, weights], autograph=False
        )
        scalar, rows = tf.TensorSpec([], tf.float64), tf.TensorSpec([None], tf.int64)
        self._compiled_without = tf.function(
            self._without, input_signature=[vector, scalar, vector, rows], autograph=False
        )

    @property
    def size(self) -> int:
        """The number p of trainable weights."""
        return self.wrapped.nb_params

    @property
    def point(self) -> np.ndarray:
        """The trainable weights that the model has now, shape ``(p,)``."""
        return self.wrapped.layout.flatten([v.value for v in self.wrapped.weights]).numpy()

    def fingerprint(self) -> dict[str, Any]:
        """Return what the minimum depends on, as JSON: not the weights that a search starts at."""
        frozen = [variable.value.numpy() for variable in self.model.non_trainable_variables]
        described = {**model_fingerprint(self.wrapped), "weights": array_digest(*frozen)}
        return {"data": self._data.digest(), **described}

    def move(self, point: np.ndarray) -> None:
        """Give the model other trainable weights, shape ``(p,)``."""
        self._assign(tf.constant(point, tf.float64))

    def new_model(self) -> keras.Model:
        """Return a copy of the model, with the weights that it has now."""
        return self._compiled_copy(self.model)

    def row_weights(self, positions: np.ndarray) -> tf.Tensor:
        """Return what each row counts where those at ``positions`` make the mean, ``(n,)``."""
        weights = np.zeros(self.num_examples)
        weights[positions] = 1.0 / len(positions)
        return tf.constant(weights)

    def value_and_gradient(
        self, point: np.ndarray, row_weights: tf.Tensor
    ) -> tuple[float, np.ndarray]:
        """Return ``J(θ)`` and ``∇J(θ)``, shape ``(p,)``."""
        value, gradient = self._compiled(tf.constant(point), row_weights)
        return float(value), gradient.numpy()

    def without(
        self, point: np.ndarray, here: tuple[float, np.ndarray], removed: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Return ``J(θ)`` and ``∇J(θ)`` of all rows but a few, from a pass over those few.

        Parameters
        ----------
        point
            θ, shape ``(p,)``.
        here
            ``J(θ)`` and ``∇J(θ)`` of all rows.
        removed
            The rows that are missing, int, shape ``(b,)``.
        """
        rows = tf.constant(removed, tf.int64)
        value, gradient = self._compiled_without(
            tf.constant(point), tf.constant(here[0], tf.float64), tf.constant(here[1]), rows
        )
        return float(value), gradient.numpy()

    def hessian(self, point: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Return ``∇²J(θ)``, shape ``(p, p)``."""
        self.move(point)
        rows = tf.data.Dataset.from_tensor_slices(tf.constant(positions, tf.int64))
        batches = rows.batch(min(HESSIAN_BATCH, self.chunk_size)).map(self._data.rows)
        matrix = dense_curvature(self.wrapped, batches, regularizer=False, verbose=0).matrix
        diagonal = regularizer_diagonal(self.wrapped)
        if diagonal is None:
            return matrix + regularizer_hessian(self.wrapped)
        np.einsum("ii->i", matrix)[:] += diagonal
        return matrix

    def _compiled_copy(self, model: keras.Model) -> keras.Model:
        copy = float64_copy(model)
        copy.compile(optimizer="sgd", **self._losses)
        return copy

    def _value_and_gradient(
        self, point: tf.Tensor, row_weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        self._assign(point)
        value, gradient = self._sums(row_weights)
        value += self.wrapped.regularization()
        return value, gradient + self.wrapped.regularization_gradient()

    def _without(
        self, point: tf.Tensor, value: tf.Tensor, gradient: tf.Tensor, removed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        self._assign(point)
        gone = tf.ones_like(removed, tf.float64)
        all_rows = tf.constant(self.num_examples, tf.float64)
        penalty = (self.wrapped.regularization(), self.wrapped.regularization_gradient())
        missing = self._chunk(self._data.rows(removed), gone)
        rest = all_rows - tf.reduce_sum(gone)
        value, gradient = (
            (all_rows * (whole - extra) - part) / rest + extra
            for whole, extra, part in zip((value, gradient), penalty, missing, strict=True)
        )
        return value, gradient

    def _assign(self, point: tf.Tensor) -> None:
        parts = self.wrapped.layout.unflatten(point)
        for variable, part in zip(self.wrapped.weights, parts, strict=True):
            variable.assign(part)

    def _sums(self, row_weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the weighted sum of the losses and its gradient, a chunk of rows at a time."""
        size = self.chunk_size
        if self.num_examples <= size:
            return self._chunk(self._data.tensors, row_weights)

        def body(first: tf.Tensor, value: tf.Tensor, gradient: tf.Tensor) -> tuple:
            end = first + size
            more, change = self._chunk(self._data.slice(first, end), row_weights[first:end])
            return end, value + more, gradient + change

        zeros = (tf.zeros((), tf.float64), tf.zeros((self.size,), tf.float64))
        _, value, gradient = tf.while_loop(
            lambda first, *_: first < self.num_examples,
            body,
            (tf.constant(0), *zeros),
            parallel_iterations=1,
        )
        return value, gradient

    def _chunk(self, batch: Any, row_weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values = [v.value for v in self.wrapped.weights]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            total = tf.reduce_sum(row_weights * self.wrapped.per_example_losses(batch))
        gradients = tape.gradient(total, values, unconnected_gradients="zero")
        return total, self.wrapped.layout.flatten([tf.convert_to_tensor(g) for g in gradients])
