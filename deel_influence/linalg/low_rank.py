"""An operator of low rank, known by its eigenvalues and eigenvectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from .dense_inverse import decided_sums
from .orthogonal import rounding


@dataclass(frozen=True, eq=False)
class LowRank:
    """``A = Uᵀ diag(λ) W``, where the rows of U are eigenvectors, and W = U if A is symmetric.

    Attributes
    ----------
    vectors
        The rows U, shape ``(r, p)``; orthonormal where ``left_vectors`` is None.
    values
        The eigenvalues λ, float64, shape ``(r,)``.
    left_vectors
        The left eigenvectors W of an operator that is not symmetric, with ``W Uᵀ = I``, shape
        ``(r, p)``; None for a symmetric one.
    """

    vectors: tf.Tensor
    values: np.ndarray
    left_vectors: tf.Tensor | None = None

    @property
    def rank(self) -> int:
        """The number r."""
        return int(self.vectors.shape[0])

    @property
    def size(self) -> int:
        """The number p."""
        return int(self.vectors.shape[1])

    def apply(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``A v`` for every row of ``vectors``, shape ``(k, p)``."""
        return self._weighted(vectors, self.values)

    def solve(self, vectors: tf.Tensor, damping: float) -> tf.Tensor:
        """Return ``(A + damping·I)⁻¹ v`` for every row of ``vectors``, shape ``(k, p)``.

        What lies along the eigenvectors is divided by ``λ + damping``, what is orthogonal to them
        by the damping alone. Woodbury's ``(v - Uᵀ diag(λ/(λ+damping)) W v) / damping`` is the same
        number, but loses as many digits as the damping is smaller than λ.

        Parameters
        ----------
        vectors
            Right-hand sides, shape ``(k, p)``.
        damping
            A number above 0.

        Raises
        ------
        ValueError
            If the damping is not above 0, or cancels a negative eigenvalue.
        """
        shifted = self.values + damping
        scale = np.abs(self.values).max(initial=0.0)
        if not damping > 0 or np.any(np.abs(shifted) <= 10 * rounding(tf.float64) * scale):
            message = (
                "Argument `damping` must be above 0 and must not be the negative of an "
                f"eigenvalue. Received: damping={damping!r}, eigenvalues from "
                f"{self.values.min(initial=0.0):.3g} to {self.values.max(initial=0.0):.3g}. "
                "Use `pseudo_solve` to invert within the eigenvectors alone."
            )
            raise ValueError(message)
        rest = vectors
        for _ in range(2):  # twice, for what rounding leaves of the first time
            rest -= self._weighted(rest, np.ones_like(self.values))
        return self._weighted(vectors, 1 / shifted) + rest / damping

    def pseudo_solve(
        self, vectors: tf.Tensor, damping: float = 0.0, rcond: float = 1e-6
    ) -> tf.Tensor:
        """Return ``Uᵀ diag(1/(λ+damping)) W v`` for every row of ``vectors``, shape ``(k, p)``.

        What is orthogonal to the eigenvectors is dropped.

        Parameters
        ----------
        vectors
            Right-hand sides, shape ``(k, p)``.
        damping
            Added to the eigenvalues.
        rcond
            Eigenvalues of size ``rcond · max |λ|`` and less are rounding: what the damping does
            not lift above that counts as the damping alone, or is dropped where there is none.
        """
        return self._weighted(vectors, self.inverse_values(damping, rcond))

    def inverse_values(self, damping: float = 0.0, rcond: float = 1e-6) -> np.ndarray:
        """Return ``1/(λ + damping)``, 0 where `pseudo_solve` drops a direction, shape ``(r,)``."""
        cutoff = rcond * float(np.abs(self.values).max(initial=0.0))
        sums = decided_sums(self.values + damping, damping, cutoff)
        return np.divide(1.0, sums, where=sums != 0, out=np.zeros_like(sums))

    def _weighted(self, vectors: tf.Tensor, weights: np.ndarray) -> tf.Tensor:
        left = self.vectors if self.left_vectors is None else self.left_vectors
        components = tf.matmul(tf.cast(vectors, left.dtype), left, transpose_b=True)
        return tf.matmul(components * tf.constant(weights, left.dtype), self.vectors)
