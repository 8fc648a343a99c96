"""LiSSA: inverse-curvature products by a Neumann series over mini-batches."""

from __future__ import annotations

from typing import Any

from .checks import check_positive
from .linear_operator import IdentityOperator, LinearOperator
from .neumann import DampedSystem, Operators, fixed_point
from .result import SolveResult


def lissa(
    operators: Operators,
    rhs: Any,
    *,
    damping: Any,
    scale: float | None = None,
    num_steps: int = 1000,
    num_repeats: int = 1,
    tolerance: float = 1e-3,
    all_steps: bool = False,
    full_operator: LinearOperator | None = None,
    seed: int | None = None,
) -> SolveResult:
    """Solve ``(A + damping·I) x = b`` by ``h ← b + h - (A_t + damping·I) h / scale``, x = h/scale.

    The recursion of Agarwal et al. 2017, "Second-Order Stochastic Optimization for Machine
    Learning in Linear Time", as used by Koh and Liang 2017. Damping is inside of the division, so
    the solution is that of ``A + damping·I`` whatever the scale; in Koh and Liang's code and those
    that follow it, it is that of ``A + damping·scale·I``.

    Parameters
    ----------
    operators
        A for all steps, or an iterable that gives the A_t of each, say of mini-batches.
    rhs
        Right-hand sides b, shape ``(k, p)``.
    damping
        A number, or one for each entry, shape ``(p,)``.
    scale
        Has to be above half of the largest eigenvalue of every ``A_t + damping·I``; the larger,
        the more steps are needed. None takes 1.1 times Lanczos' estimate of it for a single
        operator, and twice the largest of four mini-batches otherwise, since others may exceed it.
    num_steps
        Steps at most, one product of all unfinished right-hand sides each.
    num_repeats
        How many solves to average against the noise of mini-batches, which more steps do not
        remove; without effect for a single operator.
    tolerance
        Relative residual at which a right-hand side has converged. With a single operator each
        one stops there; with mini-batches all steps are taken, since none of them can tell.
    all_steps, full_operator, seed
        As for `preconditioned_neumann`.

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
    divisor = check_positive("scale", system.largest(None, seed) if scale is None else scale)

    def explain() -> str:
        return (
            f"the residual grew at scale={divisor:.3g}: that must be above half of the largest "
            "eigenvalue of A + damping·I on any batch (estimated at up to "
            f"{system.largest(None, seed):.3g}), and the smallest must be above 0 (estimated at "
            f"{system.smallest(None, seed):.3g}); raise `scale`, or `damping` if an eigenvalue is "
            "negative"
        )

    # In x instead of h, whose first value b is one step from 0: x ← x + (b - (A_t + damping) x)/s.
    step = (1.0 / divisor) * IdentityOperator(system.full.size, system.full.dtype)
    return fixed_point(system, rhs, step, explain, num_steps, num_repeats, tolerance, all_steps)
