"""Symmetric positive definite operators ``P⁻¹`` that are close to a damped curvature's inverse."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from .checks import check_positive
from .linear_operator import LinearOperator
from .low_rank import LowRank


class JacobiPreconditioner(LinearOperator):
    """``P⁻¹ = (diag(d) + damping·I)⁻¹``.

    Parameters
    ----------
    diagonal
        The diagonal d of the curvature, or an estimate of it, shape ``(p,)``.
    damping
        A number, or one for each entry, shape ``(p,)``.

    Raises
    ------
    ValueError
        If an entry of the damped diagonal is not above 0.
    """

    def __init__(self, diagonal: Any, damping: Any = 0.0) -> None:
        diagonal = tf.convert_to_tensor(diagonal)
        # By way of NumPy: TensorFlow would round Python's numbers to float32 before the cast.
        damped = diagonal + tf.cast(np.asarray(damping, np.float64), diagonal.dtype)
        if not bool(tf.reduce_all((damped > 0) & tf.math.is_finite(damped))):
            message = (
                "Argument `diagonal` plus `damping` must be finite and above 0 in every entry. "
                f"Received: {int(tf.reduce_sum(tf.cast(~(damped > 0), tf.int32)))} of "
                f"{damped.shape[0]} entries not above 0, the least {float(tf.reduce_min(damped))}."
                " Raise `damping`, or pass `tf.abs(diagonal)`; an estimate of the diagonal needs "
                "more probes."
            )
            raise ValueError(message)
        super().__init__(int(damped.shape[0]), damped.dtype)
        self._inverse = 1.0 / damped

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        return vectors * self._inverse


class NystromPreconditioner(LinearOperator):
    """``P⁻¹ = (λ_r + damping) Uᵀ diag(1/(λ + damping)) U + (I - Uᵀ U)``.

    The preconditioner of Frangella, Tropp and Udell 2021 (equation 1.3): the r known eigenvalues
    are brought down to the least of them, λ_r, and the others, below λ_r, stay as they are. It is
    ``λ_r + damping`` times an inverse, which makes no difference to conjugate gradients.

    Parameters
    ----------
    low_rank
        Eigenpairs of the curvature, with no negative eigenvalue.
    damping
        The damping of the system to solve, a number above 0.

    Raises
    ------
    ValueError
        If the damping is not above 0, an eigenvalue is below 0, or there are left eigenvectors.
    """

    def __init__(self, low_rank: LowRank, damping: float) -> None:
        damping = check_positive("damping", damping)
        least = float(low_rank.values.min(initial=np.inf))
        if least < 0 or low_rank.left_vectors is not None:
            message = (
                "Argument `low_rank` must be symmetric and positive semidefinite. Received: "
                f"least eigenvalue {least:.3g}, separate left eigenvectors: "
                f"{low_rank.left_vectors is not None}. "
                "Use the result of `nystrom`, which leaves negative eigenvalues out."
            )
            raise ValueError(message)
        super().__init__(low_rank.size, low_rank.vectors.dtype)
        weights = (least + damping) / (low_rank.values + damping) - 1.0
        self._correction = LowRank(low_rank.vectors, weights)

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        return vectors + self._correction.apply(vectors)
