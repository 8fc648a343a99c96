"""What training minimised beside the losses of the examples, as far as a Keras model tells.

Influence functions are about the minimum of ``J(θ) = (1/n) Σ ℓ(z_i, θ) + R(θ)``. Keras adds to R
in three places: regularisers of variables, the weight decay of the optimizer, and the reduction of
the loss, which decides how much the sum of the losses weighs beside R.

*Weight decay* of SGD moves the weights by ``-η λ θ`` in every step, beside the step along the
gradient, which momentum μ makes ``1 / (1 - μ)`` times as long. Training rests where

    ∇(mean loss + regularisers) + (1 - μ) λ θ = 0,

whatever the learning rate: the decay is the regulariser ``(1 - μ) λ/2 ‖θ‖²``. Optimizers that scale
the gradient but not the decay (AdamW, for one) [1]_ rest at no minimum of such an objective.

References
----------
.. [1] I. Loshchilov, F. Hutter. Decoupled Weight Decay Regularization. ICLR 2019.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from ..errors import IgnoredTermWarning
from .keras_internals import is_decayed
from .losses import PerExampleLoss

AUTO = "auto"

OPTIMIZER_PENALTIES = (
    "l1_regularization_strength",
    "l2_regularization_strength",
    "l2_shrinkage_regularization_strength",
)
"""Attributes of optimizers that penalise the weights by themselves (FTRL)."""

MEANS = ("sum_over_batch_size", "mean")
"""Reductions under which the losses of a batch weigh as much as their mean."""

BY_WEIGHT = "mean_with_sample_weight"
"""The reduction that divides the sum of the losses by that of the sample weights."""

WEIGHTS = {
    "sum": "1 / batch size of `fit`, because the losses of a batch were added up",
    BY_WEIGHT: "the mean of the sample weights of the training set",
}
"""What R counts under other reductions beside the mean of the losses, times sample weights."""


Penalty: TypeAlias = tuple[keras.Variable, Callable[[tf.Tensor], tf.Tensor]]
"""A term of R: a variable, and a function of its value."""


@dataclass(frozen=True)
class TrainingTerms:
    """What belongs to R, and how much R counts beside the mean of the losses.

    Attributes
    ----------
    decays
        For each of the model's weights the factor λ of ``λ/2 ‖θ‖²``.
    weight
        What R is multiplied by.
    is_weight_given
        Whether the user said so.
    ignored
        What training had beside it and R has not, in sentences.
    """

    decays: tuple[float, ...]
    weight: float = 1.0
    is_weight_given: bool = False
    ignored: tuple[str, ...] = ()


def training_terms(
    model: keras.Model,
    watched: Sequence[keras.Variable],
    weight_decay: Any = AUTO,
    regularizer_weight: Any = None,
) -> TrainingTerms:
    """Read off a Keras model what R is.

    Parameters
    ----------
    model
        The model, with the optimizer that trained it where it is compiled.
    watched
        Its watched variables.
    weight_decay
        The factor λ of ``λ/2 ‖θ‖²``; ``"auto"`` reads it off the optimizer.
    regularizer_weight
        What R is multiplied by; None takes 1.
    """
    decays, ignored = _decays(model, _checked(weight_decay, "weight_decay", AUTO))
    weight = _checked(regularizer_weight, "regularizer_weight", None)
    constrained = sorted(v.path for v in watched if v.constraint is not None)
    if constrained:
        ignored.append(f"the constraints of the weights {constrained}")
    messages = [
        f"Training was also held by {term}. R, the regulariser of the training objective, has no "
        "such term: the curvature and the predicted changes of a loss leave it out."
        for term in ignored
    ]
    given = weight is not None
    return TrainingTerms(tuple(decays), weight if given else 1.0, given, tuple(messages))


def penalties(
    model: keras.Model, watched: Sequence[keras.Variable], terms: TrainingTerms
) -> list[Penalty]:
    """Return the terms of R, each a watched variable and a function of its value."""
    own: list[Penalty] = [(v, v.regularizer) for v in watched if v.regularizer is not None]
    decay_of = {id(v): decay for v, decay in zip(model.weights, terms.decays, strict=True)}
    decayed = [(v, decay_of[id(v)]) for v in watched if decay_of[id(v)]]
    return own + [(v, keras.regularizers.L2(decay / 2)) for v, decay in decayed]


def doubts_of_regularizer(
    model: keras.Model, loss: PerExampleLoss, terms: TrainingTerms
) -> list[str]:
    """Say why R may count another number than 1 beside the mean of the losses, if it may.

    Parameters
    ----------
    model
        The model. The reductions of the losses that it is compiled with are those of the training.
    loss
        The losses of the examples. Whether they have positions shows once a batch was computed.
    terms
        Where the user gave the weight of R, there is no doubt.
    """
    if terms.is_weight_given:
        return []
    doubts = [
        f"reduction={reduction!r}, under which it is {WEIGHTS.get(str(reduction), WEIGHTS['sum'])}"
        for reduction in sorted(_reductions(model, loss) - set(MEANS), key=str)
    ]
    if loss.over_positions == "sum" and loss.has_positions:
        doubts.append(
            'loss_over_positions="sum", under which it is the number of positions of an example '
            '(or pass loss_over_positions="mean")'
        )
    elif loss.has_masked_positions:
        doubts.append(
            "masked positions, over which Keras takes the mean of a whole batch; with the mean of "
            "each example it is 1 where all have equally many"
        )
    return [
        "R, the regularisers and the weight decay, is given the weight 1 beside the mean of the "
        f"losses, which may not be that of the training. Received: {doubt}. Pass "
        "`regularizer_weight=` to the InfluenceModel."
        for doubt in doubts
    ]


def divides_by_weights(model: keras.Model, loss: PerExampleLoss) -> bool:
    """Tell whether Keras divided the sum of the losses by that of the sample weights."""
    return _reductions(model, loss) == {BY_WEIGHT}


def _reductions(model: keras.Model, loss: PerExampleLoss) -> set[str | None]:
    """Return the reductions of the losses that the model was trained with."""
    compiled = compiled_loss(model)
    found = {
        getattr(part, "reduction", MEANS[0])
        for part in tf.nest.flatten(loss.loss if compiled is None else compiled)
    }
    # A loss that is given here says "none" because it is wanted for each example.
    return found if compiled is not None else found - {"none", None}


def warn_of_own_training(model: keras.Model) -> None:
    """Say which methods of a model's own stand between its compiled loss and its training."""
    if compiled_loss(model) is None:
        return
    own = [
        name
        for name in ("compute_loss", "train_step")
        if getattr(type(model), name) is not getattr(keras.Model, name)
    ]
    if own:
        message = (
            f"{type(model).__name__} has a {' and a '.join(own)} of its own, which may train on "
            "another loss than the one that it is compiled with. The compiled loss is used. Pass "
            "`loss_function=` the loss of each example that was trained on, or the compiled one "
            "where that is the same."
        )
        warnings.warn(message, IgnoredTermWarning, stacklevel=4)


