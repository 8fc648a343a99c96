"""What each strategy is expected to cost, before any of them is fitted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .iterative import TOLERANCE

BYTES = 4


@dataclass(frozen=True)
class Problem:
    """The size of a problem.

    Attributes
    ----------
    num_parameters
        The number p of watched parameters.
    num_examples
        The number n of training examples.
    num_outputs
        The number c of outputs.
    condition_number
        That of the damped curvature.
    product_passes
        The cost of a product of the curvature with one vector, in passes of gradients over the
        training set.
    factor_entries
        The entries of the Kronecker factors of all layers.
    num_vectors
        How many right-hand sides are solved for.
    """

    num_parameters: int
    num_examples: int
    num_outputs: int
    condition_number: float
    product_passes: float
    factor_entries: int
    num_vectors: int = 64


@dataclass(frozen=True)
class Cost:
    """What a strategy costs, roughly.

    Attributes
    ----------
    fit_passes, solve_passes
        The time of the fit, and of solving for all right-hand sides, in passes of gradients over
        the training set.
    memory_bytes
        What is kept in memory beside model and batches.
    """

    fit_passes: float
    solve_passes: float
    memory_bytes: float


def expected_costs(problem: Problem) -> dict[str, Cost]:
    """Return the cost of each strategy with its default settings, by name.

    These are counts of products and passes, with bounds from theory for iterations: conjugate
    gradients need at most ``½ √κ ln(2/ε)`` steps at condition number κ, a Neumann series about
    ``κ ln(1/ε)``; both stop at their default number of steps.
    """
    p, k, product = problem.num_parameters, problem.num_vectors, problem.product_passes
    kappa = max(problem.condition_number, 1.0)
    cg_steps = min(0.5 * math.sqrt(kappa) * math.log(2 / TOLERANCE), 100)
    neumann_steps = min(kappa * math.log(1 / TOLERANCE), 1000)
    vectors = BYTES * p * k
    kronecker = BYTES * (problem.factor_entries + p)
    rows = BYTES * problem.num_examples * problem.num_outputs * p
    return {
        "identity": Cost(0, 0, vectors),
        "exact": Cost(p * product, 0, 5 * 8 * p**2),
        "cgd": Cost(0, cg_steps * k * product, 6 * vectors),
        "lissa": Cost(0, neumann_steps * k * product, 4 * vectors),
        "arnoldi": Cost(200 * product, 0, BYTES * 200 * p),
        "nystrom": Cost(144 * product, 0, 3 * BYTES * 144 * p),
        "kfac": Cost(1, 0, kronecker),
        "ekfac": Cost(2, 0, kronecker),
        # 16 by 16 numbers for each layer, whose second moments are few beside the factors.
        "logra": Cost(1, 0, kronecker),
        "datainf": Cost(1, 2, 2 * vectors),
        "woodbury": Cost(problem.num_outputs, 0, 3 * rows),
        "astra": Cost(2, min(neumann_steps, 200) * k * product, kronecker + 6 * vectors),
    }
