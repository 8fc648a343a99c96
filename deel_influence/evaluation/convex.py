"""Training convex models again: to the minimum, in float64, from the minimum of all examples."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import keras
import numpy as np

from ..errors import ConvergenceError, ConvergenceWarning
from ..linalg.checks import check_count, check_positive
from .convex_objective import ConvexObjective
from .convex_solver import Minimum, Whitening, minimise, require_scipy
from .positions import checked_positions

MOST_WHITENED = 8192
"""Largest number of weights whose Hessian is factorised unasked: 512 MiB in float64."""

REDUCTION = 1e-4
"""By how much a retraining brings the gradient down that it begins with."""

DOUBTFUL = 1e-2
"""A gradient that is left at more than this share of that is worth a warning."""

ROUGH = 1e-4
FLOOR = 1e-12
"""Shares of the gradient at zero weights: where the first Hessian is computed, and what rounding
leaves of a gradient, with a margin."""

ROUNDS = 8
RETRAINING_ROUNDS = 3
FEW = 0.1
"""Share of the examples whose removal is told from them alone, without a pass over the others."""

QUICK = 30
"""Passes within which a good factor brings the minimum."""


@dataclass(frozen=True)
class _Optimum:
    """The minimum ``(p,)`` of all examples, J and ∇J there, and the factor of the Hessian."""

    point: np.ndarray
    value_and_gradient: tuple[float, np.ndarray]
    whitening: Whitening | None


class ConvexTraining:
    """Train a convex model on some of the examples: ``(positions, seed=0) -> keras.Model``.

    It minimises ``J(θ) = (1/k) Σ ℓ(z_i, θ) + R(θ)`` over the k examples at ``positions``, R being
    the regularisers of the weights, with SciPy's L-BFGS in float64, finished by Newton steps. The
    objective must be convex in the trainable weights: a dense layer on fixed features, with a
    convex loss such as cross-entropy or a smooth hinge. Layers before it may be frozen.

    The first call finds the minimum of all n examples, and the Hessian there with its Cholesky
    factor L. Every training starts at that minimum, in variables u with ``θ = θ̂ + L⁻ᵀ u``, in
    which the objective is all but round: without a few examples, it mostly takes two to five passes
    over the data. All trainings share one compiled function and one copy of the data.

    Parameters
    ----------
    model
        A built Keras model, which is left as it is. Its weights are where the first search starts.
        It runs in inference mode.
    inputs
        The n training examples, as the model takes them, shape ``(n, ...)``; float inputs are held
        as float64.
    labels
        Their labels, shape ``(n,)`` or as the loss takes them.
    loss
        A Keras loss, its name, or a callable ``loss(targets, outputs)``; None takes the one that
        the model was compiled with.
    tolerance
        Largest norm of ``∇J`` that is accepted for a minimum.
    precondition
        Whether the Hessian is computed and factorised, ``8 p²`` bytes; ``"auto"`` does so for p
        up to 8192. Without it L-BFGS runs in θ itself, which takes hundreds of passes, and θ̂ is
        only found to ``tolerance``.
    max_steps
        Steps of L-BFGS at most.
    chunk_size
        Most examples that pass the model at once.

    Raises
    ------
    MissingExtraError
        If SciPy is not installed.
    UnsupportedModelError
        If Keras cannot copy the model; in the first call, if the Hessian is not positive definite.
    ValueError
        If an argument is out of its range.

    Notes
    -----
    Leaving out one example changes the gradient at θ̂ by about ``‖g_i‖ / n``, and the weights by
    ``H⁻¹`` times that. A gradient e that is left over moves them by ``H⁻¹ e``, so that the change
    of a loss is right to about ``‖e‖ n / ‖g_i‖``, and at worst to that times the root of the
    Hessian's condition number. An absolute tolerance cannot see to it for every example. Each
    retraining therefore brings the gradient down to a ten-thousandth of what it begins with, or to
    rounding, whatever ``tolerance`` allows. For condition numbers up to ten thousand the changes
    are then right to a hundredth of the largest that so large a gradient could make, and mostly
    far better. θ̂ itself is found to rounding.
    The returned models are float64 because the changes, a millionth of the loss for n = 55,000,
    would drown in the rounding of float32.

    Weights that the objective does not depend on (of inputs that are always zero, or the common
    shift of the biases of a softmax) stay where they are.

    References
    ----------
    Koh, Liang. Understanding Black-box Predictions via Influence Functions. ICML 2017, section 4.1.

    Examples
    --------
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> inputs = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> train = ConvexTraining(model, inputs, [1.0, 2.0, 4.0], loss="mse")
    >>> train(np.array([0, 1])).get_weights()[0].round(6).ravel()
    array([1., 2.])
    >>> train.full().get_weights()[0].round(6).ravel()
    array([1.333333, 2.333333])
    """

    def __init__(
        self,
        model: keras.Model,
        inputs: Any,
        labels: Any,
        *,
        loss: Any = None,
        tolerance: float = 1e-8,
        precondition: bool | str = "auto",
        max_steps: int = 1000,
        chunk_size: int = 8192,
    ) -> None:
        require_scipy("scipy.optimize")
        self.tolerance = check_positive("tolerance", tolerance)
        self.max_steps = check_count("max_steps", max_steps)
        chunk_size = check_count("chunk_size", chunk_size)
        self._objective = ConvexObjective(model, inputs, labels, loss, chunk_size)
        self.precondition = _whether(precondition, self._objective.size)
        self.num_examples = self._objective.num_examples

    def __call__(self, positions: np.ndarray, seed: int = 0) -> keras.Model:
        """Return a new float64 model, trained on some of the examples.

        Parameters
        ----------
        positions
            Rows of the training set, each once, int, shape ``(k,)``.
        seed
            Changes nothing: there is one minimum.

        Raises
        ------
        ConvergenceError
            If the gradient stays above the tolerance.
        """
        self.in_place(positions, seed)
        return self._objective.new_model()

    def in_place(self, positions: np.ndarray, seed: int = 0) -> keras.Model:
        """Return the same model object each time, trained anew: measure it before the next call.

        Parameters
        ----------
        positions, seed
            As for a call.
        """
        del seed
        positions = checked_positions(positions, self.num_examples)
        point = self._optimum.point
        if len(positions) < self.num_examples:
            point = self._retrained(positions).point
        self._objective.move(point)
        return self._objective.model

    def fingerprint(self) -> dict[str, Any]:
        """Return what the trained models depend on beside the positions, as JSON can hold it."""
        return {"tolerance": self.tolerance, **self._objective.fingerprint()}

    def full(self) -> keras.Model:
        """Return a new float64 model, trained on all examples."""
        return self(np.arange(self.num_examples))

    @cached_property
    def _scale(self) -> float:
        """The norm of the gradient at zero weights, beside which others are large or small."""
        everything = self._objective.row_weights(np.arange(self.num_examples))
        origin = np.zeros(self._objective.size)
        return float(np.linalg.norm(self._objective.value_and_gradient(origin, everything)[1]))

    @cached_property
    def _optimum(self) -> _Optimum:
        """The minimum of all examples."""
        positions = np.arange(self.num_examples)
        goal = max(self.tolerance, ROUGH * self._scale) if self.precondition else self.tolerance
        found = self._minimise(positions, self._objective.point, goal, None)
        whitening = None
        for _ in range(ROUNDS if self.precondition else 0):
            whitening = Whitening(self._objective.hessian(found.point, positions))
            found = self._minimise(positions, found.point, 0.0, whitening)
            # Where it took long, the Hessian had changed on the way: compute it once more.
            if found.gradient_norm <= self.tolerance and found.num_passes <= QUICK:
                break
        self._check(found, positions)
        everything = self._objective.row_weights(positions)
        here = self._objective.value_and_gradient(found.point, everything)
        return _Optimum(found.point, here, whitening)

    def _retrained(self, positions: np.ndarray) -> Minimum:
        """Return the minimum for some of the examples."""
        optimum, removed = self._optimum, np.ones(self.num_examples, bool)
        removed[positions] = False
        first = None
        few = min(FEW * self.num_examples, self._objective.chunk_size)
        if removed.sum() <= few:
            rows = np.flatnonzero(removed)
            first = self._objective.without(optimum.point, optimum.value_and_gradient, rows)
        found = self._minimise(positions, optimum.point, None, optimum.whitening, first)
        start_norm = found.start_norm
        goal = self._goal(start_norm)
        for _ in range(RETRAINING_ROUNDS if self.precondition else 0):
            if found.gradient_norm <= goal:
                break
            # So much is gone that the Hessian is another.
            nearer = Whitening(self._objective.hessian(found.point, positions))
            found = self._minimise(positions, found.point, goal, nearer)
        self._check(found, positions)
        if found.gradient_norm > max(DOUBTFUL * start_norm, FLOOR * self._scale):
            message = (
                f"Without {self.num_examples - len(positions)} examples the gradient came down "
                f"from {start_norm:.1e} to {found.gradient_norm:.1e} only, so that the changes are "
                "not known to a hundredth. Pass precondition=True, or raise max_steps."
            )
            warnings.warn(message, ConvergenceWarning, stacklevel=4)
        return found

    def _goal(self, start_norm: float) -> float:
        return min(self.tolerance, max(REDUCTION * start_norm, FLOOR * self._scale))

    def _minimise(
        self,
        positions: np.ndarray,
        start: np.ndarray,
        goal: float | None,
        factor: Whitening | None,
        first: tuple[float, np.ndarray] | None = None,
    ) -> Minimum:
        weights = self._objective.row_weights(positions)
        function = partial(self._objective.value_and_gradient, row_weights=weights)
        target = self._goal if goal is None else lambda _: goal
        return minimise(function, start, target, factor, self.max_steps, first)

    def _check(self, found: Minimum, positions: np.ndarray) -> None:
        """Refuse what is no minimum; NaN is none either."""
        if found.gradient_norm <= self.tolerance:
            return
        remedy = "" if self.precondition else "pass precondition=True, "
        message = (
            f"The training on {len(positions)} of {self.num_examples} examples did not converge: "
            f"the norm of the gradient is {found.gradient_norm:.2e}, and tolerance="
            f"{self.tolerance:g}. To remedy this, {remedy}raise max_steps={self.max_steps} or the "
            "tolerance, scale the inputs to about one, or regularise more. A model that is not "
            "convex in its trainable weights needs NetworkTraining."
        )
        raise ConvergenceError(message)


def _whether(precondition: bool | str, size: int) -> bool:
    """Return whether to factorise a Hessian of ``size`` rows."""
    if precondition == "auto":
        return size <= MOST_WHITENED
    if precondition not in (True, False):
        message = (
            'Argument `precondition` must be True, False or "auto". '
            f"Received: precondition={precondition!r}."
        )
        raise ValueError(message)
    return bool(precondition)
