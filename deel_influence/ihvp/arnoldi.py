"""The inverse of the curvature within its dominant eigenvectors, by Arnoldi's method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..linalg.arnoldi import arnoldi
from ..linalg.checks import check_count
from ..linalg.low_rank import LowRank
from ..model.influence_model import BaseInfluenceModel
from ..types import Data
from ..utils.arguments import settings_in
from .low_rank import LowRankIHVP


class ArnoldiIHVP(LowRankIHVP):
    """Invert H on its dominant eigenvectors, those of the largest ``abs(λ)``, and no others [1]_.

    ``H⁻¹ v ≈ Uᵀ diag(1 / (λ + damping)) U v`` with U of k rows, from t steps of Arnoldi's method,
    each a product of one vector. Scores are inner products of k numbers for each example, and
    self-influence too, so that n examples are scored for the price of k directions.

    Parameters
    ----------
    model
        The wrapped model.
    train_dataset
        The batched training set.
    subspace_dim
        The number t of steps; more steps find the eigenpairs more exactly.
    k_largest_eig_vals
        How many eigenpairs are kept.
    force_hermitian
        Whether rounding is removed from the projected curvature, which is symmetric but for it.
    keep_orthogonal
        Whether what is orthogonal to the eigenvectors is divided by the damping, as in
        `NystromIHVP`, in place of being dropped, as in the paper: nearer to the damped inverse,
        for scores of p numbers in place of k. Needs a damping above 0.
    damping
        Added to the eigenvalues: a number, ``"auto"``, or one number for each watched layer.
    curvature
        ``"hessian"``, ``"gauss_newton"``, ``"fisher"`` or ``"empirical_fisher"``.
    regularizer, n_samples_for_hessian
        As for `ConjugateGradientDescentIHVP`.
    seed
        Fixes the first vector and the draw of examples.

    References
    ----------
    .. [1] A. Schioppa, P. Zablotskaia, D. Vilar, A. Sokolov. Scaling Up Influence Functions. AAAI
       2022.
    """

    name = "arnoldi"

    spectrum: np.ndarray
    """All Ritz values, by decreasing absolute value, float64, shape ``(t,)``."""

    bounds: np.ndarray
    """How far the nearest eigenvalue is from each of them at most, float64, shape ``(t,)``."""

    def __init__(
        self,
        model: BaseInfluenceModel,
        train_dataset: Data | None = None,
        subspace_dim: int = 200,
        k_largest_eig_vals: int = 100,
        force_hermitian: bool = True,
        *,
        keep_orthogonal: bool = False,
        damping: Any = 0.0,
        curvature: str = "hessian",
        regularizer: bool = True,
        n_samples_for_hessian: int | None = None,
        seed: int | None = None,
    ) -> None:
        config = settings_in(locals())
        if check_count("k_largest_eig_vals", k_largest_eig_vals) > subspace_dim:
            message = (
                "Argument `k_largest_eig_vals` must not exceed `subspace_dim`. Received: "
                f"{k_largest_eig_vals} of {subspace_dim}."
            )
            raise ValueError(message)
        check_count("subspace_dim", subspace_dim)
        super().__init__(model, train_dataset, config)

    @property
    def projects(self) -> bool:
        return not self.config["keep_orthogonal"]

    def _approximate(self) -> LowRank:
        operator = self._scaled(self.undamped_operator)
        found = arnoldi(
            operator,
            min(self.config["subspace_dim"], operator.size),
            self.config["k_largest_eig_vals"],
            seed=self.config["seed"],
            force_hermitian=self.config["force_hermitian"],
        )
        self.spectrum, self.bounds = found.spectrum, found.bounds
        return found.low_rank

    def _find_diagonal(self) -> np.ndarray:
        diagonal = super()._find_diagonal()
        if self.config["keep_orthogonal"] and diagonal.min() <= 0:
            message = (
                "Argument `damping` must be above 0 with keep_orthogonal=True, which divides by "
                f"it. Received: {self.damping_values.tolist()}."
            )
            raise ValueError(message)
        return diagonal

    def _state(self) -> dict[str, np.ndarray]:
        return {**super()._state(), "spectrum": self.spectrum, "bounds": self.bounds}

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        super()._restore(state)
        self.spectrum, self.bounds = state["spectrum"], state["bounds"]
