"""A training run that can be gone through again, forwards and backwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import NonFiniteError
from ..linalg.checks import check_count
from ..model.copies import copied
from ..model.fingerprint import model_fingerprint
from ..model.influence_model import BaseInfluenceModel
from ..model.objective import compiled_loss, compiled_loss_weights
from ..utils.digests import array_digest, settings_digest
from ..utils.records import Arrays, RecordKind, Settings
from .order import BatchOrder
from .steps import State, TrainingStep, as_arrays, state_variables

STATE = RecordKind("state of a recorded run", "Delete it, and record the run again.")


class Checkpoints:
    """The states before some steps of a run, in memory or in a folder.

    Parameters
    ----------
    folder
        Where they are kept, a file for each; None keeps them in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._held: dict[int, State] = {}

    def __contains__(self, step: int) -> bool:
        """Tell whether the state before a step is there."""
        return step in self._held or (self.folder is not None and self._file(step).exists())

    def write(self, step: int, state: State) -> None:
        """Keep the state before a step."""
        if self.folder is None:
            self._held[step] = state
        else:
            STATE.write(self._file(step), {"step": step}, as_arrays(state))

    def read(self, step: int) -> State:
        """Return the state before a step.

        Raises
        ------
        DataSourceError
            If its file is missing or damaged.
        """
        if step in self._held:
            return self._held[step]
        return STATE.read(self._file(step), _parsed_state)

    def _file(self, step: int) -> Path:
        return (self.folder or Path()) / f"step_{step:09d}.npz"


@dataclass(eq=False)
class RecordedRun:
    """A training of which every step can be computed again; `record_fit` makes one.

    Attributes
    ----------
    model
        The wrapped model that was trained. Its weights are not read.
    step
        A step of the training.
    order
        Which examples each step takes.
    rates
        The learning rate of each step, shape ``(T,)``.
    ids
        What the n examples are called, int64 or texts, shape ``(n,)``.
    checkpoints
        The states that are kept.
    checkpoint_every
        The number of steps between them.
    settings
        What the run depends on, as JSON can hold it.
    smoothness
        What `smoothness` found of the run; None before it was asked.
    """

    model: BaseInfluenceModel
    step: TrainingStep
    order: BatchOrder
    rates: np.ndarray
    ids: np.ndarray
    checkpoints: Checkpoints
    checkpoint_every: int
    settings: dict[str, Any]
    smoothness: float | None = field(default=None)

    def __repr__(self) -> str:
        """Tell what was trained, and for how long."""
        return (
            f"<RecordedRun of {self.model.model.name!r}: {self.num_examples} examples, "
            f"{self.order.epochs} epochs, {self.num_steps} steps>"
        )

    @property
    def num_examples(self) -> int:
        """The number n of training examples."""
        return self.order.num_examples

    @property
    def num_steps(self) -> int:
        """The number T of steps."""
        return self.order.num_steps

    def digest(self) -> str:
        """Return a digest of all that the run depends on, its data and initial state included."""
        initial = as_arrays(self.checkpoints.read(0))
        return settings_digest([self.settings, array_digest(*initial.values())])

    @cached_property
    def final(self) -> State:
        """The state at the end."""
        return self.checkpoints.read(self.num_steps)

    def states(
        self, first: int, last: int, weights: np.ndarray | None = None
    ) -> Iterator[tuple[int, State]]:
        """Go through steps of the run again.

        Parameters
        ----------
        first, last
            From before which step to before which; ``last`` is included.
        weights
            Of the examples, shape ``(n,)``; None for 1.

        Yields
        ------
        A step and the state before it.
        """
        start = first
        while start and start not in self.checkpoints:
            start -= 1
        state = self.checkpoints.read(start)
        for step in range(start, last):
            if step >= first:
                yield step, state
            # What came before the first step is as it was.
            of_step = self.arguments(step, weights if step >= first else None)
            state = self.step.advance(state, *of_step)
        yield last, state

    def arguments(self, step: int, weights: np.ndarray | None = None) -> tuple[tf.Tensor, ...]:
        """Return what a step takes beside the state: positions, weights, rate, and its number."""
        dtype = self.model.dtype
        positions = self.order.of_step(step)
        of_batch = np.ones(len(positions)) if weights is None else weights[positions]
        return (
            tf.constant(positions, tf.int64),
            tf.constant(of_batch, dtype),
            tf.constant(self.rates[step], dtype),
            tf.constant(step, tf.int64),
        )

    def state_after(self, weights: Any, from_step: int = 0) -> State:
        """Return the state at the end of the same run with other weights of the examples.

        Parameters
        ----------
        weights
            Factors of the losses, shape ``(n,)``; 1 for an example as it was, 0 to leave it out.
        from_step
            From which step on they count.

        Raises
        ------
        ValueError
            If they are not finite, or of another shape, or there is no such step.
        NonFiniteError
            If the training ends with NaN or infinity.
        """
        weights = _checked_weights(weights, self.num_examples)
        steps = self.states(self.checked_step(from_step), self.num_steps, weights)
        ((_, state),) = deque(steps, maxlen=1)  # holding one at a time
        check_finite_state(state)
        return state

    def checked_step(self, from_step: int) -> int:
        """Return the number of a step of the run.

        Raises
        ------
        ValueError
            If there is no such step.
        """
        if check_count("from_step", from_step, 0) >= self.num_steps:
            message = (
                f"Argument `from_step` must be below {self.num_steps}, the number of steps of the "
                f"run. Received: from_step={from_step}."
            )
            raise ValueError(message)
        return int(from_step)

    def new_network(self) -> keras.Model:
        """Return a copy of the model, compiled with its loss.

        Raises
        ------
        UnsupportedModelError
            If Keras cannot copy it.
        """
        network, original = copied(self.model).model, self.model.model
        loss_weights = compiled_loss_weights(original)
        network.compile(loss=compiled_loss(original), loss_weights=loss_weights)
        return network

    def load(self, network: keras.Model, state: State) -> keras.Model:
        """Give a model of the same form the weights of a state, and return it."""
        values = (value for _, value in self.step.values_of(state))
        for variable, value in zip(state_variables(network), values, strict=True):
            variable.assign(value)
        return network


