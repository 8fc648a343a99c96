"""Conjugate gradients for many right-hand sides, which share what each of them finds.

The right-hand sides of a block search one common Krylov space: k of them, with one product of k
vectors in each step, see k new directions a step and so need far fewer steps than one alone. The
form is that of Dubrulle [1]_, with the residuals kept as ``C Q``, Q orthonormal rows: unlike the
block method as first published [2]_ it stands right-hand sides that are, or become, dependent.
Here rows that no longer matter to any unconverged right-hand side are left out of Q, so that the
block shrinks, and its products with it, as right-hand sides converge.

References
----------
.. [1] A. A. Dubrulle. Retooling the Method of Block Conjugate Gradients. ETNA 2001.
.. [2] D. P. O'Leary. The Block Conjugate Gradient Algorithm and Related Methods. Linear Algebra
   and its Applications 1980.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from .checks import as_rows, check_count, check_positive
from .eigen import eigenpairs
from .linear_operator import IdentityOperator, LinearOperator
from .result import SolveResult, relative_residuals

NEGLIGIBLE = 0.05
"""A row of Q is left out where its share in each residual is this part of the tolerance."""

MAX_RESTARTS = 5
"""How often the residual that rounding has let drift is computed anew."""


@dataclass
class _Block:
    """The state of one block.

    Attributes
    ----------
    weights
        C, the residuals in terms of Q, float64, shape ``(k, t)``.
    directions
        The search directions S, shape ``(t, p)``.
    residual_rows
        Q, shape ``(t, p)``.
    """

    weights: np.ndarray
    directions: tf.Tensor
    residual_rows: tf.Tensor


class _NegativeCurvature(Exception):  # noqa: N818 - it ends a loop, nobody else sees it
    """A direction along which the operator is not positive; carries its Rayleigh quotient."""


def conjugate_gradients(
    operator: LinearOperator,
    rhs: tf.Tensor,
    *,
    preconditioner: LinearOperator | None = None,
    tolerance: float = 1e-5,
    max_steps: int = 100,
    all_steps: bool = False,
    block_size: int = 64,
) -> SolveResult:
    """Solve ``A x = b`` for every row b of ``rhs``, A positive definite.

    Parameters
    ----------
    operator
        A.
    rhs
        The right-hand sides, shape ``(k, p)``.
    preconditioner
        Products with ``P⁻¹``, positive definite; None is the identity.
    tolerance
        A right-hand side has converged where ``‖b - A x‖ <= tolerance · ‖b‖``.
    max_steps
        Bound on the steps; each takes one product with every direction of the block.
    all_steps
        Whether steps go on past the tolerance, as far as rounding errors allow.
    block_size
        How many right-hand sides are solved together.

    Returns
    -------
    The solutions, with the true residuals, from a product of their own at the end. Where A proves
    not to be positive definite, the solution is the last one before that.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    check_positive("tolerance", tolerance)
    check_count("max_steps", max_steps)
    check_count("block_size", block_size)
    rhs = as_rows("rhs", rhs, operator)
    inverse = preconditioner or IdentityOperator(operator.size, operator.dtype)
    blocks = range(0, max(int(rhs.shape[0]), 1), block_size)
    goal = float(np.finfo(rhs.dtype.as_numpy_dtype).eps) if all_steps else tolerance
    results = [
        _solve_block(operator, rhs[i : i + block_size], inverse, goal, max_steps) for i in blocks
    ]
    return SolveResult.join([_judged(result, tolerance) for result in results])


