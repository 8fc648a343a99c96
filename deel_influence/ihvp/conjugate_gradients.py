"""The inverse of the curvature by conjugate gradients."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..linalg.conjugate_gradients import conjugate_gradients
from ..linalg.result import SolveResult
from ..model.influence_model import BaseInfluenceModel
from ..types import Data
from ..utils.arguments import settings_in
from .preconditioned import PreconditionedIHVP
from .preconditioning import check_preconditioner


class ConjugateGradientDescentIHVP(PreconditionedIHVP):
    """Solve ``H x = g`` by conjugate gradients, a batch of right-hand sides at once.

    H must be positive definite: where the Hessian has negative eigenvalues, the damping has to
    exceed them (``damping="auto"`` does), or the Gauss-Newton matrix takes its place. The
    right-hand sides of a batch share their search directions (block conjugate gradients), so
    that 64 of them need far fewer steps than one alone.

    Parameters
    ----------
    model
        The wrapped model.
    extractor_layer, feature_extractor
        Without effect, kept for users of Influenciae: the part of the model before the watched
        layers is found, and computed once, without being named. A dataset given as
        ``extractor_layer`` is taken for the training set.
    train_dataset
        The batched training set.
    n_opt_iters
        Steps of each solve. All of them are taken where no tolerance is given, as far as rounding
        errors allow. None takes 100 at most, and stops at the tolerance.
    damping
        Added to the diagonal: a number, ``"auto"`` (see `OperatorIHVP`), or one number for each
        watched layer.
    curvature
        ``"hessian"``, ``"gauss_newton"``, ``"fisher"`` or ``"empirical_fisher"``.
    preconditioner
        None, ``"jacobi"``, ``"nystrom"`` or ``"ekfac"``; fitted once.
    preconditioner_rank
        The rank of the Nyström preconditioner, the number of probes of the Jacobi one.
    tolerance
        Relative residual at which a right-hand side has converged, and stops: after ``n_opt_iters``
        steps at the latest where both are given. None is 1e-4.
    block_size
        How many right-hand sides are solved together.
    regularizer
        Whether the Hessian of the model's regularisers belongs to H.
    n_samples_for_hessian
        How many examples to draw for C; None takes all.
    seed
        Fixes all random choices.
    on_failure
        ``"warn"`` or ``"raise"`` where a right-hand side does not converge.

    Raises
    ------
    ConvergenceError
        With ``on_failure="raise"``, where a right-hand side does not converge.

    Warns
    -----
    ConvergenceWarning
        With ``on_failure="warn"``; the message says how far it got and what to change.

    References
    ----------
    .. [1] J. Martens. Deep Learning via Hessian-free Optimization. ICML 2010.
    .. [2] P. W. Koh, P. Liang. Understanding Black-box Predictions via Influence Functions. ICML
       2017.
    """

    name = "cgd"
    separable = True
    default_steps = 100

    def __init__(
        self,
        model: BaseInfluenceModel,
        extractor_layer: Any = None,
        train_dataset: Data | None = None,
        n_opt_iters: int | None = None,
        feature_extractor: Any = None,  # noqa: ARG002 - kept for users of Influenciae
        *,
        damping: Any = "auto",
        curvature: str = "hessian",
        preconditioner: str | None = None,
        preconditioner_rank: int = 64,
        tolerance: float | None = None,
        block_size: int = 64,
        regularizer: bool = True,
        n_samples_for_hessian: int | None = None,
        seed: int | None = None,
        on_failure: str = "warn",
    ) -> None:
        config = settings_in(locals())
        if train_dataset is None and isinstance(extractor_layer, tf.data.Dataset):
            train_dataset = extractor_layer
        check_preconditioner(preconditioner)
        super().__init__(model, train_dataset, config)

    def _iterate(self, vectors: tf.Tensor) -> SolveResult:
        return conjugate_gradients(
            self.operator,
            vectors,
            preconditioner=self.preconditioner,
            block_size=self.config["block_size"],
            **self._krylov_settings(),
        )

    def _remedy(self, result: SolveResult) -> str:
        if "positive definite" in result.reason:
            return (
                "Pass a larger `damping` (now "
                f'{self.damping:.2g}), damping="auto", or curvature="gauss_newton".'
            )
        if "rounding" in result.reason:
            return "Pass a larger `damping`, or a `tolerance` that float32 can reach."
        return (
            "Pass a larger `n_opt_iters`, a larger `damping`, or a preconditioner "
            '(preconditioner="ekfac" or "nystrom").'
        )
