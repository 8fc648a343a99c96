"""One step of a training as a function of tensors, and the derivative of what comes after it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from ..errors import IgnoredTermWarning, UnsupportedModelError
from ..model.influence_model import BaseInfluenceModel
from ..model.moments import exact_moments
from .updates import Optimizer

State: TypeAlias = list[tf.Tensor]
"""Trainable weights, the slots of the optimizer variable by variable, then statistics and seeds."""


class TrainingStep:
    """A step of training with weights of the examples.

    The objective of a step on the examples of its batch is ``(1/b) Σ w_i ℓ_i + R``, where b is the
    number of examples in the batch whatever their weights are, and R is what the layers add to the
    loss. Layers run as in training: the derivatives go through the statistics of a batch.

    Parameters
    ----------
    model
        The wrapped model, whose variables are never read nor written.
    optimizer
        Its optimizer.
    data
        The training set as a nest of tensors.

    Raises
    ------
    UnsupportedModelError
        If the model reads variables that are no part of it, as `keras.random` does without a seed.
    """

    def __init__(self, model: BaseInfluenceModel, optimizer: Optimizer, data: Any) -> None:
        self.model = model
        self._optimizer = optimizer
        self._data = data
        self._variables = state_variables(model.model)
        self._num_trained = len(model.model.trainable_variables)
        self._slots = optimizer.update.num_slots
        specs = [tf.TensorSpec(part.shape, part.dtype) for part in self.initial_state()]
        rows = [tf.TensorSpec(spec.shape, spec.dtype) for spec in specs if _moves(spec)]
        many = [tf.TensorSpec([None, *spec.shape], spec.dtype) for spec in rows]
        dtype = model.dtype
        # Positions and weights of the batch, learning rate, number of the step.
        of_step = (
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None], dtype),
            tf.TensorSpec([], dtype),
            tf.TensorSpec([], tf.int64),
        )
        self.advance = tf.function(self._advance, [specs, *of_step], autograph=False)
        self.pull_back = tf.function(self._pull_back, [specs, many, *of_step], autograph=False)
        graph = self.advance.get_concrete_function()
        _check_variables(graph)
        _tell_of_stopped_gradients(graph)

    def initial_state(self) -> State:
        """Return the state with the model's variables as they are now, and empty slots."""
        values = [tf.identity(variable.value) for variable in self._variables]
        trained = values[: self._num_trained]
        slots = [tf.zeros_like(value) for value in trained for _ in range(self._slots)]
        return [*trained, *slots, *values[self._num_trained :]]

    def values_of(self, state: State) -> list[tuple[keras.Variable, tf.Tensor]]:
        """Return the variables of the model with their values in a state."""
        trained, _, others = self._parts(state)
        return list(zip(self._variables, [*trained, *others], strict=True))

    def gradients_at_end(self, model: BaseInfluenceModel, batch: Any, state: State) -> State:
        """Return the gradients of the m losses of a batch in what moves of a state, ``(m, ...)``.

        Parameters
        ----------
        model
            The wrapped model, with the loss or what is measured in its place; in inference mode.
        batch
            Queries.
        state
            The state at the end of the training.
        """
        moving = [part for part in state if _moves(part)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(moving)
            with keras.StatelessScope(state_mapping=self.values_of(state)):
                losses = model.per_example_losses(batch)
        return tape.jacobian(losses, moving, unconnected_gradients="zero")

    def _advance(
        self,
        state: State,
        positions: tf.Tensor,
        weights: tf.Tensor,
        rate: tf.Tensor,
        step: tf.Tensor,
    ) -> State:
        """Return the state after a step."""
        trained, slots, others = self._parts(state)
        batch = tf.nest.map_structure(lambda part: tf.gather(part, positions), self._data)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            objective, others = self._objective(batch, weights, trained, others)
        gradients = tape.gradient(objective, trained, unconnected_gradients="zero")
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        trained, slots = self._optimizer(trained, slots, gradients, rate, step)
        return [*trained, *tf.nest.flatten(slots), *others]

    def _objective(
        self, batch: Any, weights: tf.Tensor, trained: State, others: State
    ) -> tuple[tf.Tensor, State]:
        """Return the objective of a batch, and what the call made of statistics and seeds."""
        network = self.model.model
        inputs, targets, sample_weight = self.model.process_batch_for_loss_fn(batch)
        given = list(zip(self._variables, [*trained, *others], strict=True))
        scope = keras.StatelessScope(state_mapping=given, collect_losses=True)
        with scope, exact_moments():
            outputs = network(inputs, training=True)
            penalties = list(network.losses)
        losses = self.model.loss_function(targets, outputs, sample_weight)
        self._check_masks()
        total = tf.reduce_sum(weights * tf.cast(losses, weights.dtype))
        objective = total / tf.cast(tf.shape(weights)[0], weights.dtype)
        for penalty in penalties:
            objective += tf.cast(penalty, weights.dtype)
        rest = self._variables[self._num_trained :]
        return objective, [scope.get_current_value(variable) for variable in rest]

    def _pull_back(
        self,
        state: State,
        adjoints: State,
        positions: tf.Tensor,
        weights: tf.Tensor,
        rate: tf.Tensor,
        step: tf.Tensor,
    ) -> tuple[State, tf.Tensor]:
        """Return the derivatives in the state before a step, and in the weights of its examples.

        Forward and backward pass are done once. Along each of the m adjoints they are then
        differentiated: that one pass gives the product with the Hessian, and the products with the
        gradients of all examples.

        Parameters
        ----------
        state
            Before the step.
        adjoints
            The derivatives of m numbers in what moves of the state after it, each ``(m, ...)``.
        positions, weights, rate, step
            Of the step.

        Returns
        -------
        Derivatives, each ``(m, ...)``, and those in the weights of the batch, ``(m, b)``.
        """
        moving = [part for part in state if _moves(part)]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch([*moving, weights])
            after = self._advance(state, positions, weights, rate, step)
            after = [part for part in after if _moves(part)]

        def along(adjoint: State) -> State:
            return tape.gradient(
                after, [*moving, weights], output_gradients=adjoint, unconnected_gradients="zero"
            )

        signature = [tf.TensorSpec(part.shape, part.dtype) for part in [*moving, weights]]
        *before, of_weights = tf.map_fn(along, adjoints, fn_output_signature=signature)
        return before, of_weights

    def _parts(self, state: State) -> tuple[State, list[State], State]:
        """Split a state into trained weights, their slots, and the rest."""
        number, width = self._num_trained, self._slots
        ends = [number + width * place for place in range(number + 1)]
        slots = [list(state[a:b]) for a, b in zip(ends, ends[1:], strict=False)]
        return list(state[:number]), slots, list(state[ends[-1] :])

    def _check_masks(self) -> None:
        if self.model.loss_function.has_masked_positions:
            message = (
                "The loss of a run that is recorded must be a mean over examples. Received: masked "
                "positions, over which Keras takes the mean of a whole batch. Pass the mask as a "
                "sample weight of each position."
            )
            raise UnsupportedModelError(message)


def state_variables(model: keras.Model) -> list[keras.Variable]:
    """Return the variables of a model, trainable ones first, metrics left out."""
    trained = model.trainable_variables
    left_out = {id(v) for v in [*trained, *model.metrics_variables]}
    return [*trained, *(v for v in model.variables if id(v) not in left_out)]


def _check_variables(graph: Any) -> None:
    """Refuse steps that read what is no part of the state, and would be the same in each."""
    if graph.variables:
        message = (
            "The model of a run that is recorded must read no variables but its own. Received: "
            f"one that reads {graph.variables[0].name!r}. Keep a keras.random.SeedGenerator as an "
            "attribute of the layer, and pass it as `seed` to the functions of keras.random."
        )
        raise UnsupportedModelError(message)


def _tell_of_stopped_gradients(graph: Any) -> None:
    names = [found.name for found in graph.graph.get_operations() if found.type == "StopGradient"]
    if names:
        message = (
            "The derivatives of a run should go through all that its gradients depend on. "
            f"Received: a step that stops a gradient, at {names[0]!r}: what lies behind it is "
            "taken as constant."
        )
        warnings.warn(message, IgnoredTermWarning, stacklevel=4)


def _moves(part: tf.Tensor | tf.TensorSpec) -> bool:
    """Tell whether a part of a state has derivatives: seeds have none."""
    return part.dtype.is_floating


def as_arrays(state: Sequence[tf.Tensor]) -> dict[str, np.ndarray]:
    """Return a state as arrays by their numbers."""
    return {str(number): part.numpy() for number, part in enumerate(state)}