def _solve_block(
    operator: LinearOperator,
    rhs: tf.Tensor,
    inverse: LinearOperator,
    tolerance: float,
    max_steps: int,
) -> SolveResult:
    lengths = tf.norm(rhs, axis=1, keepdims=True)
    # Unit vectors, so that none is lost in the rounding errors of a longer one.
    rhs = tf.math.divide_no_nan(rhs, lengths)
    scale = tf.norm(tf.cast(rhs, tf.float64), axis=1).numpy()
    solution, residual = tf.zeros_like(rhs), rhs
    steps = np.zeros(len(scale), np.int64)
    errors = np.where(scale > 0, 1.0, 0.0)
    reason, taken = "", 0
    for _ in range(MAX_RESTARTS + 1):
        open_rows = np.flatnonzero(errors > tolerance)
        if not len(open_rows) or taken >= max_steps or reason:
            break
        before = errors
        part = tf.gather(residual, open_rows)
        run = _Run(operator, inverse, scale[open_rows], tolerance, max_steps - taken)
        change, used, reason = run.solve(part)
        solution = tf.tensor_scatter_nd_add(solution, open_rows[:, None], change)
        steps[open_rows] += used
        taken += int(used.max(initial=0))
        products = operator.apply(solution)
        errors = relative_residuals(rhs, products)
        residual = rhs - products
        if np.all(errors[open_rows] > 0.5 * before[open_rows]):
            break  # no progress beyond rounding
    converged = errors <= tolerance
    if not reason and not converged.all():
        reason = _why(taken, max_steps)
    solution *= lengths
    return SolveResult(solution, steps, errors, converged, "" if converged.all() else reason)


def _judged(result: SolveResult, tolerance: float) -> SolveResult:
    """Return a result whose convergence is measured by a tolerance."""
    converged = result.residual_norm <= tolerance
    reason = "" if converged.all() else result.reason
    return replace(result, converged=converged, reason=reason)


def _why(taken: int, max_steps: int) -> str:
    if taken >= max_steps:
        return f"the {max_steps} steps allowed were used up"
    return "rounding errors keep the residual from falling further"


