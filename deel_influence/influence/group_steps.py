"""Newton steps without groups, each of which has a curvature of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ..errors import ConvergenceError

MAX_STEPS = 100

Rows = Callable[[tf.Tensor], tf.Tensor]


def newton_steps(
    gradients: tf.Tensor, solve: Rows, own: Rows, tolerance: float, max_steps: int = MAX_STEPS
) -> tf.Tensor:
    """Solve ``(H - K_j) x_j = G_j`` for J groups at once.

    Conjugate gradients with H as preconditioner, for each group for itself. K_j has the rank of
    the group's members times their outputs at most, and after as many steps the solution is exact;
    it takes few where no direction hangs on the group. Products with H itself are not needed: they
    follow from those with its inverse.

    Parameters
    ----------
    gradients
        G, shape ``(J, p)``.
    solve, own
        Products with ``H⁻¹``, and of each row j with its ``K_j``, ``(J, p)`` to ``(J, p)``.
    tolerance
        A group has converged where ``‖G - (H - K) x‖ <= tolerance · ‖G‖``.
    max_steps
        Bound on the steps, each with one product of both kinds.

    Returns
    -------
    x, shape ``(J, p)``.

    Raises
    ------
    ConvergenceError
        If ``H - K_j`` is not positive along a direction, or the steps are used up.
    """
    scale = tf.norm(gradients, axis=1)
    solution, residual = tf.zeros_like(gradients), gradients
    inverse = direction = solve(residual)
    image = residual  # H times the direction
    before = _products(residual, inverse)
    for _ in range(max_steps):
        left = tf.norm(residual, axis=1) > tolerance * scale
        if not bool(tf.reduce_any(left)):
            return solution
        pushed = image - own(direction)
        energy = _products(direction, pushed)
        _check_positive(tf.boolean_mask(tf.range(tf.size(left)), left & (energy <= 0)).numpy())
        length = tf.where(left, before / energy, tf.zeros_like(energy))[:, None]
        solution += length * direction
        residual -= length * pushed
        inverse = solve(residual)
        now = _products(residual, inverse)
        turn = tf.math.divide_no_nan(now, before)[:, None]
        direction, image, before = inverse + turn * direction, residual + turn * image, now
    worst = float(tf.reduce_max(tf.math.divide_no_nan(tf.norm(residual, axis=1), scale)))
    message = (
        f"The Newton steps of groups must converge within {max_steps} steps. Received: a relative "
        f"residual of {worst:.1e}. Pass a strategy with a larger `damping`, or smaller groups."
    )
    raise ConvergenceError(message)


def _products(rows: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(rows * others, axis=1)


def _check_positive(groups: np.ndarray) -> None:
    if not len(groups):
        return
    message = (
        "Without a group, the training objective must have positive curvature. Received: none "
        f"along a direction without group {groups[0]}, which decides there by itself. Pass a "
        "strategy with a larger `damping`, smaller groups, or step='second_order'."
    )
    raise ConvergenceError(message)
