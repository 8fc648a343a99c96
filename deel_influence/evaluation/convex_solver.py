"""Minimising smooth convex functions to the last digits, in NumPy and SciPy.

L-BFGS compares values of the function, and near a minimum the changes of the value drown in its
rounding while the gradient is still known to many digits: it ends at about the square root of the
precision. Newton steps look at the gradient alone, and finish what it began.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..errors import UnsupportedModelError
from ..extras import require

ValueAndGradient: TypeAlias = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""``function(point (p,)) -> (value, gradient (p,))``."""

RIDGE = 1e-10
"""What is added to a Hessian's diagonal, in its largest entry, so that flat directions (weights of
pixels that are always dark, the common shift of all biases) have a factor."""

HISTORY = 20
LINE_SEARCH_STEPS = 40
POLISH_STEPS = 25
SUFFICIENT_FALL = 0.8
"""A Newton step that leaves more than this share of the gradient's norm is one too many."""


@dataclass(frozen=True)
class Minimum:
    """Where a minimisation ended.

    Attributes
    ----------
    point
        Shape ``(p,)``.
    gradient_norm
        Of the gradient there.
    start_norm
        Of the gradient at the start.
    num_passes
        How often value and gradient were computed.
    """

    point: np.ndarray
    gradient_norm: float
    start_norm: float
    num_passes: int


class Whitening:
    """Variables in which a quadratic function is round, from its Hessian's Cholesky factor L.

    With ``x = x₀ + L⁻ᵀ u`` the Hessian in u is the identity, and one step along the negative
    gradient ends in the minimum.

    Parameters
    ----------
    hessian
        Symmetric, float64, shape ``(p, p)``; overwritten.

    Raises
    ------
    UnsupportedModelError
        If it has a negative eigenvalue, beyond rounding.
    """

    def __init__(self, hessian: np.ndarray) -> None:
        linalg = require_scipy("scipy.linalg")
        diagonal = np.einsum("ii->i", hessian)
        diagonal += RIDGE * max(float(diagonal.max()), np.finfo(np.float64).tiny)
        try:
            # The transpose of a symmetric matrix is itself, and in the order that LAPACK takes.
            self._factor = linalg.cholesky(hessian.T, lower=True, overwrite_a=True)
        except np.linalg.LinAlgError as error:
            message = (
                "The Hessian of the training objective must be positive definite, as that of a "
                f"convex one is. Received: {len(hessian)} weights, at which it is not ({error}). "
                "The model is not convex in its trainable weights (use NetworkTraining), or flat "
                "in some (add a kernel_regularizer, or pass precondition=False)."
            )
            raise UnsupportedModelError(message) from error
        self._solve = linalg.solve_triangular

    def to_steps(self, whitened: np.ndarray) -> np.ndarray:
        """Return ``L⁻ᵀ u``, shape ``(p,)``."""
        return self._solve(self._factor, whitened, lower=True, trans=1, check_finite=False)

    def to_whitened(self, gradient: np.ndarray) -> np.ndarray:
        """Return ``L⁻¹ g``, the gradient in u, shape ``(p,)``."""
        return self._solve(self._factor, gradient, lower=True, check_finite=False)

    def newton_step(self, gradient: np.ndarray) -> np.ndarray:
        """Return ``-H⁻¹ g``, shape ``(p,)``."""
        return -self.to_steps(self.to_whitened(gradient))


