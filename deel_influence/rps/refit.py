"""Fitting a linear head to a stationary point of its regularised loss, by Newton's method.

The objective ``(1/n) Σ ℓ_i(W f_i) + λ ‖W‖²`` is convex wherever the loss is convex in the logits.
Each Newton step is solved by conjugate gradients, whose preconditioner ``(A ⊗ S + 2λ)⁻¹``, with A
the mean of ``f fᵀ`` and S that of the loss Hessians in the logits, is the exact inverse for squared
errors. Everything is float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from ..linalg.conjugate_gradients import conjugate_gradients
from ..linalg.eigen import eigenpairs
from ..linalg.linear_operator import LinearOperator
from ..utils.kernels import Kernel

SOLVE_TOLERANCE = 1e-3
"""Relative residual of the Newton steps: each brings the gradient down by so much at the end."""

SOLVE_STEPS = 500
SUFFICIENT_DECREASE = 1e-4
ROUNDING = 1e-14
"""Rounding errors of J: those of the logits, which may be large where the loss is next to none."""

MAX_HALVINGS = 30

CURVATURE_EXAMPLES = 256
CURVATURE_ENTRIES = 2**24
"""Bounds on the examples, and on their Hessians' entries, that the preconditioner looks at."""

FLOOR = 1e-15
"""A gradient this small against the features is nothing but rounding, where W is zero for one."""


class LossOfLogits(Protocol):
    """What a fit needs of a loss; `LogitLoss` has it."""

    def __call__(self, logits: tf.Tensor, targets: Any, weights: tf.Tensor) -> tf.Tensor:
        """Return the losses ``(b,)`` for logits ``(b, c)``, in their dtype."""

    def derivative(self, logits: tf.Tensor, targets: Any, weights: tf.Tensor) -> tf.Tensor:
        """Return ``∂ℓ_i/∂logits_i``, shape ``(b, c)``."""


@dataclass(frozen=True)
class Part:
    """What the fit needs of one batch.

    Attributes
    ----------
    features
        Shape ``(b, r)``.
    targets
        As the loss takes them.
    weights
        Sample weights, shape ``(b,)``.
    """

    features: tf.Tensor
    targets: Any
    weights: tf.Tensor


@dataclass(frozen=True)
class Refit:
    """A fitted head.

    Attributes
    ----------
    weights
        W, float64, shape ``(r, c)``.
    gradient_norm
        ``‖∇J(W)‖``.
    relative_residual
        ``‖∇J(W)‖ / ‖2λW‖``: by how much the representer values miss W.
    num_steps
        Newton steps taken.
    converged
        Whether the tolerance was reached.
    """

    weights: tf.Tensor
    gradient_norm: float
    relative_residual: float
    num_steps: int
    converged: bool


