"""The updates of Keras's optimizers as functions of tensors, so that they have derivatives."""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import UnsupportedModelError
from ..model.keras_internals import is_decayed

REFUSED = {
    "clipvalue": "cutting off single entries throws their derivatives away",
    "amsgrad": "a largest value so far has no derivative where it changes",
    "use_ema": "the average of the weights is no part of what is recorded",
    "loss_scale_factor": "the gradients of half precision are too coarse for a second derivative",
    "gradient_accumulation_steps": "a step is that of one batch",
}
"""Settings of optimizers that are refused, each with the reason."""

OPTIMIZERS = (keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.AdamW)
"""What can be differentiated; subclasses may do something else."""


@dataclass(frozen=True)
class Update(ABC):
    """How an optimizer changes one variable.

    To be implemented by subclasses: what is abstract here.
    """

    @property
    @abstractmethod
    def num_slots(self) -> int:
        """How many numbers are kept for each weight."""

    @abstractmethod
    def __call__(
        self,
        weight: tf.Tensor,
        slots: Sequence[tf.Tensor],
        gradient: tf.Tensor,
        rate: tf.Tensor,
        step: tf.Tensor,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return the weight and the slots after a step; ``step`` counts from 1."""


@dataclass(frozen=True)
class SGDUpdate(Update):
    """Gradient descent, with momentum, of Nesterov or plain, or without."""

    momentum: float = 0.0
    nesterov: bool = False

    @property
    def num_slots(self) -> int:
        """One for the momentum, if there is one."""
        return int(self.momentum != 0)

    def __call__(
        self,
        weight: tf.Tensor,
        slots: Sequence[tf.Tensor],
        gradient: tf.Tensor,
        rate: tf.Tensor,
        step: tf.Tensor,  # noqa: ARG002 - all steps are alike
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return the weight and its momentum after a step."""
        if not self.num_slots:
            return weight - gradient * rate, []
        factor = tf.cast(self.momentum, weight.dtype)  # as Keras, by way of float32
        moved = slots[0] * factor - gradient * rate
        by = moved * factor - gradient * rate if self.nesterov else moved
        return weight + by, [moved]


@dataclass(frozen=True)
class AdamUpdate(Update):
    """Adam [1]_ as Keras computes it, or with a number added under the root of the velocity.

    That number r is added to the velocity of which the bias is corrected: a weight moves by
    ``-α m̂ / (√(v̂ + r) + ε)``, a smooth function of its gradients where these are small.

    Where the velocity v is zero, all gradients so far were, and the weight as a function of the
    gradient g has the derivative ``-α (1 - β₁) / ε``, through the momentum alone: what goes through
    √v is of second order in g. TensorFlow's derivative of the root is infinite there, and so the
    root is taken as constant.

    References
    ----------
    .. [1] D. P. Kingma, J. Ba. Adam: A Method for Stochastic Optimization. ICLR 2015.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    eps_root: float = 0.0

    @property
    def num_slots(self) -> int:
        """Two: momentum and velocity."""
        return 2

    def __call__(
        self,
        weight: tf.Tensor,
        slots: Sequence[tf.Tensor],
        gradient: tf.Tensor,
        rate: tf.Tensor,
        step: tf.Tensor,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return the weight, its momentum and its velocity after a step."""
        power_1, power_2 = (
            tf.pow(tf.cast(beta, rate.dtype), step) for beta in (self.beta_1, self.beta_2)
        )
        alpha = rate * tf.sqrt(1 - power_2) / (1 - power_1)
        momentum = slots[0] + (gradient - slots[0]) * (1 - self.beta_1)
        velocity = slots[1] + (tf.square(gradient) - slots[1]) * (1 - self.beta_2)
        under = velocity + self.eps_root * (1 - power_2) if self.eps_root else velocity
        by = (momentum * alpha) / (_root(under) + self.epsilon)
        return weight - by, [momentum, velocity]


@dataclass(frozen=True)
class Optimizer:
    """One step of an optimizer of Keras, for all variables of a model.

    Attributes
    ----------
    update
        How a variable is changed.
    decays
        The decoupled weight decay of each variable.
    clipnorm
        The largest norm of the gradient of a variable; None for any.
    global_clipnorm
        The largest norm of the gradient of all variables together; None for any.
    """

    update: Update
    decays: tuple[float, ...]
    clipnorm: float | None = None
    global_clipnorm: float | None = None

    def __call__(
        self,
        weights: Sequence[tf.Tensor],
        slots: Sequence[Sequence[tf.Tensor]],
        gradients: Sequence[tf.Tensor],
        rate: tf.Tensor,
        step: tf.Tensor,
    ) -> tuple[list[tf.Tensor], list[list[tf.Tensor]]]:
        """Return weights and slots after a step.

        Parameters
        ----------
        weights, slots, gradients
            Of each variable: its value, what is kept for it, and the gradient of the objective.
        rate
            The learning rate, a scalar.
        step
            The number of the step, from 0.
        """
        changed = []
        for weight, kept, gradient, decay in zip(
            weights, slots, self._clipped(gradients), self.decays, strict=True
        ):
            by, count = tf.cast(rate, weight.dtype), tf.cast(step + 1, weight.dtype)
            decayed = weight - weight * tf.cast(decay, weight.dtype) * by if decay else weight
            changed.append(self.update(decayed, kept, gradient, by, count))
        return [weight for weight, _ in changed], [kept for _, kept in changed]

    def _clipped(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        if self.clipnorm:
            return [_shortened([gradient], self.clipnorm)[0] for gradient in gradients]
        if self.global_clipnorm:
            return _shortened(gradients, self.global_clipnorm)
        return list(gradients)


def read_optimizer(model: keras.Model, eps_root: float = 0.0) -> Optimizer:
    """Return the step of a compiled model's optimizer.

    Raises
    ------
    ValueError
        If ``eps_root`` is below 0 or not finite, or the optimizer has no velocity.
    UnsupportedModelError
        If the optimizer, or one of its settings, has no derivative here, or it has taken steps.
    """
    optimizer: Any = model.optimizer
    _check_differentiable(model, optimizer)
    taken = int(tf.convert_to_tensor(optimizer.iterations).numpy())
    if taken > 0:
        message = (
            "The optimizer of a run that is recorded must begin afresh. Received: one that has "
            f"taken {taken} steps. Compile the model anew."
        )
        raise UnsupportedModelError(message)
    is_number = isinstance(eps_root, numbers.Real) and 0 <= eps_root < np.inf
    if not is_number or (eps_root and isinstance(optimizer, keras.optimizers.SGD)):
        message = (
            "Argument `eps_root` must be a finite number of at least 0, and 0 but for Adam and "
            f"AdamW. Received: {eps_root!r} with {type(optimizer).__name__}."
        )
        raise ValueError(message)
    decay = float(optimizer.weight_decay or 0.0)
    variables = model.trainable_variables
    decays = tuple(decay if decay and is_decayed(optimizer, v) else 0.0 for v in variables)
    update: Update
    if isinstance(optimizer, keras.optimizers.SGD):
        update = SGDUpdate(float(optimizer.momentum), bool(optimizer.nesterov))
    else:
        given = optimizer.beta_1, optimizer.beta_2, optimizer.epsilon, eps_root
        update = AdamUpdate(*map(float, given))
    return Optimizer(update, decays, optimizer.clipnorm, optimizer.global_clipnorm)


def learning_rates(optimizer: keras.optimizers.Optimizer, num_steps: int) -> np.ndarray:
    """Return the learning rate of each step, of a schedule or a number, float64, shape ``(T,)``."""

    @tf.function(input_signature=[tf.TensorSpec((), tf.int64)], autograph=False)
    def rate_at(step: tf.Tensor) -> tf.Tensor:
        given = [(optimizer.iterations, tf.cast(step, optimizer.iterations.dtype))]
        with keras.StatelessScope(state_mapping=given):
            return tf.cast(tf.convert_to_tensor(optimizer.learning_rate), tf.float64)

    return np.array([rate_at(step).numpy() for step in tf.range(num_steps, dtype=tf.int64)])


def _shortened(gradients: Sequence[tf.Tensor], longest: float) -> list[tf.Tensor]:
    """Return gradients that have together at most the norm ``longest``."""
    norm = _root(tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in gradients]))
    scale = longest / tf.maximum(norm, longest)
    return [gradient * scale for gradient in gradients]


def _root(values: tf.Tensor) -> tf.Tensor:
    """Return square roots, constant where they are zero: there TensorFlow's slope is infinite."""
    positive = values > 0
    return tf.where(positive, tf.sqrt(tf.where(positive, values, 1)), 0)


def _check_differentiable(model: keras.Model, optimizer: Any) -> None:
    """Refuse a step that has no derivative, or is more than a step."""
    constrained = [v.path for v in model.trainable_variables if v.constraint is not None]
    set_ones = [name for name in REFUSED if getattr(optimizer, name, None)]
    if type(optimizer) not in OPTIMIZERS:
        received = f"the optimizer {type(optimizer).__name__}: only these are known"
    elif set_ones:
        name = set_ones[0]
        received = f"{name}={getattr(optimizer, name)!r}: {REFUSED[name]}"
    elif constrained:
        received = f"constraints of {constrained}: projections have no derivative where they act"
    else:
        return
    message = (
        "A training run must be one of SGD, Adam or AdamW to be differentiated. Received: "
        f"{received}. Compile with keras.optimizers.SGD, Adam or AdamW without it."
    )
    raise UnsupportedModelError(message)
