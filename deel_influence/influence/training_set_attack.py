"""The training-set attack: how far small changes of training inputs can turn predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import UnsupportedModelError
from ..gradients.engine import GradientEngine
from ..gradients.passes import Pass, query_and_train_passes
from ..ihvp.base import InverseHessianVectorProduct
from ..linalg.checks import check_count, check_positive
from ..model.influence_model import BaseInfluenceModel, check_influence_model
from ..types import Batch, Data, IdFunction
from ..utils.progress import progress_bar
from ..utils.running import run
from ..utils.takes_data import takes_data
from .box import Box
from .perturbation import PerturbationInfluenceCalculator
from .replaced_examples import ReplacedExamples

Retrain = Callable[[tf.data.Dataset], Any]
"""Trains on a dataset, from scratch or on; returns a `keras.Model` or a wrapped one."""


@dataclass(frozen=True)
class AttackResult:
    """What a training-set attack came to after T steps.

    Attributes
    ----------
    ids
        Ids of the perturbed training examples, int64, shape ``(k,)``.
    examples
        What became of their inputs, shape ``(k, *x.shape)``.
    original_examples
        What they were.
    losses
        The loss of each query before the attack and after each step, shape ``(T + 1, m)``.
    predictions
        The predicted classes, shape ``(T + 1, m)``, or ``(T + 1, m, ...)`` for models that predict
        at several positions.
    flipped
        Whether the prediction for a query is another than before the attack, shape ``(m,)``.
    train_set
        The training set with the perturbed examples.
    model
        The model as last retrained.
    """

    ids: np.ndarray
    examples: np.ndarray
    original_examples: np.ndarray
    losses: np.ndarray
    predictions: np.ndarray
    flipped: np.ndarray
    train_set: tf.data.Dataset
    model: BaseInfluenceModel

    @property
    def num_steps(self) -> int:
        """The number T of steps that were taken."""
        return len(self.losses) - 1


@takes_data
def attack(
    model: BaseInfluenceModel,
    train_set: Data,
    dataset_to_evaluate: Data,
    ids: Sequence[int],
    retrain: Retrain,
    *,
    step_size: float,
    radius: float,
    bounds: tuple[float, float] | None = None,
    num_levels: int | None = None,
    max_steps: int = 100,
    ihvp_calculator: Any = "exact",
    input_name: str | int | None = None,
    id_fn: IdFunction | None = None,
    device: str | None = None,
    verbose: str | int = "auto",
) -> AttackResult:
    """Perturb training inputs step by step so that the losses of the queries rise [1]_.

    It is there to study how robust a training process is: how much damage a few examples, changed
    by less than the eye sees, could do. Each step is ::

        x_i ← Π(x_i + step_size · sign(Σ_z I(z_i, z)))

    for the chosen training examples, with I the perturbation influence under the current model on
    the current training set, and Π the projection on the box of half-width ``radius`` around the
    original x_i, on ``bounds``, and on the levels of the image format. The model is then trained
    again, and it ends as soon as the predictions for all queries are others than at first. The
    arguments themselves are not modified.

    Parameters
    ----------
    model
        The wrapped model, trained on ``train_set``. Its outputs are those of a classifier.
    train_set
        The batched training set, of batches ``(x, y)`` or ``(x, y, sample_weight)``.
    dataset_to_evaluate
        The m queries, batched, with their right labels.
    ids
        The training examples to perturb, such as the first of
        `PerturbationInfluenceCalculator.sensitivity`.
    retrain
        Takes a training set and returns the model trained on it: a `keras.Model` of the same
        architecture, of which the same weights are watched, or a wrapped model. Training a copy
        and returning the same copy each time spares the compilation of every step.
    step_size
        The size of a step, in the units of x.
    radius
        The half-width of the box, in the units of x. Half the distance of two levels keeps the
        8-bit representation of an image as it is.
    bounds
        The least and the greatest value of x; None leaves x free, or as its integer type has it.
    num_levels
        How many values x can take, evenly spaced over ``bounds``: 256 for 8-bit images. Inputs of
        integer type take whole numbers in any case. None lets x take any value.
    max_steps
        Bound on the number of steps.
    ihvp_calculator
        As for `PerturbationInfluenceCalculator`, but no fitted strategy: it is fitted anew for
        each step.
    input_name
        Key or position of the one input that is perturbed, of a model that takes several.
    id_fn
        Reads ids ``(b,)`` off a batch of ``train_set``; None takes those that it has, or positions.
    device
        Where to compute; None leaves it to TensorFlow.
    verbose
        As in Keras.

    Returns
    -------
    The perturbed examples, and how losses and predictions went.

    Raises
    ------
    ValueError
        If an argument is not as it has to be, or an id is not in ``train_set``.
    TypeError
        If the strategy is fitted already.
    UnsupportedModelError
        If the model has several outputs, or it is not one input of numbers that is perturbed.

    References
    ----------
    .. [1] P. W. Koh, P. Liang. Understanding Black-box Predictions via Influence Functions. ICML
       2017, section 5.2.
    """
    check_influence_model(model)
    _check_settings(step_size, max_steps, ihvp_calculator)
    query_and_train_passes(
        GradientEngine.of(model),
        dataset_to_evaluate,
        train_set,
        id_fn,
        device,
        verbose,
        opened=True,
    )
    chosen = ReplacedExamples(model, train_set, ids, input_name, id_fn)
    box = Box(chosen.originals, radius, bounds, num_levels)
    settings = {"ihvp_calculator": ihvp_calculator, "input_name": input_name}
    steps = _Attack(model, train_set, dataset_to_evaluate, chosen, retrain, settings, device)
    moves = steps.moves(box, step_size, max_steps)
    for _ in progress_bar(moves, "Attack", max_steps, verbose, unit="step"):
        pass
    return steps.result()


class _Attack:
    """The state of an attack: examples, training set, model, and how the queries fared."""

    def __init__(
        self,
        model: BaseInfluenceModel,
        train_set: Data,
        queries: Data,
        chosen: ReplacedExamples,
        retrain: Retrain,
        settings: dict[str, Any],
        device: str | None,
    ) -> None:
        self._model, self._train_set = model, train_set
        self._queries, self._chosen = queries, chosen
        self._retrain, self._settings, self._device = retrain, settings, device
        self._examples = chosen.originals
        self._losses: list[np.ndarray] = []
        self._predictions: list[np.ndarray] = []
        self._look_at_queries()

    @property
    def _flipped(self) -> np.ndarray:
        changed = self._predictions[-1] != self._predictions[0]
        return changed.reshape(len(changed), -1).any(axis=1)

    def moves(self, box: Box, step_size: float, max_steps: int) -> Iterator[int]:
        """Take steps until all predictions have flipped; yield after each."""
        # Steps may be smaller than the distance of two levels, so they add up before rounding.
        exact = self._examples.astype(np.float64)
        for step in range(max_steps):
            exact = box.project(exact + step_size * np.sign(self._direction()))
            self._examples = box.stored(exact)
            self._train_set = self._chosen.within(self._examples)
            self._model = _wrapped(self._retrain(self._train_set), self._model)
            self._look_at_queries()
            yield step
            if self._flipped.all():
                return

    def result(self) -> AttackResult:
        """Return what the steps came to."""
        return AttackResult(
            ids=self._chosen.ids,
            examples=self._examples,
            original_examples=self._chosen.originals,
            losses=np.stack(self._losses),
            predictions=np.stack(self._predictions),
            flipped=self._flipped,
            train_set=self._train_set,
            model=self._model,
        )

    def _direction(self) -> np.ndarray:
        """Return ``Σ_z I(z_i, z)`` for the chosen examples, shape ``(k, *x.shape)``."""
        calculator = PerturbationInfluenceCalculator(self._model, self._train_set, **self._settings)
        alone = self._chosen.alone(self._examples)
        return calculator.influence_on_total_loss(
            self._queries, alone, device=self._device, verbose=0
        )

    def _look_at_queries(self) -> None:
        """Note the losses and predictions of the queries."""
        engine = GradientEngine.of(self._model)
        kernel = engine.kernel("losses_and_classes", lambda b: _losses_and_classes(engine, b))
        losses, classes = [], []
        for item in Pass(self._queries, "dataset_to_evaluate").items(engine):
            found = run(kernel, item, (item.batch,), self._device, axis=0)
            losses.append(found[0].numpy())
            classes.append(found[1].numpy())
        self._losses.append(np.concatenate(losses))
        self._predictions.append(np.concatenate(classes))


def _losses_and_classes(engine: GradientEngine, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the losses ``(b,)`` and the predicted classes ``(b, ...)``; to be traced."""
    outputs = engine.model.predict_batch(batch)
    if not isinstance(outputs, tf.Tensor):
        message = (
            "An attack needs a model with one output, whose predictions can flip. Received: "
            f"outputs of type {type(outputs).__name__}. Wrap a model of one of them."
        )
        raise UnsupportedModelError(message)
    forward, logits = engine.forward_to_logits(batch, [], [])
    if logits.shape.rank == 1 or logits.shape[-1] == 1:
        is_positive = logits > 0
        classes = is_positive if logits.shape.rank == 1 else is_positive[..., 0]
        return forward.losses, tf.cast(classes, tf.int64)
    return forward.losses, tf.argmax(logits, axis=-1)


