"""Pseudo-inverses of dense symmetric matrices: a measured part, and what was added to it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import CurvatureWarning
from .eigen import eigenpairs, eigenvalues
from .lanczos import extreme_eigenvalues
from .linear_operator import DenseOperator
from .orthogonal import rounding

ROUNDINGS = 4
"""So many rounding errors of the largest eigenvalue leave a smaller one about one digit.

Measured on last layers and small networks, the rounding of a curvature whose batches are computed
in float32 moves eigenvalues that should be zero by 0.3 of such an error at most.
"""

DIRECT = 1024
"""Up to this width, all eigenvalues of a matrix take less than some products with it one by one."""

LOST_SHARE = 0.01
"""Above this share of ``vᵀ H⁻¹ v`` it is said that directions are left out."""

NOISE = 100
"""So many rounding errors of a gradient may lie along a direction in which it has no part.

Measured on last layers after a softmax: 10.
"""

TINY = float(np.finfo(np.float64).tiny)


def rounding_cutoff(measured: np.ndarray, dtype: tf.DType) -> float:
    """Return the size below which eigenvalues of a measured matrix are rounding.

    Parameters
    ----------
    measured
        Symmetric, float64, shape ``(p, p)``.
    dtype
        What its terms were computed in.
    """
    if not measured.any():
        return 0.0
    if len(measured) <= DIRECT:
        extremes: Any = eigenvalues(measured)
    else:
        extremes = extreme_eigenvalues(DenseOperator(measured), seed=0)
    return ROUNDINGS * rounding(dtype) * float(np.abs(extremes).max())


def decided_sums(sums: np.ndarray, added: np.ndarray | float, cutoff: float) -> np.ndarray:
    """Return eigenvalues of measured plus added curvature, 0 where nothing decides on them.

    A sum below the cut-off is rounding of the measured part, in place of which what was added
    stands alone. It is left out where nothing was added, or where the two cancel.

    Parameters
    ----------
    sums
        The eigenvalues, shape ``(k,)``.
    added
        The added part along each of them, ``(k,)`` or one number.
    cutoff
        As `rounding_cutoff` gives it.
    """
    # With more added than twice the cut-off, a small sum means negative measured curvature.
    alone = np.where((added > 0) & (added <= 2 * cutoff), added, 0.0)
    return np.where(np.abs(sums) <= cutoff, alone, sums)


def decided_eigenpairs(
    values: np.ndarray,
    vectors: np.ndarray,
    damping: np.ndarray,
    penalty: np.ndarray | None,
    cutoff: float,
    dtype: tf.DType,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenpairs of ``H = C + penalty + diag(damping)`` without the rounding of C.

    Where C has no digit left, what was added to it decides: see `decided_sums`.

    Parameters
    ----------
    values, vectors
        The eigenpairs of H, shapes ``(p,)`` and ``(p, p)``; both may be overwritten.
    damping
        Shape ``(p,)``.
    penalty
        The regulariser's Hessian, shape ``(p, p)``; None for none.
    cutoff
        The `rounding_cutoff` of C.
    dtype
        What the penalty was computed in.

    Returns
    -------
    Eigenvalues ``(p,)``, ascending, exactly 0 where a direction is to be left out, and their
    eigenvectors, in columns.
    """
    unsure = np.flatnonzero(np.abs(values) <= cutoff)
    if not unsure.size:
        return values, vectors
    basis = vectors[:, unsure]
    # What is added may have directions of its own within the space that C leaves open.
    parts = [basis.T @ (damping[:, None] * basis)]
    noise = [rounding(tf.float64) * damping.max()]
    if penalty is not None:
        parts.append(basis.T @ penalty @ basis)
        noise.append(rounding(dtype) * np.abs(penalty).sum(axis=0).max())
    added, turn = eigenpairs(sum(parts))
    shares = [np.einsum("ij,ij->j", turn, part @ turn) for part in parts]
    is_added = np.any([s > ROUNDINGS * n for s, n in zip(shares, noise, strict=True)], axis=0)
    values[unsure] = decided_sums(values[unsure], np.where(is_added, added, 0.0), cutoff)
    vectors[:, unsure] = basis @ turn
    order = np.argsort(values, kind="stable")
    return values[order], vectors[:, order]


class DenseInverse:
    """Products with the pseudo-inverse of a symmetric matrix H, in float64.

    In float32 an inverse loses as many digits as the condition number has.

    Parameters
    ----------
    values, vectors
        The eigenpairs of H, shapes ``(p,)`` and ``(p, p)``.
    kept
        Which of them are inverted, bool, shape ``(p,)``.
    cutoff
        What the eigenvalues of the others are below.
    """

    def __init__(
        self, values: np.ndarray, vectors: np.ndarray, kept: np.ndarray, cutoff: float
    ) -> None:
        weights = np.divide(1.0, values, where=kept, out=np.zeros_like(values))
        self.matrix = tf.constant((vectors * weights) @ vectors.T)
        self.cutoff = cutoff
        self._dropped = tf.constant(vectors[:, ~kept])

    @property
    def num_dropped(self) -> int:
        """How many directions are left out."""
        return int(self._dropped.shape[1])

    def apply(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``H⁻¹ v`` for every row of vectors ``(b, p)``, float64."""
        return tf.matmul(tf.cast(vectors, tf.float64), self.matrix)

    def warn_if_lost(
        self, vectors: tf.Tensor, products: tf.Tensor, owner: str, stacklevel: int
    ) -> None:
        """Say so where the directions that are left out carry a part of right-hand sides.

        Their curvature is not known. A direction is taken to carry as much of ``vᵀ H⁻¹ v`` as
        those that are kept do on average, or what it would carry at the cut-off if that is more.
        Right-hand sides count all together: single ones may be all rounding, as the gradient of
        an example that a classifier is sure of.

        Parameters
        ----------
        vectors
            The right-hand sides v, shape ``(b, p)``, in the dtype that they were computed in.
        products
            What `apply` gave for them.
        owner
            Who uses the inverse.
        stacklevel
            Which caller the warning names.

        Warns
        -----
        CurvatureWarning
            Says how many directions are left out, and what they carry.
        """
        if not self.num_dropped:
            return
        wide = tf.cast(vectors, tf.float64).numpy()
        kept = np.abs(np.sum(wide * products.numpy(), axis=1)).sum()
        num_kept = max(len(self.matrix) - self.num_dropped, 1)
        total = np.square(wide).sum()
        squares = _squares_along(wide @ self._dropped.numpy())
        squares = squares[squares > total * (NOISE * rounding(vectors.dtype)) ** 2]
        lost = np.maximum(squares / max(self.cutoff, TINY), kept / num_kept).sum()
        if lost <= LOST_SHARE * (lost + kept):
            return
        message = (
            f"{owner} leaves out {self.num_dropped} of {len(self.matrix)} directions, where H, "
            "damping and regulariser included, is below the rounding of the data's curvature "
            f"({self.cutoff:.2g}). The right-hand sides v have a part in {len(squares)} of them, "
            f"{np.sqrt(squares.sum() / total):.1%} of their length, which carries some "
            f"{lost / (lost + kept):.0%} of vᵀH⁻¹v or more. Pass another `damping`, such as "
            'damping="auto".'
        )
        warnings.warn(message, CurvatureWarning, stacklevel=stacklevel + 1)


def _squares_along(parts: np.ndarray) -> np.ndarray:
    """Return the sums of squares of rows ``(b, k)`` along their principal axes."""
    gram = parts @ parts.T if len(parts) < parts.shape[1] else parts.T @ parts
    return np.maximum(eigenvalues(gram), 0.0)
