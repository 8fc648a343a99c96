"""Neumann series: fixed-point iterations that can take a fresh mini-batch of curvature each step.

`preconditioned_neumann` is the general form, `deel_influence.linalg.lissa` the one without a
preconditioner; both run `fixed_point`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from .checks import as_rows, check_count, check_positive
from .lanczos import extreme_eigenvalues, preconditioned_extremes
from .linear_operator import LinearOperator, ScaledOperator
from .result import SolveResult, relative_residuals

Operators: TypeAlias = LinearOperator | Iterable[LinearOperator]
"""One operator for all steps, or one for each step, such as the curvatures of mini-batches."""

# A right-hand side whose relative residual passes this on the way is given up. With one operator,
# for which residuals can only shrink or grow, one that ends above the second is given up too.
DIVERGED = 1e4
GREW = 1.01

# Mini-batches that are looked at to see how large eigenvalues get, and the factor by which those
# of others may exceed the largest seen; for a single operator, that by which Lanczos may be low.
DRAWS = 4
MARGIN_OF_BATCHES = 2.0
MARGIN_OF_ONE = 1.1
LANCZOS_STEPS = 12


class DampedSystem:
    """The matrix ``A + damping·I`` of a system, known by mini-batches or as a whole.

    Parameters
    ----------
    operators
        A for all steps, or A_t for each; the latter has to have as many as there are steps.
    damping
        A number, or one for each entry, shape ``(p,)``.
    full_operator
        A, to measure the final residual.

    Raises
    ------
    ValueError
        If there is no full operator.
    """

    def __init__(
        self, operators: Operators, damping: Any, full_operator: LinearOperator | None
    ) -> None:
        self.is_single = isinstance(operators, LinearOperator)
        if isinstance(operators, LinearOperator):
            full_operator = full_operator or operators
            operators = repeat(operators)
        if full_operator is None:
            message = (
                "Argument `full_operator` is needed where `operators` gives one for each step: "
                "the residual is measured with it. Received: None."
            )
            raise ValueError(message)
        self.full = full_operator.damped(damping)
        self._source = (operator.damped(damping) for operator in operators)
        self._drawn: deque[LinearOperator] = deque(maxlen=1 if self.is_single else DRAWS)

    def draw(self) -> LinearOperator:
        """Return the damped operator of the next step.

        Raises
        ------
        ValueError
            If the operators have come to an end.
        """
        operator = next(self._source, None)
        if operator is None:
            message = (
                "Argument `operators` must give an operator for every step. Received: an iterable "
                "that ended. Repeat it, for instance with `itertools.cycle`."
            )
            raise ValueError(message)
        self._drawn.append(operator)
        return operator

    def largest(self, preconditioner: LinearOperator | None, seed: int | None) -> float:
        """Return a number that the eigenvalues of all operators should not exceed.

        An estimate: the largest of the last mini-batches, or of the first before any is drawn,
        times a factor. The full operator's own would be too low, for it is below their mean.
        """
        if not self._drawn:
            for _ in range(self._drawn.maxlen or 1):
                self.draw()
        values = [_extremes(operator, preconditioner, seed)[1] for operator in self._drawn]
        margin = MARGIN_OF_ONE if self.is_single else MARGIN_OF_BATCHES
        return max(margin * max(values), float(np.finfo(np.float32).tiny))

    def smallest(self, preconditioner: LinearOperator | None, seed: int | None) -> float:
        """Return an estimate of the smallest eigenvalue of the full operator."""
        return _extremes(self.full, preconditioner, seed)[0]


def _extremes(
    operator: LinearOperator, preconditioner: LinearOperator | None, seed: int | None
) -> tuple[float, float]:
    if preconditioner is None:
        return extreme_eigenvalues(operator, LANCZOS_STEPS, seed)
    return preconditioned_extremes(operator, preconditioner, LANCZOS_STEPS, seed)


def preconditioned_neumann(
    operators: Operators,
    rhs: Any,
    preconditioner: LinearOperator,
    *,
    damping: Any,
    learning_rate: float | None = 1.0,
    num_steps: int = 200,
    num_repeats: int = 1,
    tolerance: float = 1e-3,
    all_steps: bool = False,
    full_operator: LinearOperator | None = None,
    seed: int | None = None,
) -> SolveResult:
    """Solve ``(A + damping·I) x = b`` by ``x ← x - α P⁻¹ ((A_t + damping·I) x - b)``.

    The iteration of ASTRA (Wang et al. 2025, "Better Training Data Attribution via Better Inverse
    Hessian-Vector Products", arXiv 2507.14740), where P is the damped EKFAC curvature and A_t the
    Gauss-Newton matrix of a mini-batch. From ``x = 0`` with ``α = 1`` the first step gives the
    preconditioner's own answer ``P⁻¹ b``, and those after it correct it. With mini-batches the
    expectation of x converges to the solution, while its noise does not vanish: average repeats,
    or lower α.

    Parameters
    ----------
    operators
        A for all steps, or an iterable that gives A_t for each. A mini-batch is drawn once and may
        be applied more often.
    rhs
        Right-hand sides b, shape ``(k, p)``.
    preconditioner
        The operator ``P⁻¹``, symmetric positive definite.
    damping
        A number, or one for each entry, shape ``(p,)``; it belongs to the system that is solved,
        whatever P's own damping.
    learning_rate
        The number α: all eigenvalues of ``α P⁻¹ (A_t + damping·I)`` have to be in (0, 2). None
        takes 1, or less if that is what keeps them below 1.5 by an estimate.
    num_steps
        Steps at most, one product of all unfinished right-hand sides each.
    num_repeats
        How many solves to average; without effect for a single operator.
    tolerance
        Relative residual at which a right-hand side has converged. With a single operator each
        one stops there; with mini-batches all steps are taken, since none of them can tell.
    all_steps
        Whether all steps are taken with a single operator too, past the tolerance.
    full_operator
        The operator A, for the final residual; needed with mini-batches.
    seed
        Draws the vectors of the estimates.

    Returns
    -------
    The solutions; 0 for a right-hand side that diverged, with a reason that says why.

    Raises
    ------
    ValueError
        If an argument is out of its range, or the operators end too soon.
    NonFiniteError
        If right-hand sides or products hold NaN or infinity.
    """
    system = DampedSystem(operators, damping, full_operator)
    if learning_rate is None:
        learning_rate = min(1.0, 1.5 / system.largest(preconditioner, seed))
    rate = check_positive("learning_rate", learning_rate)

    def explain() -> str:
        return (
            f"the residual grew at learning_rate={rate:.3g}: that must be below 2 over the "
            "largest eigenvalue of P⁻¹(A + damping·I) on any batch (estimated at up to "
            f"{system.largest(preconditioner, seed):.3g}), and the smallest must be above 0 "
            f"(estimated at {system.smallest(preconditioner, seed):.3g}); lower `learning_rate`, "
            "or raise `damping` if an eigenvalue is negative"
        )

    step = ScaledOperator(preconditioner, rate)
    return fixed_point(system, rhs, step, explain, num_steps, num_repeats, tolerance, all_steps)


def fixed_point(
    system: DampedSystem,
    rhs: Any,
    step: LinearOperator,
    explain: Callable[[], str],
    num_steps: int,
    num_repeats: int,
    tolerance: float,
    all_steps: bool,
) -> SolveResult:
    """Iterate ``x ← x + S (b - M_t x)`` from 0, for the matrices M_t of a system.

    Parameters
    ----------
    system
        Gives M_t, and M for the final residual.
    rhs
        The right-hand sides b, shape ``(k, p)``.
    step
        The operator S.
    explain
        Says why a residual may grow; called only if one does.
    num_steps, num_repeats, tolerance, all_steps
        As in `preconditioned_neumann`.
    """
    rhs = as_rows("rhs", rhs, system.full)
    check_count("num_steps", num_steps)
    repeats = 1 if system.is_single else check_count("num_repeats", num_repeats)
    check_positive("tolerance", tolerance)
    scale = _norms(rhs)
    solution, steps = tf.zeros_like(rhs), np.zeros(len(scale), np.int64)
    diverged = np.zeros(len(scale), bool)
    for _ in range(repeats):
        run = _Run(rhs, scale, step)
        # Of a mini-batch the residual does not tell that of the whole.
        goal = tolerance if system.is_single and not all_steps else None
        run.iterate(system, num_steps, goal)
        solution += run.solution() / repeats
        steps, diverged = steps + run.steps, diverged | run.diverged
    residual = relative_residuals(rhs, system.full.apply(solution))
    # NaN, from an overflow in the last step, compares as false.
    diverged |= ~(residual <= GREW)
    solution = tf.where(diverged[:, None], tf.zeros_like(solution), solution)
    residual = np.where(diverged, 1.0, residual)
    converged = residual <= tolerance
    reason = ""
    if diverged.any():
        reason = explain()
    elif not converged.all():
        reason = f"the relative residual is above {tolerance:g} after {num_steps} steps"
    return SolveResult(solution, steps, residual, converged & ~diverged, reason)


class _Run:
    """One pass of the iteration; right-hand sides that are finished take no more products."""

    def __init__(self, rhs: tf.Tensor, scale: np.ndarray, step: LinearOperator) -> None:
        self.steps = np.zeros(len(scale), np.int64)
        self.diverged = np.zeros(len(scale), bool)
        self._step, self._rhs, self._scale = step, rhs, scale
        self._rows = np.arange(len(scale))
        # What remains of the first step from 0, whose product is 0.
        self._iterate = step.apply(rhs)
        self._finished: list[tuple[np.ndarray, tf.Tensor]] = []

    def iterate(self, system: DampedSystem, num_steps: int, goal: float | None) -> None:
        """Take the steps; a right-hand side leaves at the relative residual ``goal``, if any."""
        for number in range(1, num_steps):
            residual = self._rhs - system.draw().apply(self._iterate)
            norms = _norms(residual)
            # NaN compares as false and so counts as diverged.
            diverged = ~(norms <= DIVERGED * self._scale)
            done = np.zeros_like(diverged) if goal is None else norms <= goal * self._scale
            self.diverged[self._rows] = diverged
            if (done | diverged).any():
                residual = self._finish(done | diverged, number, residual)
            if not len(self._rows):
                break
            self._iterate += self._step.apply(residual)
        self._finish(np.ones(len(self._rows), bool), num_steps, self._iterate)

    def solution(self) -> tf.Tensor:
        """Return the last iterates in the order of the right-hand sides, shape ``(k, p)``."""
        rows = np.concatenate([rows for rows, _ in self._finished])
        values = tf.concat([values for _, values in self._finished], axis=0)
        values = tf.gather(values, np.argsort(rows))
        return tf.where(self.diverged[:, None], tf.zeros_like(values), values)

    def _finish(self, leaving: np.ndarray, number: int, residual: tf.Tensor) -> tf.Tensor:
        """Set rows aside; return the residuals of the others."""
        gone, stay = np.flatnonzero(leaving), np.flatnonzero(~leaving)
        self.steps[self._rows[gone]] = number
        self._finished.append((self._rows[gone], tf.gather(self._iterate, gone)))
        self._rows, self._scale = self._rows[stay], self._scale[stay]
        self._rhs, self._iterate = tf.gather(self._rhs, stay), tf.gather(self._iterate, stay)
        return tf.gather(residual, stay)


def _norms(rows: tf.Tensor) -> np.ndarray:
    return tf.norm(rows, axis=1).numpy().astype(np.float64)
