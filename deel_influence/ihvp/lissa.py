"""The inverse of the curvature by LiSSA."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..linalg.lissa import lissa
from ..linalg.result import SolveResult
from ..model.influence_model import BaseInfluenceModel
from ..types import Data
from ..utils.arguments import settings_in
from .iterative import IterativeIHVP


class LissaIHVP(IterativeIHVP):
    """Solve ``H x = g`` by the Neumann series ``x ← x + (g - H_t x) / scale`` [1]_ [2]_.

    H_t is the curvature of a mini-batch, drawn anew for every step, so that a step costs a product
    with ``batch_size`` examples whatever n is; or H itself with ``batch_size=None``, where the
    iteration stops at the tolerance. It converges if the scale exceeds half the largest
    eigenvalue of every H_t and H is positive definite; what diverges is reported.

    Parameters
    ----------
    model
        The wrapped model.
    extractor_layer, feature_extractor
        Without effect, kept for users of Influenciae; see `ConjugateGradientDescentIHVP`.
    train_dataset
        The batched training set.
    n_opt_iters
        Steps of each solve. All of them are taken where no tolerance is given. None takes 1,000 at
        most, and stops at the tolerance.
    damping
        Added to the diagonal of H itself, whatever the scale: a number, ``"auto"`` (see
        `OperatorIHVP`), or one number for each watched layer.
    scale
        None estimates it from the largest eigenvalue.
    batch_size
        Examples in each step; None takes all of them.
    num_repeats
        How many solves are averaged against the noise of mini-batches.
    curvature
        ``"hessian"``, ``"gauss_newton"``, ``"fisher"`` or ``"empirical_fisher"``.
    tolerance
        Relative residual at which a right-hand side has converged, and stops: after ``n_opt_iters``
        steps at the latest where both are given. None is 1e-4; with mini-batches, which take all
        steps, 0.05.
    regularizer, n_samples_for_hessian, seed, on_failure
        As for `ConjugateGradientDescentIHVP`.

    Raises
    ------
    ConvergenceError
        With ``on_failure="raise"``, where a right-hand side does not converge.

    Warns
    -----
    ConvergenceWarning
        With ``on_failure="warn"``; a right-hand side that diverged gives zeros.

    References
    ----------
    .. [1] N. Agarwal, B. Bullins, E. Hazan. Second-Order Stochastic Optimization for Machine
       Learning in Linear Time. JMLR 2017.
    .. [2] P. W. Koh, P. Liang. Understanding Black-box Predictions via Influence Functions. ICML
       2017.
    """

    name = "lissa"
    separable = True
    default_steps = 1000
    default_noise = 0.05

    def __init__(
        self,
        model: BaseInfluenceModel,
        extractor_layer: Any = None,
        train_dataset: Data | None = None,
        n_opt_iters: int | None = None,
        feature_extractor: Any = None,  # noqa: ARG002 - kept for users of Influenciae
        damping: Any = "auto",
        scale: float | None = None,
        *,
        batch_size: int | None = None,
        num_repeats: int = 1,
        curvature: str = "hessian",
        tolerance: float | None = None,
        regularizer: bool = True,
        n_samples_for_hessian: int | None = None,
        seed: int | None = None,
        on_failure: str = "warn",
    ) -> None:
        config = settings_in(locals())
        if train_dataset is None and isinstance(extractor_layer, tf.data.Dataset):
            train_dataset = extractor_layer
        super().__init__(model, train_dataset, config)

    def _iterate(self, vectors: tf.Tensor) -> SolveResult:
        return lissa(
            self.step_operators(self.config["batch_size"], self.config["seed"]),
            vectors,
            scale=self.config["scale"],
            **self._series_settings(),
        )

    def _remedy(self, result: SolveResult) -> str:
        if "grew" in result.reason:
            return "Those that diverged are returned as zeros."
        return (
            "Pass a larger `n_opt_iters`, `batch_size` or `num_repeats`, a larger `damping` (now "
            f"{self.damping:.2g}), or use ihvp_calculator='cgd', which needs far fewer products."
        )
