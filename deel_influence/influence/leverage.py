"""What Newton steps without single examples need of a curvature: of one layer, or of a network.

Where y are c outputs of an example and J their Jacobian in the watched parameters,

    g_i = J_iᵀ s_i,    h_i = J_iᵀ S_i J_i,

with s and S gradient and Hessian of the loss in y. For the last Dense layer, y the outputs of that
layer, h_i is the whole Hessian of the example; for a network, y its logits, the Gauss-Newton part.
With A the curvature that a removal starts from, the step without z_i is, by Sherman, Morrison and
Woodbury,

    (A - h_i)⁻¹ (J_iᵀ s_i + v) = A⁻¹ (v + J_iᵀ t_i),    (I - S_i B_i) t_i = s_i + S_i J_i A⁻¹ v,

with ``B_i = J_i A⁻¹ J_iᵀ``, c×c.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import tensorflow as tf

from ..curvature.dense_layer import DenseTerms, dense_terms
from ..curvature.sampling import Linearized, linearized, positive_part
from ..gradients.batch_gradients import BatchGradients
from ..gradients.engine import GradientEngine
from ..ihvp.base import InverseHessianVectorProduct
from ..linalg.dense_inverse import DenseInverse
from ..types import Batch


@dataclass(frozen=True)
class LogitTerms:
    """s, S and J for the b examples of a batch.

    Attributes
    ----------
    found
        The model around its weights.
    deltas
        s, shape ``(b, c)``.
    curvature
        The positive semidefinite part of S, which Gauss-Newton matrices have, ``(b, c, c)``.
    jacobian
        For each of the c logits its gradients.
    """

    found: Linearized
    deltas: tf.Tensor
    curvature: tf.Tensor
    jacobian: Sequence[BatchGradients]

    def rows(self, deltas: tf.Tensor) -> BatchGradients:
        """Return the vectors ``J_iᵀ t_i`` for t ``(b, c)``."""
        return self.found.pull(deltas)


Terms = TypeVar("Terms")
"""s, S and J of a batch: `DenseTerms` or `LogitTerms`."""


class Leverage(ABC, Generic[Terms]):
    """Products with ``n A⁻¹``, and what single examples have in them; traceable.

    To be implemented by subclasses.
    """

    @abstractmethod
    def terms(self, batch: Batch) -> Terms:
        """Return s, S and J of a training batch."""

    @abstractmethod
    def solve(self, rows: tf.Tensor) -> tf.Tensor:
        """Return ``n A⁻¹ v`` for rows ``(b, p)``."""

    @abstractmethod
    def steps(self, terms: Terms, t: tf.Tensor) -> tf.Tensor:
        """Return ``n A⁻¹ J_iᵀ t_i``, shape ``(b, p)``."""

    @abstractmethod
    def coupling(self, terms: Terms) -> tf.Tensor:
        """Return n B, float64, shape ``(b, c, c)``."""

    @abstractmethod
    def along(self, terms: Terms, vector: tf.Tensor) -> tf.Tensor:
        """Return ``J_i v`` for one vector ``(1, p)``, shape ``(b, c)``."""

    @abstractmethod
    def query_terms(self, engine: GradientEngine, batch: Batch) -> tf.Tensor:
        """Return what `moved` needs of queries, one row for each."""

    @abstractmethod
    def moved(
        self, queries: tf.Tensor, terms: Terms, t: tf.Tensor, added: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return how far the steps of a batch move the outputs of queries, in first order.

        Parameters
        ----------
        queries
            What `query_terms` gave.
        terms, t
            Of the training batch.
        added
            The v of each example, shape ``(b, p)``.

        Returns
        -------
        ``n J(z) δ_i``, shape ``(m, b, c)``, and of the queries s ``(m, c)`` and S ``(m, c, c)``.
        """


