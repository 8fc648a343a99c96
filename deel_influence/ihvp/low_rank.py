"""What the strategies share that keep the curvature as a few eigenpairs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from ..curvature.flat import check_curved
from ..gradients.batch_gradients import BatchGradients
from ..linalg.linear_operator import LinearOperator
from ..linalg.low_rank import LowRank
from .damping import damping_vector
from .operator import OperatorIHVP

SMALL_DAMPING = 1e-2
"""Below this share of the largest eigenvalue, norms minus projections would lose their digits."""


class RescaledOperator(LinearOperator):
    """``D A D`` with a diagonal D.

    Parameters
    ----------
    operator
        A.
    scale
        The diagonal of D, shape ``(p,)``.
    """

    def __init__(self, operator: LinearOperator, scale: tf.Tensor) -> None:
        super().__init__(operator.size, operator.dtype)
        self._operator, self._diagonal = operator, scale

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        return self._operator.apply(vectors * self._diagonal) * self._diagonal


class LowRankIHVP(OperatorIHVP):
    """Base class of strategies with ``C + R'' ≈ Uᵀ diag(λ) U``, U of r orthonormal rows.

    ``H = Uᵀ diag(λ) U + damping · I`` is inverted exactly. Where layers have dampings of their
    own, D on the diagonal, the eigenpairs are those of ``D^-½ (C + R'') D^-½``. Once fitted,
    products and scores need no data; the memory is r·p.

    To be implemented by subclasses: `_approximate`.
    """

    low_rank: LowRank
    """U and λ."""

    @abstractmethod
    def _approximate(self) -> LowRank:
        """Return the eigenpairs of the scaled operator."""

    @property
    def projects(self) -> bool:
        """Whether what is orthogonal to U is dropped, in place of being divided by the damping."""
        return False

    @property
    def eigenvalues(self) -> np.ndarray:
        """The eigenvalues λ that are kept, float64, shape ``(r,)``.

        Of the undamped curvature; where layers have dampings of their own, or WoodburyIHVP meets a
        regulariser of single layers, of the curvature in units of what is on the diagonal.
        """
        return self.low_rank.values

    @property
    def is_evenly_damped(self) -> bool:
        """Whether the same number is added to all of the diagonal."""
        return self._scale is None

    @property
    def rank(self) -> int:
        """The number r of eigenpairs."""
        return self.low_rank.rank

    def _fit(self) -> None:
        self._diagonal = self._find_diagonal()
        self._set_scale(self._diagonal)
        self.low_rank = self._approximate()
        largest = float(np.abs(self.low_rank.values).max(initial=0.0))
        check_curved(largest, type(self).__name__, self._shift > 0)
        # The fit is all that is needed from now on; the operators hold the training set.
        for name in ("loss_operator", "undamped_operator", "operator"):
            self.__dict__.pop(name, None)

    def _find_diagonal(self) -> np.ndarray:
        """Return what is added to the low-rank part's diagonal, ``(p,)``. May be overridden."""
        return damping_vector(self.damping_values, self.model.layout)

    def _scaled(self, operator: LinearOperator) -> LinearOperator:
        """Return an operator in units of the diagonal, where that is not one number."""
        return operator if self._scale is None else RescaledOperator(operator, self._scale)

    def _set_scale(self, diagonal: np.ndarray) -> None:
        """Choose between one damping for all parameters and a diagonal ``(p,)`` of them."""
        self._scale: tf.Tensor | None = None
        self._shift = float(diagonal[0])
        if np.ptp(diagonal) == 0:
            return
        if diagonal.min() <= 0:
            message = (
                "Argument `damping` must be above 0 for each layer where layers have their own. "
                f"Received: {self.damping_values.tolist()}."
            )
            raise ValueError(message)
        self._scale = tf.constant(1 / np.sqrt(diagonal), self.model.dtype)
        self._shift = 1.0

    def _solve(self, vectors: tf.Tensor) -> tf.Tensor:
        scaled = vectors if self._scale is None else vectors * self._scale
        if self.projects or self._shift == 0:
            solved = self.low_rank.pseudo_solve(scaled, self._shift)
        else:
            solved = self.low_rank.solve(scaled, self._shift)
        return solved if self._scale is None else solved * self._scale

    def _multiply(self, vectors: tf.Tensor) -> tf.Tensor:
        scaled = vectors if self._scale is None else vectors / self._scale
        product = self.low_rank.apply(scaled) + self._shift * scaled
        return product if self._scale is None else product / self._scale

    def self_influence(self, gradients: BatchGradients) -> tf.Tensor:
        inside = tf.square(gradients.dot(self._directions))
        if self.projects or self._shift == 0:
            return tf.linalg.matvec(inside, self._constant(self._weights()))
        largest = np.abs(self.eigenvalues).max(initial=0.0)
        if self._scale is not None or self._shift < SMALL_DAMPING * largest:
            return super().self_influence(gradients)
        shares = self._constant(self.eigenvalues / (self.eigenvalues + self._shift))
        return (gradients.squared_norms() - tf.linalg.matvec(inside, shares)) / self._shift

    def query_factors(self, gradients: BatchGradients) -> tf.Tensor:
        if not self._scores_in_subspace:
            return super().query_factors(gradients)
        return gradients.dot(self._directions) * self._constant(self._weights())

    def scores(self, factors: tf.Tensor, gradients: BatchGradients) -> tf.Tensor:
        if not self._scores_in_subspace:
            return super().scores(factors, gradients)
        return tf.matmul(factors, gradients.dot(self._directions), transpose_b=True)

    def products(self, factors: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        if not self._scores_in_subspace:
            return super().products(factors, vectors)
        inside = tf.matmul(vectors, self._directions, transpose_b=True)
        return tf.matmul(factors, inside, transpose_b=True)

    @property
    def _scores_in_subspace(self) -> bool:
        """Whether r numbers of each gradient say all that the scores depend on."""
        return self.projects and self.low_rank.left_vectors is None

    @property
    def _directions(self) -> tf.Tensor:
        """U, in terms of parameters, shape ``(r, p)``."""
        rows = self.low_rank.vectors
        return rows if self._scale is None else rows * self._scale

    def _weights(self) -> np.ndarray:
        """Return the eigenvalues of the inverse within U, shape ``(r,)``."""
        return self.low_rank.inverse_values(self._shift)

    def _constant(self, values: np.ndarray) -> tf.Tensor:
        return tf.constant(values, self.model.dtype)

    def _state(self) -> dict[str, np.ndarray]:
        state = {
            **super()._state(),
            "diagonal": self._diagonal,
            "vectors": self.low_rank.vectors.numpy(),
            "values": np.asarray(self.low_rank.values),
        }
        if self.low_rank.left_vectors is not None:
            state["left_vectors"] = self.low_rank.left_vectors.numpy()
        return state

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        super()._restore(state)
        self._diagonal = state["diagonal"]
        self._set_scale(self._diagonal)
        left = state.get("left_vectors")
        self.low_rank = LowRank(
            tf.constant(state["vectors"]),
            state["values"],
            None if left is None else tf.constant(left),
        )