def retrain(run: RecordedRun, weights: Any, from_step: int = 0) -> keras.Model:
    """Go through a recorded run again with other weights of its examples.

    Everything else is as it was: initial weights, order, batches, what dropout draws, learning
    rates. A step still divides by the number of examples in its batch, so that weight 0 takes the
    loss of an example away and leaves the others what they were.

    Parameters
    ----------
    run
        The recorded run.
    weights
        Factors of the losses, shape ``(n,)``; 1 for an example as it was, 0 to leave it out.
    from_step
        From which step on they count; before it, all are 1.

    Returns
    -------
    A new model, compiled with the loss.

    Raises
    ------
    ValueError
        If the weights are not finite, or of another shape, or there is no such step.
    NonFiniteError
        If the training ends with NaN or infinity.
    """
    return run.load(run.new_network(), run.state_after(weights, from_step))


def check_finite_state(state: State) -> None:
    """Refuse NaN and infinity.

    Raises
    ------
    NonFiniteError
        If there is any.
    """
    floating = [part for part in state if part.dtype.is_floating]
    if not all(bool(tf.reduce_all(tf.math.is_finite(part))) for part in floating):
        message = (
            "A training must end with finite weights. Received: NaN or infinity. Lower the "
            "learning rate, or clip the gradients by their norm."
        )
        raise NonFiniteError(message)


def _checked_weights(weights: Any, num_examples: int) -> np.ndarray:
    values = np.asarray(weights, np.float64)
    if values.shape != (num_examples,) or not np.isfinite(values).all():
        message = (
            f"Argument `weights` must hold a finite number for each of {num_examples} examples. "
            f"Received: shape {values.shape}, or NaN or infinity."
        )
        raise ValueError(message)
    return values


def _parsed_state(_: Settings, arrays: Arrays) -> State:
    return [tf.constant(arrays[str(number)]) for number in range(len(arrays))]


def network_fingerprint(model: BaseInfluenceModel) -> dict[str, Any]:
    """Return what is known of a wrapped model apart from its weights, which runs have of their own.

    Its layers, its loss and what is watched.
    """
    network = model_fingerprint(model)
    del network["weights"]
    return network