def _wrapped(result: Any, model: BaseInfluenceModel) -> BaseInfluenceModel:
    """Return what `retrain` gave, wrapped as ``model`` is."""
    if isinstance(result, BaseInfluenceModel):
        return result
    if result is model.model:
        return model
    watched = [
        index for index, v in enumerate(model.model.trainable_variables) if v in model.layout
    ]
    loss = model.loss_function
    same = isinstance(result, keras.Model) and len(result.trainable_variables) == len(
        model.model.trainable_variables
    )
    if not same or loss.loss_weights is not None:
        message = (
            "Argument `retrain` must return a wrapped model, or a keras.Model with the layers of "
            "the one before and a loss without loss weights, to be wrapped like that. Received: "
            f"{type(result).__name__}. Wrap it: InfluenceModel(...)."
        )
        raise ValueError(message)
    weights = [result.trainable_variables[index] for index in watched]
    return BaseInfluenceModel(result, weights, loss.loss, loss_over_positions=loss.over_positions)


def _check_settings(step_size: float, max_steps: int, ihvp_calculator: Any) -> None:
    check_positive("step_size", step_size)
    check_count("max_steps", max_steps)
    if isinstance(ihvp_calculator, InverseHessianVectorProduct):
        message = (
            "Argument `ihvp_calculator` of an attack must be a name, a class or a factory, which "
            f"is fitted anew for each step. Received: a fitted {type(ihvp_calculator).__name__}."
        )
        raise TypeError(message)