class LastLayerLeverage(Leverage[DenseTerms]):
    """One Dense layer with inputs φ, ``(b, r)``, and a dense inverse: all in closed form.

    Parameters
    ----------
    engine
        Of the wrapped model.
    inverse
        n A⁻¹.
    """

    def __init__(self, engine: GradientEngine, inverse: DenseInverse) -> None:
        self._engine, self._inverse = engine, inverse

    def terms(self, batch: Batch) -> DenseTerms:
        return dense_terms(self._engine, batch)

    def solve(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.cast(self._inverse.apply(rows), rows.dtype)

    def steps(self, terms: DenseTerms, t: tf.Tensor) -> tf.Tensor:
        return self.solve(terms.rows(t).rows())

    def coupling(self, terms: DenseTerms) -> tf.Tensor:
        r, c = int(terms.features.shape[1]), int(terms.deltas.shape[1])
        features = tf.cast(terms.features, tf.float64)
        wide = tf.matmul(features, tf.reshape(self._inverse.matrix, (r, c * r * c)))
        return tf.einsum("boaq,ba->boq", tf.reshape(wide, (-1, c, r, c)), features)

    def along(self, terms: DenseTerms, vector: tf.Tensor) -> tf.Tensor:
        return tf.matmul(terms.features, tf.reshape(vector, (int(terms.features.shape[1]), -1)))

    def query_terms(self, engine: GradientEngine, batch: Batch) -> tf.Tensor:
        """Return φ, s and S side by side, shape ``(m, r + c + c²)``."""
        terms = dense_terms(engine, batch)
        return _side_by_side(terms.features, terms.deltas, terms.curvature)

    def moved(
        self, queries: tf.Tensor, terms: DenseTerms, t: tf.Tensor, added: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        r, c = int(terms.features.shape[1]), int(terms.deltas.shape[1])
        steps = tf.reshape(self.solve(added + terms.rows(t).rows()), (-1, r, c))
        features, deltas, curvature = _apart(queries, r, c)
        return tf.einsum("mr,brc->mbc", features, steps), deltas, curvature


class NetworkLeverage(Leverage[LogitTerms]):
    """Any model, and the inverse of a strategy: ``A = n H``.

    A retraining without z_i has R and damping at the weight (n - 1)/n of that; here they keep all.

    Parameters
    ----------
    engine
        Of the wrapped model.
    strategy
        A fitted strategy whose solves are traceable.
    """

    def __init__(self, engine: GradientEngine, strategy: InverseHessianVectorProduct) -> None:
        self._engine, self._strategy = engine, strategy

    def terms(self, batch: Batch) -> LogitTerms:
        found = linearized(self._engine, batch)
        curvature = positive_part(found.hessians)
        return LogitTerms(found, found.residuals, curvature, _jacobian(found))

    def solve(self, rows: tf.Tensor) -> tf.Tensor:
        return self._strategy.solve(rows)

    def steps(self, terms: LogitTerms, t: tf.Tensor) -> tf.Tensor:
        return self.solve(terms.rows(t).materialize())

    def coupling(self, terms: LogitTerms) -> tf.Tensor:
        return tf.cast(self._strategy.gram(terms.jacobian), tf.float64)

    def along(self, terms: LogitTerms, vector: tf.Tensor) -> tf.Tensor:
        return tf.concat([gradients.dot(vector) for gradients in terms.jacobian], axis=1)

    def query_terms(self, engine: GradientEngine, batch: Batch) -> tf.Tensor:
        """Return ``H⁻¹ Jᵀ``, s and S side by side, shape ``(m, c·p + c + c²)``."""
        found = linearized(engine, batch)
        solved = [self.solve(gradients.materialize()) for gradients in _jacobian(found)]
        return _side_by_side(tf.concat(solved, axis=1), found.residuals, found.hessians)

    def moved(
        self, queries: tf.Tensor, terms: LogitTerms, t: tf.Tensor, added: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        c, p = int(terms.deltas.shape[1]), self._engine.model.nb_params
        solved, deltas, curvature = _apart(queries, c * p, c)
        solved = tf.reshape(solved, (-1, p))
        moved = terms.rows(t).dot(solved) + tf.matmul(added, solved, transpose_b=True)
        moved = tf.reshape(moved, (tf.shape(added)[0], -1, c))
        return tf.transpose(moved, (1, 0, 2)), deltas, curvature


def _jacobian(found: Linearized) -> list[BatchGradients]:
    """Return the gradients of each logit, one backward pass for each."""
    c = int(found.residuals.shape[1])
    units = tf.eye(c, dtype=found.residuals.dtype)
    return [found.pull(tf.ones_like(found.residuals) * units[k]) for k in range(c)]


def _side_by_side(first: tf.Tensor, deltas: tf.Tensor, curvature: tf.Tensor) -> tf.Tensor:
    c = int(deltas.shape[1])
    return tf.concat([first, deltas, tf.reshape(curvature, (-1, c * c))], axis=1)


def _apart(rows: tf.Tensor, width: int, c: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Undo `_side_by_side`."""
    first, deltas, curvature = tf.split(rows, [width, c, c * c], axis=1)
    return first, deltas, tf.reshape(curvature, (-1, c, c))
