"""The inverse of the Gauss-Newton matrix by iterations that EKFAC preconditions."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..linalg.checks import check_choice
from ..linalg.conjugate_gradients import conjugate_gradients
from ..linalg.neumann import preconditioned_neumann
from ..linalg.result import SolveResult
from ..model.influence_model import BaseInfluenceModel
from ..types import Data
from ..utils.arguments import settings_in
from .preconditioned import PreconditionedIHVP

SOLVERS = ("neumann", "cg")


class AstraIHVP(PreconditionedIHVP):
    """Correct EKFAC's answer by ``x ← x + α P⁻¹ (g - H_t x)``, P its damped curvature [1]_.

    The first step gives what EKFAC alone would; those after it, with the Gauss-Newton matrix H_t
    of a mini-batch or of all examples, remove its error. Where the series would diverge, the step
    is shortened by an estimate of the largest eigenvalue of ``P⁻¹ H_t``. ``solver="cg"`` gives the
    same correction by preconditioned conjugate gradients, which needs no step length.

    Parameters
    ----------
    model
        The wrapped model.
    train_dataset
        The batched training set.
    n_opt_iters
        Steps of each solve. All of them are taken where no tolerance is given, with ``"cg"`` as
        far as rounding errors allow. None takes 200 at most, and stops at the tolerance.
    solver
        ``"neumann"`` or ``"cg"``.
    learning_rate
        α; None takes one, or less where that is too much.
    batch_size
        Examples in each step; None takes all of them. With ``solver="cg"`` always all.
    num_repeats
        How many solves are averaged against the noise of mini-batches.
    damping
        Added to the diagonal: a number, ``"auto"`` (see `OperatorIHVP`), or one number for each
        watched layer.
    curvature
        ``"gauss_newton"``, or another positive semidefinite curvature.
    tolerance
        Relative residual at which a right-hand side has converged, and stops: after ``n_opt_iters``
        steps at the latest where both are given. None is 1e-4; with mini-batches, which take all
        steps, 0.01.
    regularizer, n_samples_for_hessian, seed, on_failure
        As for `ConjugateGradientDescentIHVP`.

    References
    ----------
    .. [1] A. Wang et al. Better Training Data Attribution via Better Inverse Hessian-Vector
       Products. arXiv 2507.14740, 2025.
    """

    name = "astra"
    separable = True
    default_steps = 200
    default_noise = 0.01

    def __init__(
        self,
        model: BaseInfluenceModel,
        train_dataset: Data | None = None,
        n_opt_iters: int | None = None,
        *,
        solver: str = "neumann",
        learning_rate: float | None = None,
        batch_size: int | None = None,
        num_repeats: int = 1,
        damping: Any = "auto",
        curvature: str = "gauss_newton",
        tolerance: float | None = None,
        regularizer: bool = True,
        n_samples_for_hessian: int | None = None,
        seed: int | None = None,
        on_failure: str = "warn",
    ) -> None:
        config = settings_in(locals())
        check_choice("solver", solver, SOLVERS)
        super().__init__(model, train_dataset, config)

    @property
    def preconditioner_name(self) -> str:
        return "ekfac"

    def _iterate(self, vectors: tf.Tensor) -> SolveResult:
        preconditioner = self.preconditioner
        if preconditioner is None or self.config["solver"] == "cg":
            return conjugate_gradients(
                self.operator,
                vectors,
                preconditioner=preconditioner,
                **self._krylov_settings(),
            )
        return preconditioned_neumann(
            self.step_operators(self.config["batch_size"], self.config["seed"]),
            vectors,
            preconditioner,
            learning_rate=self.config["learning_rate"],
            **self._series_settings(),
        )

    def _remedy(self, result: SolveResult) -> str:
        if "grew" in result.reason:
            return "Those that diverged are returned as zeros."
        return (
            "Pass a larger `n_opt_iters`, `batch_size` or `damping` (now "
            f'{self.damping:.2g}), or solver="cg".'
        )
