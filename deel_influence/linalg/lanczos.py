"""Lanczos' method: eigenvalues of a symmetric operator from a few products with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from .checks import check_count, check_products
from .eigen import eigenpairs, eigenvalues
from .krylov import krylov_space
from .linear_operator import LinearOperator
from .orthogonal import combine, rounding
from .probes import gaussian_rows


@dataclass(frozen=True, eq=False)
class KrylovBasis:
    """The tridiagonal form ``T = Q A Qᵀ`` of a symmetric operator, and its Ritz pairs.

    Attributes
    ----------
    basis
        Orthonormal rows Q, shape ``(t, p)``.
    diagonal
        Diagonal of T, float64, shape ``(t,)``.
    off_diagonal
        Its neighbour, float64, shape ``(t - 1,)``.
    residual
        Norm of what the last product had outside of the subspace; 0 if that is invariant.
    """

    basis: tf.Tensor
    diagonal: np.ndarray
    off_diagonal: np.ndarray
    residual: float

    @property
    def ritz_values(self) -> np.ndarray:
        """Eigenvalues of T, ascending, float64, shape ``(t,)``.

        They lie within A's spectrum, and those at its two ends are good first.
        """
        return self._eigen[0]

    @property
    def ritz_vectors(self) -> tf.Tensor:
        """Approximate eigenvectors of A, orthonormal rows, shape ``(t, p)``."""
        return combine(self._eigen[1].T, self.basis)

    @property
    def ritz_bounds(self) -> np.ndarray:
        """How far from each Ritz value an eigenvalue of A is at most, float64, shape ``(t,)``.

        This is ``‖A u - θ u‖`` for the Ritz pair (θ, u).
        """
        return np.abs(self.residual * self._eigen[1][-1])

    @property
    def ritz_weights(self) -> np.ndarray:
        """The share of the first vector along each Ritz vector, squared, shape ``(t,)``.

        They add up to one. For a random first vector they estimate which share of A's eigenvalues
        is near each Ritz value.
        """
        return np.square(self._eigen[1][0])

    @cached_property
    def _eigen(self) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = eigenpairs(_tridiagonal(self.diagonal, self.off_diagonal))
        return values, vectors


def lanczos(
    operator: LinearOperator, num_steps: int, seed: int | None = None, start: Any = None
) -> KrylovBasis:
    """Tridiagonalise a symmetric operator in the Krylov subspace of a vector.

    The basis is fully re-orthogonalised, so that no eigenvalue comes up twice. Memory is
    ``num_steps`` vectors.

    Parameters
    ----------
    operator
        A symmetric operator of size p.
    num_steps
        How many products, each of one vector; fewer where the subspace turns out to be invariant.
    seed
        Draws the first vector.
    start
        The first vector, shape ``(p,)``, instead of a random one.

    Raises
    ------
    NonFiniteError
        If a product holds NaN or infinity.
    """
    space = krylov_space(operator, num_steps, seed, start)
    diagonal = np.diagonal(space.projection).copy()
    off_diagonal = np.diagonal(space.projection, -1).copy()
    return KrylovBasis(space.basis, diagonal, off_diagonal, space.residual)


def extreme_eigenvalues(
    operator: LinearOperator, num_steps: int = 30, seed: int | None = None
) -> tuple[float, float]:
    """Return estimates of the smallest and the largest eigenvalue of a symmetric operator.

    Both are from inside: the smallest is never too low, the largest never too high. For how far
    they may be off, see `KrylovBasis.ritz_bounds` of `lanczos`.

    Parameters
    ----------
    operator
        A symmetric operator.
    num_steps
        How many products.
    seed
        Draws the first vector.
    """
    values = lanczos(operator, num_steps, seed).ritz_values
    return float(values[0]), float(values[-1])


def preconditioned_extremes(
    operator: LinearOperator,
    preconditioner: LinearOperator,
    num_steps: int = 30,
    seed: int | None = None,
) -> tuple[float, float]:
    """Return estimates of the smallest and the largest eigenvalue of ``P⁻¹ A``, from inside.

    ``A P⁻¹``, which has the same eigenvalues, is symmetric in the inner product ``uᵀ P⁻¹ v``:
    this is Lanczos' method in it. Its three-term form serves, since lost orthogonality repeats
    eigenvalues but does not move them.

    Parameters
    ----------
    operator
        A symmetric operator A.
    preconditioner
        The operator ``P⁻¹``, symmetric positive definite.
    num_steps
        How many products with each, of one vector.
    seed
        Draws the first vector.

    Raises
    ------
    ValueError
        If the preconditioner is not positive definite.
    NonFiniteError
        If a product holds NaN or infinity.
    """
    diagonal: list[float] = []
    norms: list[float] = []
    vector = gaussian_rows(operator, 1, seed)
    previous = tf.zeros_like(vector)
    for step in range(min(check_count("num_steps", num_steps), operator.size)):
        dual = preconditioner.apply(vector)
        norm = _metric_norm(vector, dual, step)
        # After the first step the norms are the off-diagonal, and one that is rounding ends it.
        scale = max(np.abs(diagonal + norms[1:]), default=0.0)
        if step and norm <= 10 * rounding(operator.dtype) * scale:
            break
        norms.append(norm)
        vector, dual = vector / norm, dual / norm
        product = operator.apply(dual)
        diagonal.append(float(tf.reduce_sum(dual * product)))
        check_products(np.asarray(diagonal[-1]), f"Lanczos step {step + 1}")
        coupling = norm if step else 0.0
        vector, previous = product - diagonal[-1] * vector - coupling * previous, vector
    values = eigenvalues(_tridiagonal(np.array(diagonal), np.array(norms[1:])))
    return float(values[0]), float(values[-1])


def _metric_norm(vector: tf.Tensor, dual: tf.Tensor, step: int) -> float:
    square = float(tf.reduce_sum(vector * dual))
    check_products(np.asarray(square), f"the preconditioner, Lanczos step {step + 1}")
    if square <= 0 and step == 0:
        message = (
            "Argument `preconditioner` must be positive definite. Received: one for which a "
            f"vector v has v · P⁻¹v = {square:.3g}. Raise its damping."
        )
        raise ValueError(message)
    return max(square, 0.0) ** 0.5  # the rounding of a last vector may have any sign


def _tridiagonal(diagonal: np.ndarray, off_diagonal: np.ndarray) -> np.ndarray:
    neighbours = np.diag(off_diagonal, 1)
    return np.diag(diagonal) + neighbours + neighbours.T
