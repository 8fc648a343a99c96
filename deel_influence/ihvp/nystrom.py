"""The inverse of the curvature by a randomised Nyström sketch."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..curvature.regularizer import regularizer_diagonal
from ..errors import CurvatureWarning
from ..linalg.checks import check_count
from ..linalg.low_rank import LowRank
from ..linalg.nystrom import nystrom
from ..model.influence_model import BaseInfluenceModel
from ..types import Data
from ..utils.arguments import settings_in
from .low_rank import LowRankIHVP


class NystromIHVP(LowRankIHVP):
    """Invert ``H ≈ Uᵀ diag(λ) U + damping · I``, the eigenpairs from r products at once [1]_.

    Unlike Arnoldi's method it needs one pass for all its products (so that they share the forward
    passes), and keeps the directions orthogonal to U, divided by the damping. Negative
    eigenvalues are left out, with a warning. A regulariser with a diagonal Hessian, such as L2, is
    added to the damping and not sketched.

    Parameters
    ----------
    model
        The wrapped model.
    train_dataset
        The batched training set.
    rank
        The number r of eigenpairs.
    oversampling
        How many more products are taken, which makes the r pairs more exact.
    damping
        Added to the diagonal: a number, ``"auto"`` (see `OperatorIHVP`), or one number for each
        watched layer. With 0 only U is inverted.
    curvature
        ``"hessian"``, ``"gauss_newton"``, ``"fisher"`` or ``"empirical_fisher"``.
    regularizer, n_samples_for_hessian
        As for `ConjugateGradientDescentIHVP`.
    seed
        Fixes the sketch and the draw of examples.

    Warns
    -----
    CurvatureWarning
        If the sketch meets negative eigenvalues, or ends where the curvature still exceeds the
        damping.

    References
    ----------
    .. [1] Z. Frangella, J. A. Tropp, M. Udell. Randomized Nyström Preconditioning. SIAM Journal on
       Matrix Analysis and Applications 2023.
    .. [2] R. Hataya, M. Yamada. Nyström Method for Accurate and Scalable Implicit Differentiation.
       AISTATS 2023.
    """

    name = "nystrom"

    def __init__(
        self,
        model: BaseInfluenceModel,
        train_dataset: Data | None = None,
        rank: int = 128,
        *,
        oversampling: int = 16,
        damping: Any = "auto",
        curvature: str = "hessian",
        regularizer: bool = True,
        n_samples_for_hessian: int | None = None,
        seed: int | None = None,
    ) -> None:
        config = settings_in(locals())
        check_count("rank", rank)
        check_count("oversampling", oversampling, 0)
        super().__init__(model, train_dataset, config)

    def _find_diagonal(self) -> np.ndarray:
        # What a regulariser adds to the diagonal is known exactly: a sketch of it, as of any
        # matrix that does not decay, would miss all directions but r.
        damping = super()._find_diagonal()
        self._sketches_regularizer = False
        if not self.config["regularizer"] or not self.model.is_regularized:
            return damping
        added = regularizer_diagonal(self.model)
        usable = added is not None and (np.ptp(damping + added) == 0 or np.min(damping + added) > 0)
        self._sketches_regularizer = not usable
        return damping + added if usable else damping

    def _approximate(self) -> LowRank:
        whole = self._sketches_regularizer
        operator = self._scaled(self.undamped_operator if whole else self.loss_operator)
        rank = min(self.config["rank"], operator.size)
        oversampling = min(self.config["oversampling"], operator.size - rank)
        found = nystrom(operator, rank, self.config["seed"], oversampling)
        if found.num_negative:
            message = (
                f"The curvature has negative eigenvalues, at least {found.num_negative}, the "
                f"smallest found {found.negative_values.min():.3g}; a Nyström sketch leaves them "
                'out. Use curvature="gauss_newton", which has none, or train further.'
            )
            warnings.warn(message, CurvatureWarning, stacklevel=6)
        self._warn_of_what_is_left(found.low_rank, operator.size)
        return found.low_rank

    def _warn_of_what_is_left(self, kept: LowRank, size: int) -> None:
        """Say where directions beyond the sketch have more curvature than they are divided by."""
        # A sketch that keeps fewer than it may has met the end of the curvature.
        is_cut = kept.rank == self.config["rank"] < size
        last = float(kept.values.min(initial=np.inf))
        if not is_cut or not 0 < self._shift < last:
            return
        message = (
            f"The sketch of rank {kept.rank} leaves curvature behind: the last eigenvalue that it "
            f"keeps is {last / self._shift:.3g} times what is on the diagonal, by which "
            f"directions beyond it are divided, so that these count too much (damping now "
            f"{self.damping:.2g}). Pass a larger `rank` or `damping`, or use "
            "ihvp_calculator='ekfac'."
        )
        warnings.warn(message, CurvatureWarning, stacklevel=7)
