"""The randomised Nyström approximation of a positive semidefinite operator."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from .checks import check_count, check_products
from .eigen import eigenpairs
from .eigen import eigenvalues as eigenvalues_of
from .linear_operator import LinearOperator
from .low_rank import LowRank
from .orthogonal import combine, inner_products, orthonormal_rows, rounding
from .probes import gaussian_rows


@dataclass(frozen=True, eq=False)
class NystromResult:
    """A sketch of an operator.

    Attributes
    ----------
    low_rank
        Positive eigenvalues, decreasing, and their eigenvectors; the rank may be below the one
        asked for where the operator has fewer.
    negative_values
        Negative eigenvalues that were found and left out, ascending, float64, shape ``(s,)``;
        empty for a positive semidefinite operator.
    """

    low_rank: LowRank
    negative_values: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def num_negative(self) -> int:
        """How many negative eigenvalues were found; the operator has as many or more."""
        return len(self.negative_values)


def nystrom(
    operator: LinearOperator, rank: int, seed: int | None = None, oversampling: int = 0
) -> NystromResult:
    """Approximate a positive semidefinite operator by ``A Ωᵀ (Ω A Ωᵀ)⁺ Ω A``, Ω random.

    The numerically stable form of Frangella, Tropp and Udell 2021, "Randomized Nyström
    Preconditioning", algorithm 2.1: orthonormal Ω, A shifted by a little, the shift taken off the
    eigenvalues at the end. All products are taken at once.

    An operator with negative eigenvalues has no such form: what the algorithm would return can be
    arbitrarily large. If ``Ω A Ωᵀ`` shows any, A is projected to the range of its products
    instead (Rayleigh-Ritz, for as many products again), whose eigenvalues lie within A's
    spectrum; the positive ones are kept and the negative ones are reported.

    Parameters
    ----------
    operator
        A symmetric operator of size p.
    rank
        How many eigenpairs, at most.
    seed
        Draws Ω.
    oversampling
        How many more products to take than pairs are kept, for better pairs.

    Raises
    ------
    ValueError
        If ``rank`` is below 1 or ``oversampling`` below 0.
    NonFiniteError
        If a product holds NaN or infinity.
    """
    count = check_count("rank", rank) + check_count("oversampling", oversampling, minimum=0)
    probes = orthonormal_rows(gaussian_rows(operator, min(count, operator.size), seed))
    products = operator.apply(probes)
    core = inner_products(probes, products)
    check_products(core, "the products with random vectors")
    eigenvalues = eigenvalues_of((core + core.T) / 2)
    if eigenvalues[0] < -_tolerance(operator) * np.abs(eigenvalues).max():
        return _rayleigh_ritz(operator, products, rank)
    return NystromResult(_stable_form(probes, products, core, rank))


def _tolerance(operator: LinearOperator) -> float:
    """Return what counts as rounding in an eigenvalue, relative to the largest."""
    return 1000 * rounding(operator.dtype)


def _stable_form(probes: tf.Tensor, products: tf.Tensor, core: np.ndarray, rank: int) -> LowRank:
    size = probes.shape[1]
    shift = np.sqrt(size) * rounding(probes.dtype) * float(tf.norm(products))
    shifted = products + tf.cast(shift, products.dtype) * probes
    values, vectors = eigenpairs((core + core.T) / 2 + shift * np.eye(len(core)))
    # Below the shift there is rounding alone; a Cholesky factor would fail on it.
    kept = values > shift / 2
    factor = combine(vectors[:, kept].T / np.sqrt(values[kept])[:, None], shifted)
    basis = orthonormal_rows(factor)
    _, singular, rotation = np.linalg.svd(inner_products(factor, basis), full_matrices=False)
    values = singular**2 - shift
    kept = np.flatnonzero(values > 0)[:rank]
    return LowRank(combine(rotation[kept], basis), values[kept])


def _rayleigh_ritz(operator: LinearOperator, products: tf.Tensor, rank: int) -> NystromResult:
    basis = orthonormal_rows(products)
    core = inner_products(basis, operator.apply(basis))
    check_products(core, "the products with the range of the first ones")
    values, vectors = eigenpairs((core + core.T) / 2)
    tolerance = _tolerance(operator) * np.abs(values).max(initial=0.0)
    kept = np.flatnonzero(values > tolerance)[::-1][:rank]
    low_rank = LowRank(combine(vectors[:, kept].T, basis), values[kept])
    return NystromResult(low_rank, values[values < -tolerance])