def compiled_loss(model: keras.Model) -> Any:
    """Return the loss that a model is compiled with, or None."""
    return getattr(model, "loss", None)


def compiled_loss_weights(model: keras.Model) -> Any:
    """Return the loss weights of a compiled model, or None."""
    if not compiled_loss(model):
        return None
    try:
        with warnings.catch_warnings():
            # Keras warns of lambdas in what it takes to be about to be saved.
            warnings.simplefilter("ignore")
            return model.get_compile_config().get("loss_weights")
    except (TypeError, NotImplementedError) as error:
        # Keras can only tell them together with loss and optimizer, which it cannot write down.
        message = (
            "The model is compiled with a loss, an optimizer or a schedule that Keras cannot "
            f"serialise ({str(error)[:100]}), so that its loss weights cannot be read; they are "
            "taken as one. Give it a get_config method, register a function with "
            "keras.saving.register_keras_serializable, or pass `loss_function=`."
        )
        warnings.warn(message, IgnoredTermWarning, stacklevel=3)
        return None


def _decays(model: keras.Model, given: Any) -> tuple[list[float], list[str]]:
    """Return the decay of each weight, and what of the optimizer has no place in R."""
    trained = {id(v) for v in model.trainable_variables}
    if given != AUTO:
        return [given if id(v) in trained else 0.0 for v in model.weights], []
    optimizer: Any = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of one that scales the loss
    ignored = [
        f"{name}={value:g} of the optimizer {type(optimizer).__name__}"
        for name in OPTIMIZER_PENALTIES
        if (value := getattr(optimizer, name, None))
    ]
    decay = float(getattr(optimizer, "weight_decay", None) or 0.0)
    if decay and type(optimizer) is not keras.optimizers.SGD:
        ignored.append(
            f"weight_decay={decay:g} of the optimizer {type(optimizer).__name__}, which scales "
            "gradients but not the decay, so that no regulariser stands for it (pass "
            "`weight_decay=` the factor λ of an L2 term λ/2‖θ‖² that does, or 0)"
        )
        decay = 0.0
    if not decay:
        return [0.0] * len(model.weights), ignored
    decay *= 1.0 - float(optimizer.momentum)
    of_each = [id(v) in trained and is_decayed(optimizer, v) for v in model.weights]
    return [decay if decayed else 0.0 for decayed in of_each], ignored


def _checked(value: Any, name: str, default: Any) -> Any:
    if value is default or (isinstance(value, str) and value == default):
        return value
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if number and np.isfinite(value) and value >= 0:
        return float(value)
    message = f"Argument `{name}` must be {default!r} or a finite number >= 0. Received: {value!r}."
    raise ValueError(message)
