"""Arnoldi's method: the dominant eigenpairs of an operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .checks import check_count
from .eigen import eigenpairs
from .krylov import KrylovSpace, krylov_space
from .linear_operator import LinearOperator
from .low_rank import LowRank
from .orthogonal import combine


@dataclass(frozen=True, eq=False)
class ArnoldiResult:
    """The dominant eigenpairs of an operator in a Krylov subspace.

    Attributes
    ----------
    low_rank
        The pairs that were kept, by decreasing |λ|.
    spectrum
        All Ritz values (real parts), by decreasing |λ|, float64, shape ``(t,)``. The first
        ``low_rank.rank`` of them belong to the pairs kept.
    bounds
        ``‖A u - λ u‖`` of all Ritz pairs, float64, shape ``(t,)``.
    """

    low_rank: LowRank
    spectrum: np.ndarray
    bounds: np.ndarray


def arnoldi(
    operator: LinearOperator,
    num_steps: int,
    num_kept: int,
    seed: int | None = None,
    force_hermitian: bool = True,
    start: Any = None,
) -> ArnoldiResult:
    """Find the eigenpairs with the largest |λ| in the Krylov subspace of a vector.

    As in Schioppa et al. 2022, "Scaling Up Influence Functions" (AAAI), section 3: the largest
    |λ| are kept, large negative ones included. They are those that the subspace has right, and
    those by which A is approximated best; the smallest Ritz values are neither.

    Parameters
    ----------
    operator
        An operator of size p.
    num_steps
        Dimension of the subspace, each costing a product of one vector.
    num_kept
        How many eigenpairs to keep; all that there are if the subspace has fewer.
    seed
        Draws the first vector.
    force_hermitian
        Whether to make the projected operator symmetric, which removes rounding and what a
        curvature estimate has that is not symmetric; the vectors are then orthonormal. If False,
        left and right eigenvectors are told apart. Of complex eigenvalues only the real parts are
        kept. A complex pair stays whole, for which ``num_kept + 1`` eigenvalues may be returned.
    start
        The first vector, shape ``(p,)``, instead of a random one.

    Raises
    ------
    ValueError
        If a number of steps or pairs is below 1.
    NonFiniteError
        If a product holds NaN or infinity.
    """
    check_count("num_kept", num_kept)
    space = krylov_space(operator, num_steps, seed, start)
    decompose = _symmetric if force_hermitian else _general
    return decompose(space, min(num_kept, len(space.projection)))


def _symmetric(space: KrylovSpace, num_kept: int) -> ArnoldiResult:
    values, vectors = eigenpairs((space.projection + space.projection.T) / 2)
    order = np.argsort(-np.abs(values), kind="stable")
    values, vectors = values[order], vectors[:, order]
    low_rank = LowRank(combine(vectors[:, :num_kept].T, space.basis), values[:num_kept])
    return ArnoldiResult(low_rank, values, np.abs(space.residual * vectors[-1]))


def _general(space: KrylovSpace, num_kept: int) -> ArnoldiResult:
    values, vectors = np.linalg.eig(space.projection)
    order = np.argsort(-np.abs(values), kind="stable")
    values, vectors = values[order], vectors[:, order]
    # The first of a complex pair has the positive imaginary part: do not cut between the two.
    num_kept += int(values[num_kept - 1].imag > 0)
    # Real and imaginary part of an eigenvector span the same plane as the pair of eigenvectors.
    right = np.where(values.imag < 0, vectors.imag, vectors.real)
    # The projection is not normal: its left eigenvectors are the rows of V⁻¹ and not of Vᵀ.
    left = np.linalg.inv(right)
    low_rank = LowRank(
        combine(right[:, :num_kept].T, space.basis),
        values.real[:num_kept].copy(),
        combine(left[:num_kept], space.basis),
    )
    return ArnoldiResult(low_rank, values.real.copy(), np.abs(space.residual * vectors[-1]))
