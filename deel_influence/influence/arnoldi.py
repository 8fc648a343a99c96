"""Influence within the dominant eigenvectors of the curvature."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ..ihvp.arnoldi import ArnoldiIHVP
from ..model.influence_model import BaseInfluenceModel, check_influence_model
from ..model.measurements import Measurement
from ..types import Batch, Data
from .first_order import FirstOrderInfluenceCalculator


class ArnoldiInfluenceCalculator(FirstOrderInfluenceCalculator):
    """Influence ``g(z)ᵀ Uᵀ diag(1/λ) U g(z_i)``, U the k eigenvectors of largest ``abs(λ)`` [1]_.

    An example is k numbers: the vector of a query is ``U g(z)``, that of a training example
    ``diag(1/λ) U g(z_i)``, both ``(b, k)``, and a score is their inner product. Positive: z_i
    helps z. Eigenvalues keep their sign, so that a query and a training example that agree along
    a direction of negative curvature count as hurting each other there. Vectors of groups, and
    predicted changes of losses, are those of `FirstOrderInfluenceCalculator` with `ArnoldiIHVP`.

    Parameters
    ----------
    model
        The wrapped model.
    train_dataset
        The batched training set, over which the curvature is taken.
    subspace_dim
        The number t of Arnoldi steps, each a product of one vector with the curvature.
    force_hermitian
        Whether rounding is removed from the projected curvature, which is symmetric but for it.
    k_largest_eig_vals
        The number k of eigenpairs that are kept, at most t; all of them where there are fewer.
    dtype
        None, or the model's own dtype, in which everything is computed.
    damping
        Added to the eigenvalues: a number or ``"auto"``; see `ArnoldiIHVP`. One for each layer is
        refused: the eigenvectors would be those of another matrix than the curvature.
    curvature
        ``"hessian"``, ``"gauss_newton"``, ``"fisher"`` or ``"empirical_fisher"``.
    n_samples_for_hessian
        How many examples to draw for the curvature; None takes all.
    seed
        Fixes the first vector and the draw of examples.
    measurement
        Another number than the loss that is looked at on the queries; see
        `BaseInfluenceCalculator`.

    Raises
    ------
    ValueError
        If k is above t, the dtype is not that of the model, or the layers' dampings differ.

    References
    ----------
    .. [1] A. Schioppa, P. Zablotskaia, D. Vilar, A. Sokolov. Scaling Up Influence Functions. AAAI
       2022.
    """

    ihvp_calculator: ArnoldiIHVP

    def __init__(
        self,
        model: BaseInfluenceModel,
        train_dataset: Data,
        subspace_dim: int = 200,
        force_hermitian: bool = True,
        k_largest_eig_vals: int = 100,
        dtype: Any = None,
        *,
        damping: float | str = 0.0,
        curvature: str = "hessian",
        n_samples_for_hessian: int | None = None,
        seed: int | None = None,
        measurement: Measurement = None,
    ) -> None:
        check_influence_model(model)
        if dtype is not None and tf.as_dtype(dtype) != model.dtype:
            message = (
                f"Argument `dtype` must be None or that of the model, {model.dtype.name}, in which "
                f"curvature and gradients are computed. Received: {tf.as_dtype(dtype).name}. Build "
                "the model in that dtype."
            )
            raise ValueError(message)
        ihvp = ArnoldiIHVP(
            model,
            train_dataset,
            subspace_dim,
            k_largest_eig_vals,
            force_hermitian,
            damping=damping,
            curvature=curvature,
            n_samples_for_hessian=n_samples_for_hessian,
            seed=seed,
        )
        if not ihvp.is_evenly_damped:
            message = (
                "Argument `damping` of ArnoldiInfluenceCalculator must be one number for all "
                f"layers, or 'auto', to be added to eigenvalues. Received: {damping!r}. Pass "
                "ArnoldiIHVP with these dampings to FirstOrderInfluenceCalculator."
            )
            raise ValueError(message)
        super().__init__(model, train_dataset, ihvp, measurement=measurement)

    @property
    def eig_vals(self) -> np.ndarray:
        """The eigenvalues that are kept, without the damping, float64, shape ``(k,)``."""
        return self.ihvp_calculator.low_rank.values

    @property
    def G(self) -> tf.Tensor:  # noqa: N802 - the name of Influenciae
        """Their eigenvectors U, one in each row, shape ``(k, p)``."""
        return self.ihvp_calculator.low_rank.vectors

    def _train_vectors(self, batch: Batch) -> tf.Tensor:
        low_rank = self.ihvp_calculator.low_rank
        rows = low_rank.vectors if low_rank.left_vectors is None else low_rank.left_vectors
        weights = low_rank.inverse_values(self.ihvp_calculator.damping)
        return self.engine.gradients(batch).dot(rows) * tf.constant(weights, self.model.dtype)

    def _query_vectors(self, batch: Batch) -> tf.Tensor:
        return self.query_engine.gradients(batch).dot(self.ihvp_calculator.low_rank.vectors)