class HeadObjective:
    """``J(W) = (1/n) Σ ℓ_i(W f_i) + λ ‖W‖²`` with its derivatives.

    Parameters
    ----------
    loss
        The loss in the logits.
    parts
        The batches.
    regularization
        λ.
    """

    def __init__(self, loss: LossOfLogits, parts: Sequence[Part], regularization: float) -> None:
        self._loss = loss
        self.regularization = regularization
        self._first_order = Kernel(self._sums)
        self._second_order = Kernel(self._summed_product)
        self._curvature = Kernel(self._mean_curvature)
        self.take(parts)

    def take(self, parts: Sequence[Part]) -> None:
        """Put other batches in the place of those that there are; what is compiled stays."""
        self._parts = tuple(parts)
        self.num_examples = sum(int(part.features.shape[0]) for part in self._parts)
        moments = tf.add_n([_moments(part.features) for part in self._parts]).numpy()
        self._inputs = eigenpairs(moments / self.num_examples)
        self.feature_scale = float(np.sqrt(np.trace(moments) / self.num_examples))

    def value_and_gradient(self, weights: tf.Tensor) -> tuple[float, tf.Tensor]:
        """Return ``J(W)`` and ``∇J(W)``, shape ``(r, c)``."""
        value, gradient = 0.0, tf.zeros_like(weights)
        for part in self._parts:
            loss, change = self._first_order(weights, part.features, part.targets, part.weights)
            value += float(loss)
            gradient += change
        penalty = self.regularization * float(tf.reduce_sum(tf.square(weights)))
        gradient = gradient / self.num_examples + 2 * self.regularization * weights
        return value / self.num_examples + penalty, gradient

    def product(self, weights: tf.Tensor, direction: tf.Tensor) -> tf.Tensor:
        """Return ``∇²J(W) V`` for a direction V, shape ``(r, c)``."""
        total = tf.zeros_like(weights)
        for part in self._parts:
            total += self._second_order(
                weights, direction, part.features, part.targets, part.weights
            )
        return total / self.num_examples + 2 * self.regularization * direction

    def newton_step(self, weights: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        """Return ``-(∇²J(W))⁻¹ ∇J(W)``, about; downhill in any case."""
        result = conjugate_gradients(
            _HeadHessian(self, weights),
            tf.reshape(gradient, (1, -1)),
            preconditioner=self._preconditioner(weights),
            tolerance=SOLVE_TOLERANCE,
            max_steps=SOLVE_STEPS,
        )
        step = -tf.reshape(result.solution, tf.shape(weights))
        return step if float(tf.reduce_sum(step * gradient)) < 0 else -gradient

    def _preconditioner(self, weights: tf.Tensor) -> LinearOperator:
        rows = min(CURVATURE_EXAMPLES, max(CURVATURE_ENTRIES // int(weights.shape[1]) ** 2, 1))
        part = self._parts[0]
        few = tf.nest.map_structure(
            lambda tensor: tensor[:rows], (part.features, part.targets, part.weights)
        )
        curvature = self._curvature(weights, *few).numpy()
        outputs = eigenpairs((curvature + curvature.T) / 2)
        return _KroneckerInverse(self._inputs, outputs, 2 * self.regularization)

    def _sums(
        self, weights: tf.Tensor, features: tf.Tensor, targets: Any, importance: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the summed losses of a batch and their gradient in W."""
        features = tf.cast(features, tf.float64)
        logits = tf.matmul(features, weights)
        losses = self._loss(logits, targets, importance)
        delta = self._loss.derivative(logits, targets, importance)
        return tf.reduce_sum(losses), tf.matmul(features, delta, transpose_a=True)

    def _summed_product(
        self,
        weights: tf.Tensor,
        direction: tf.Tensor,
        features: tf.Tensor,
        targets: Any,
        importance: tf.Tensor,
    ) -> tf.Tensor:
        """Return ``Σ f_i (S_i Vᵀ f_i)ᵀ``, S the Hessian of the loss in the logits."""
        features = tf.cast(features, tf.float64)
        logits, change = tf.matmul(features, weights), tf.matmul(features, direction)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(logits)
            delta = self._loss.derivative(logits, targets, importance)
            along = tf.reduce_sum(delta * change)
        curved = tape.gradient(along, logits, unconnected_gradients="zero")
        return tf.matmul(features, curved, transpose_a=True)

    def _mean_curvature(
        self, weights: tf.Tensor, features: tf.Tensor, targets: Any, importance: tf.Tensor
    ) -> tf.Tensor:
        """Return the mean of S over a batch, shape ``(c, c)``."""
        logits = tf.matmul(tf.cast(features, tf.float64), weights)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(logits)
            delta = self._loss.derivative(logits, targets, importance)
            mean = tf.reduce_mean(delta, axis=0)
        rows = tape.jacobian(
            mean, logits, unconnected_gradients="zero", experimental_use_pfor=False
        )
        return tf.reduce_sum(rows, axis=1)


def _moments(features: tf.Tensor) -> tf.Tensor:
    features = tf.cast(features, tf.float64)
    return tf.matmul(features, features, transpose_a=True)


class _HeadHessian(LinearOperator):
    """``∇²J(W)`` on flattened directions."""

    def __init__(self, objective: HeadObjective, weights: tf.Tensor) -> None:
        super().__init__(int(tf.size(weights)), tf.float64)
        self._objective, self._weights = objective, weights

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(self._weights)
        # One right-hand side, and so one vector.
        directions = [tf.reshape(vector, shape) for vector in tf.unstack(vectors)]
        products = [self._objective.product(self._weights, v) for v in directions]
        return tf.stack([tf.reshape(product, (-1,)) for product in products])


class _KroneckerInverse(LinearOperator):
    """``(A ⊗ S + damping)⁻¹`` from the eigenpairs of A ``(r, r)`` and S ``(c, c)``."""

    def __init__(
        self,
        inputs: tuple[np.ndarray, np.ndarray],
        outputs: tuple[np.ndarray, np.ndarray],
        damping: float,
    ) -> None:
        self._left, self._right = tf.constant(inputs[1]), tf.constant(outputs[1])
        eigenvalues = np.outer(np.maximum(inputs[0], 0.0), np.maximum(outputs[0], 0.0))
        self._inverse = tf.constant(1.0 / (eigenvalues + damping))
        super().__init__(eigenvalues.size, tf.float64)

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        matrices = tf.reshape(vectors, (-1, *self._inverse.shape))
        turned = tf.matmul(tf.matmul(self._left, matrices, transpose_a=True), self._right)
        back = tf.matmul(self._left, turned * self._inverse)
        return tf.reshape(tf.matmul(back, self._right, transpose_b=True), tf.shape(vectors))


def refit(objective: HeadObjective, start: tf.Tensor, tolerance: float, max_steps: int) -> Refit:
    """Minimise the objective by Newton steps, halved where they overshoot.

    Parameters
    ----------
    objective
        J.
    start
        The weights to start from, float64, shape ``(r, c)``.
    tolerance
        It has converged where ``‖∇J(W)‖ <= tolerance · ‖2λW‖``.
    max_steps
        Bound on the Newton steps.
    """
    weights = tf.convert_to_tensor(start, tf.float64)
    value, gradient = objective.value_and_gradient(weights)
    steps = 0
    while steps < max_steps and not _is_small(objective, weights, gradient, tolerance):
        step = objective.newton_step(weights, gradient)
        found = _line_search(objective, weights, (value, gradient), step)
        if found is None:
            break  # rounding, or a loss that is not smooth, keeps J from falling further
        weights, value, gradient = found
        steps += 1
    norm = float(tf.norm(gradient))
    scale = 2 * objective.regularization * float(tf.norm(weights))
    relative = norm / scale if scale else float(norm > 0)
    return Refit(weights, norm, relative, steps, _is_small(objective, weights, gradient, tolerance))


def _is_small(
    objective: HeadObjective, weights: tf.Tensor, gradient: tf.Tensor, tolerance: float
) -> bool:
    penalty = 2 * objective.regularization * float(tf.norm(weights))
    return float(tf.norm(gradient)) <= max(tolerance * penalty, FLOOR * objective.feature_scale)


def _line_search(
    objective: HeadObjective,
    weights: tf.Tensor,
    here: tuple[float, tf.Tensor],
    step: tf.Tensor,
) -> tuple[tf.Tensor, float, tf.Tensor] | None:
    """Return the next weights with their value and gradient; None where no step leads down."""
    value, gradient = here
    slope = float(tf.reduce_sum(gradient * step))
    rounding = ROUNDING * max(abs(value), 1.0)
    length = 1.0
    for _ in range(MAX_HALVINGS):
        candidate = weights + length * step
        new_value, new_gradient = objective.value_and_gradient(candidate)
        falls = new_value <= value + SUFFICIENT_DECREASE * length * slope
        # Near the minimum J itself is known to fewer digits than its gradient.
        flattens = float(tf.norm(new_gradient)) < 0.5 * float(tf.norm(gradient))
        if falls or (flattens and new_value <= value + rounding):
            return candidate, new_value, new_gradient
        length /= 2
    return None