class _Counted:
    """A function that counts its calls and remembers the last."""

    def __init__(
        self, function: ValueAndGradient, start: np.ndarray, first: tuple[float, np.ndarray] | None
    ) -> None:
        self._function = function
        self._last = None if first is None else (start, *first)
        self.num_passes = 0

    @property
    def norm(self) -> float:
        """The norm of the last gradient."""
        return np.inf if self._last is None else float(np.linalg.norm(self._last[2]))

    def __call__(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        if self._last is None or not np.array_equal(self._last[0], point):
            self._last = (point.copy(), *self._function(point))
            self.num_passes += 1
        return self._last[1], self._last[2]


def minimise(
    function: ValueAndGradient,
    start: np.ndarray,
    target: Callable[[float], float],
    whitening: Whitening | None = None,
    max_steps: int = 1000,
    first: tuple[float, np.ndarray] | None = None,
) -> Minimum:
    """Minimise a smooth convex function by L-BFGS, polished by Newton steps.

    Parameters
    ----------
    function
        Value and gradient.
    start
        Where to begin, shape ``(p,)``.
    target
        Takes the norm of the gradient at the start, and returns that at which to stop. It may be
        beyond reach; the caller judges where it ended.
    whitening
        Of a Hessian near those that will be met. Without it L-BFGS runs in the variables as they
        are, and no Newton step is taken.
    max_steps
        Of L-BFGS.
    first
        Value and gradient at the start, where they are known already.

    Returns
    -------
    The point of the smallest gradient that was found.
    """
    counted = _Counted(function, start, first)
    value, gradient = counted(start)
    norm = start_norm = counted.norm
    goal = target(norm)
    point = start
    if norm > goal:
        point = _limited_memory(counted, start, value, gradient, goal, whitening, max_steps)
        # L-BFGS ends at the best value, and not always at the last point that it looked at.
        value, gradient = counted(point)
        norm = counted.norm
    if whitening is not None:
        point, norm = _polished(counted, point, gradient, goal, whitening)
    return Minimum(point, norm, start_norm, counted.num_passes)


def _limited_memory(
    counted: _Counted,
    start: np.ndarray,
    value: float,
    gradient: np.ndarray,
    goal: float,
    whitening: Whitening | None,
    max_steps: int,
) -> np.ndarray:
    """Run SciPy's L-BFGS-B until the gradient is small or the values can tell no more."""
    whitened = gradient if whitening is None else whitening.to_whitened(gradient)
    # SciPy's first step has the length one at most. In units of the Newton step, and the value in
    # those of its fall, that is the whole step, and the numbers are all about one.
    unit = 1.0 if whitening is None else float(np.linalg.norm(whitened))
    noise = 10 * np.finfo(np.float64).eps * abs(value) / unit**2
    if noise > 0.1:
        return start

    def to_point(scaled: np.ndarray) -> np.ndarray:
        return start + (unit * scaled if whitening is None else whitening.to_steps(unit * scaled))

    def scaled_function(scaled: np.ndarray) -> tuple[float, np.ndarray]:
        if not scaled.any():
            return 0.0, whitened / unit  # known already
        here, change = counted(to_point(scaled))
        change = change if whitening is None else whitening.to_whitened(change)
        return (here - value) / unit**2, change / unit

    def stop_at_goal(_: np.ndarray) -> None:
        # The point that a line search ends with is the last that it looked at.
        if counted.norm <= goal:
            raise StopIteration

    options = {
        "maxiter": max_steps,
        "maxfun": 10 * max_steps,
        "maxcor": HISTORY,
        "maxls": LINE_SEARCH_STEPS,
        "gtol": 0.0,
        "ftol": 0.0 if whitening is None else noise,
    }
    result = require_scipy("scipy.optimize").minimize(
        scaled_function,
        np.zeros_like(start),
        jac=True,
        method="L-BFGS-B",
        callback=stop_at_goal,
        options=options,
    )
    return to_point(result.x)


def _polished(
    counted: _Counted,
    point: np.ndarray,
    gradient: np.ndarray,
    goal: float,
    whitening: Whitening,
) -> tuple[np.ndarray, float]:
    """Take Newton steps with one Hessian for as long as the gradient falls."""
    norm = float(np.linalg.norm(gradient))
    for _ in range(POLISH_STEPS):
        if norm <= goal:
            break
        candidate = point + whitening.newton_step(gradient)
        _, gradient = counted(candidate)
        if not counted.norm < norm:
            break
        stalls = counted.norm > SUFFICIENT_FALL * norm
        point, norm = candidate, counted.norm
        if stalls:
            break
    return point, norm


def require_scipy(module: str) -> Any:
    """Import and return a module of SciPy.

    Raises
    ------
    MissingExtraError
        If SciPy is not installed.
    """
    return require(module, "evaluation", "Training convex models again needs")