class _Run:
    """Block conjugate gradients from a zero solution, until all rows seem to have converged.

    Parameters
    ----------
    operator, inverse
        A and ``P⁻¹``.
    scale
        ``‖b‖`` of each row, float64, shape ``(k,)``.
    tolerance, max_steps
        When to stop.
    """

    def __init__(
        self,
        operator: LinearOperator,
        inverse: LinearOperator,
        scale: np.ndarray,
        tolerance: float,
        max_steps: int,
    ) -> None:
        self._operator, self._inverse = operator, inverse
        self._scale, self._tolerance, self._max_steps = scale, tolerance, max_steps

    def solve(self, residual: tf.Tensor) -> tuple[tf.Tensor, np.ndarray, str]:
        """Return the solutions ``(k, p)``, the steps of each ``(k,)``, and why it ended early."""
        solution = tf.zeros_like(residual)
        steps = np.zeros(len(self._scale), np.int64)
        active = np.ones(len(self._scale), bool)
        block = self._start(residual)
        for _ in range(self._max_steps):
            if block is None:
                break
            try:
                update, block = self._step(block, active)
            except _NegativeCurvature as found:
                return solution, steps, str(found)
            solution += update
            steps[active] += 1
            if block is None:
                break
            active &= self._residual_norms(block) > self._tolerance * self._scale
            if not active.any():
                break
        return solution, steps, ""

    def _start(self, residual: tf.Tensor) -> _Block | None:
        """Write the residuals as ``C Q``, and search along ``P⁻¹ Q``."""
        weights = np.eye(int(residual.shape[0]))
        return self._orthonormal(residual, weights, None, np.ones(len(self._scale), bool))

    def _step(self, block: _Block, active: np.ndarray) -> tuple[tf.Tensor, _Block | None]:
        directions = block.directions
        images = self._operator.apply(directions)
        energies = _float64(tf.matmul(directions, images, transpose_b=True))
        inverse = _inverse_of(energies, directions)
        along = self._tensor(np.where(active[:, None], block.weights @ inverse, 0.0))
        update = tf.matmul(along, directions)
        rows = block.residual_rows - tf.matmul(self._tensor(inverse), images)
        return update, self._orthonormal(rows, block.weights, directions, active)

    def _orthonormal(
        self,
        rows: tf.Tensor,
        weights: np.ndarray,
        directions: tf.Tensor | None,
        active: np.ndarray,
    ) -> _Block | None:
        """Make rows orthonormal in the inner product of ``P⁻¹``, dropping what does not matter.

        With ``rows = ζᵀ Q`` the weights become ``C ζᵀ`` and the directions ``P⁻¹ Q + ζ S``.
        """
        images = self._inverse.apply(rows)
        gram = _float64(tf.matmul(rows, images, transpose_b=True))
        importance = weights[active] / self._scale[active, None]
        factor = self._factor(gram, importance, rows)
        if factor is None:
            return None
        change, zeta = factor
        rows, images = (tf.matmul(self._tensor(change), part) for part in (rows, images))
        # Once more, because the first Gram matrix holds its small eigenvalues to few digits.
        gram = _float64(tf.matmul(rows, images, transpose_b=True))
        values, vectors = eigenpairs((gram + gram.T) / 2)
        root = np.sqrt(np.maximum(values, np.finfo(np.float32).tiny))
        again = self._tensor((vectors / root).T)
        rows, images = tf.matmul(again, rows), tf.matmul(again, images)
        zeta = (vectors * root).T @ zeta
        if directions is not None:
            images += tf.matmul(self._tensor(zeta), directions)
        return _Block(weights @ zeta.T, images, rows)

    def _factor(
        self, gram: np.ndarray, importance: np.ndarray, rows: tf.Tensor
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return what turns the rows into kept orthonormal ones, and ζ; None if none is kept."""
        # Rows of unit length first: their lengths may differ by more than rounding allows.
        length = np.sqrt(np.maximum(np.diag(gram), np.finfo(np.float32).tiny))
        scaled = gram / np.outer(length, length)
        values, vectors = eigenpairs((scaled + scaled.T) / 2)
        resolved = values > len(gram) * np.finfo(rows.dtype.as_numpy_dtype).eps
        # How much of each unconverged residual, relative to its right-hand side, lies along a
        # row: lengths in the inner product of P⁻¹ are close enough for that.
        share = np.abs((importance * length) @ vectors).max(axis=0, initial=0.0)
        change = (vectors / length[:, None]).T
        lengths = tf.norm(tf.cast(tf.matmul(self._tensor(change), rows), tf.float64), axis=1)
        limit = NEGLIGIBLE * self._tolerance / len(gram) ** 0.5
        kept = resolved & (share * lengths.numpy() > limit)
        if not kept.any():
            return None
        root = np.sqrt(values[kept])
        return change[kept] / root[:, None], (vectors[:, kept] * root).T * length

    def _residual_norms(self, block: _Block) -> np.ndarray:
        gram = _float64(tf.matmul(block.residual_rows, block.residual_rows, transpose_b=True))
        squares = np.einsum("it,ts,is->i", block.weights, gram, block.weights)
        return np.sqrt(np.maximum(squares, 0.0))

    def _tensor(self, array: np.ndarray) -> tf.Tensor:
        return tf.constant(array, self._operator.dtype)


def _float64(matrix: tf.Tensor) -> np.ndarray:
    return matrix.numpy().astype(np.float64)


def _inverse_of(energies: np.ndarray, directions: tf.Tensor) -> np.ndarray:
    """Return the inverse of ``S A Sᵀ``.

    Raises
    ------
    _NegativeCurvature
        If it is not positive definite.
    """
    values, vectors = eigenpairs((energies + energies.T) / 2)
    if values[0] > 0:
        return (vectors / values) @ vectors.T
    worst = tf.linalg.matvec(directions, tf.constant(vectors[:, 0], directions.dtype), True)
    quotient = values[0] / float(tf.reduce_sum(tf.square(tf.cast(worst, tf.float64))))
    message = (
        f"the operator is not positive definite: it has curvature {quotient:.3g} along a direction"
    )
    raise _NegativeCurvature(message)
