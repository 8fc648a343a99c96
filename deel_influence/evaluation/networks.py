"""Training networks again, with fixed seeds, in a loop that is compiled once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import NonFiniteError, UnsupportedModelError
from ..linalg.checks import check_count
from ..model.acceptance import check_compiled
from ..model.computations import describe
from ..model.copies import assign_weights
from ..utils.digests import array_digest
from ..utils.seeding import seeded
from .in_memory_data import InMemoryData
from .positions import checked_positions

_GENERATOR = "seed_generator_state"
"""What Keras calls the state of a generator."""


class NetworkTraining:
    """Train a network on some of the examples: ``(positions, seed) -> keras.Model``.

    It does what ``fit`` would: the model's own ``train_step`` on batches of ``batch_size``, the
    last one of an epoch as large as is left. The data are held as tensors, and all steps of an
    epoch run in one function that is compiled at the first training and serves all others. A seed
    fixes the initial weights, the order of the examples and what dropout draws: the same positions
    and seed give the same model on the same machine. Layers of your own have to draw from a
    ``keras.random.SeedGenerator`` that they hold: ``tf.random`` goes on where it stopped.

    Parameters
    ----------
    make_model
        Returns a new, compiled model, with the same layers each time and an optimizer of its own.
        It is called for each seed, once the generators of Python, NumPy and TensorFlow have it.
        Those of Python and NumPy then go on as if nothing had been drawn.
    inputs
        The n training examples, as the model takes them, shape ``(n, ...)``.
    labels
        Their labels, shape ``(n,)`` or as the loss takes them.
    epochs
        Passes over the examples in ``positions``.
    batch_size
        Examples in a step.
    start
        Weights to start from, as ``model.get_weights()`` returns them, in place of those that a
        seed gives: a warm start. The optimizer starts afresh all the same.
    shuffle
        Whether each epoch has an order of its own, drawn from the seed. Left-out examples are
        struck from the order of all n, so that trainings of one seed see the others in one order.
        False takes them as ``positions`` has them.
    sample_weight
        Factors of the losses, shape ``(n,)``; None for none.

    Raises
    ------
    ValueError
        If the numbers of rows differ, or an argument is out of its range.

    Examples
    --------
    >>> def make_model():
    ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    ...     model.compile(optimizer="sgd", loss="mse")
    ...     return model
    >>> inputs, labels = np.eye(2, dtype="float32"), np.array([1.0, 0.0])
    >>> train = NetworkTraining(make_model, inputs, labels, epochs=3, batch_size=1)
    >>> without_the_first = train(np.array([1]), seed=0)
    """

    def __init__(
        self,
        make_model: Callable[[], keras.Model],
        inputs: Any,
        labels: Any,
        *,
        epochs: int,
        batch_size: int,
        start: Sequence[np.ndarray] | None = None,
        shuffle: bool = True,
        sample_weight: Any = None,
    ) -> None:
        weights = () if sample_weight is None else (np.asarray(sample_weight, np.float32),)
        names = ("inputs", "labels", "sample_weight")[: 2 + len(weights)]
        self._data = InMemoryData((inputs, labels, *weights), names)
        self.num_examples = self._data.num_examples
        self.epochs = check_count("epochs", epochs)
        self.batch_size = check_count("batch_size", batch_size)
        self.shuffle = shuffle
        self._make_model = make_model
        self._start = None if start is None else [np.asarray(value) for value in start]
        self._loop: _Loop | None = None
        self._initial: dict[int, list[np.ndarray]] = {}

    def __call__(self, positions: np.ndarray, seed: int = 0) -> keras.Model:
        """Return a new, compiled model, trained on some of the examples.

        Parameters
        ----------
        positions
            Rows of the training set, each once, int, shape ``(k,)``.
        seed
            Fixes everything that is drawn.

        Raises
        ------
        NonFiniteError
            If the weights end as NaN or infinity.
        UnsupportedModelError
            If the model is not built and compiled, or a layer of it draws from Keras' global
            generator, which a seed does not reset.
        """
        trained = self.in_place(positions, seed)
        copy = self._new_model(seed)
        assign_weights(copy, trained)
        return copy

    def in_place(self, positions: np.ndarray, seed: int = 0) -> keras.Model:
        """Return the same model object each time, trained anew: measure it before the next call.

        Parameters
        ----------
        positions, seed
            As for a call.
        """
        positions = checked_positions(positions, self.num_examples)
        loop = self._prepared(seed)
        model, generator = loop.model, np.random.default_rng(seed)
        for _ in range(self.epochs):
            loop.run(self._order(positions, generator))
        model.optimizer.finalize_variable_values(model.trainable_variables)
        self._check_finite(model, positions, seed)
        return model

    def fingerprint(self) -> dict[str, Any]:
        """Return what the models depend on beside positions and seed, as JSON can hold it."""
        return {
            "data": self._data.digest(),
            "make_model": describe(self._make_model),
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "start": None if self._start is None else array_digest(*self._start),
        }

    def _order(self, positions: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        if not self.shuffle:
            return positions
        order = generator.permutation(self.num_examples)
        return order[np.isin(order, positions)]

    def _prepared(self, seed: int) -> _Loop:
        """Return the loop, its model in the state that a seed begins with."""
        if self._loop is None or seed not in self._initial:
            fresh = self._new_model(seed)
            # One seed's is kept: retrainings come seed by seed.
            self._initial = {seed: [_value(variable) for variable in _state(fresh)]}
            self._loop = self._loop or _Loop(fresh, self._data, self.batch_size)
        model = self._loop.model
        # The optimizer's state is the seed's too, the number of steps and the moments included.
        for variable, value in zip(_state(model), self._initial[seed], strict=True):
            variable.assign(value)
        if self._start is not None:
            model.set_weights(self._start)
        return self._loop

    def _new_model(self, seed: int) -> keras.Model:
        with seeded(seed):
            model = check_compiled(self._make_model(), "make_model")
        model.optimizer.build(model.trainable_variables)
        return model

    def _check_finite(self, model: keras.Model, positions: np.ndarray, seed: int) -> None:
        if all(np.isfinite(_value(variable)).all() for variable in model.trainable_variables):
            return
        message = (
            "A training must end with finite weights. Received: NaN or infinity after training on "
            f"{len(positions)} of {self.num_examples} examples with seed {seed}. Lower the "
            "learning rate, or clip the gradients."
        )
        raise NonFiniteError(message)


class _Loop:
    """A model, and the steps of an epoch as one function that is compiled at its first run."""

    def __init__(self, model: keras.Model, data: InMemoryData, batch_size: int) -> None:
        self.model, self._data, self.batch_size = model, data, batch_size
        # Of an unknown length, so that every subset runs in what is compiled for the first.
        spec = tf.TensorSpec([None], tf.int64)
        self._compiled = tf.function(self._steps, input_signature=[spec], autograph=False)
        self._check_generators()

    def run(self, order: np.ndarray) -> None:
        """Take one step for each batch of the rows in ``order``, int64, shape ``(k,)``."""
        self._compiled(tf.constant(order, tf.int64))

    def _check_generators(self) -> None:
        """Refuse steps that draw from a generator that is no part of the model's state."""
        own = {id(variable.value) for variable in _state(self.model)}
        others = [
            variable.name
            for variable in self._compiled.get_concrete_function().variables
            if id(variable) not in own and _GENERATOR in variable.name
        ]
        if others:
            message = (
                "Argument `make_model` must return a model whose layers draw random numbers from "
                f"generators of their own. Received: one that draws from {others[0]!r}, which a "
                "seed does not reset. Keep a keras.random.SeedGenerator as an attribute of the "
                "layer, and pass it as `seed` to the functions of keras.random."
            )
            raise UnsupportedModelError(message)

    def _steps(self, order: tf.Tensor) -> None:
        size, end = self.batch_size, tf.shape(order)[0]

        def step(first: tf.Tensor) -> tuple[tf.Tensor]:
            self.model.train_step(self._data.rows(order[first : first + size]))
            return (first + size,)

        tf.while_loop(lambda first: first < end, step, (tf.constant(0),), parallel_iterations=1)


def _state(model: keras.Model) -> list[keras.Variable]:
    """Return weights, seeds of dropout and the like, and the optimizer's variables."""
    return [*model.variables, *model.optimizer.variables]


def _value(variable: keras.Variable) -> np.ndarray:
    return tf.convert_to_tensor(variable).numpy()
