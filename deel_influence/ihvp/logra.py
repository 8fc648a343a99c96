"""The inverse of the curvature of projected gradients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from ..curvature.flat import check_curved
from ..curvature.kronecker_passes import FISHERS, FisherPass
from ..curvature.sums import PlainSum
from ..gradients.batch_gradients import BatchGradients
from ..gradients.projections.base import Projection
from ..gradients.projections.inverse import check_moments_fit, cholesky_inverse
from ..gradients.projections.registry import (
    PROJECTIONS,
    ProjectionLike,
    resolve_projection,
)
from ..linalg.checks import check_choice
from ..linalg.dense_inverse import DenseInverse, decided_eigenpairs, rounding_cutoff
from ..linalg.eigen import eigenpairs
from ..model.influence_model import BaseInfluenceModel, check_influence_model
from ..types import Data
from ..utils.arguments import settings_in
from ..utils.progress import check_verbose
from ..utils.separable import Separated
from .base import InverseHessianVectorProduct
from .damping import AUTO_SHARE, check_damping, damping_vector, resolve_damping

MULTIPLIED_ENTRIES = 2**24
"""About this many entries of Pᵀ are there at a time while ``P Pᵀ`` is computed."""


class LoGraIHVP(InverseHessianVectorProduct):
    """``H⁻¹ ≈ Pᵀ (P F Pᵀ + damping · I)⁻¹ P`` with a random projection P of k rows [1]_.

    F is a Fisher matrix, whose projection is accumulated in one pass over the data. An example is
    k numbers from then on, and scores and self-influence are products of those. With the default,
    LoGra, they come from the factors of each layer's gradient, and no gradient row is built.

    Since ``E PᵀP = I``, the damping is in the units of F, as for other strategies. What P maps
    to zero is dropped, so that H is known within the rows of P only: `solve` is the expression
    above and `multiply` its pseudo-inverse. Regularisers of the model are left to the damping: an
    L2 penalty ``λ‖w‖²`` is one of 2λ.

    Parameters
    ----------
    model
        The wrapped model.
    train_dataset
        The batched training set.
    projection
        ``"logra"``, ``"factgrass"``, ``"sjlt"``, ``"rademacher"``, ``"gaussian"``, ``"mask"``, or a
        `Projection`.
    projection_dim
        Its size, see `resolve_projection`: for LoGra that of each layer, ``(inputs, outputs)``,
        16 by 16 unless told, else the number k, 2,048 unless told.
    damping
        A number, ``"auto"`` (a tenth of the mean eigenvalue of ``P F Pᵀ``), or one number for each
        layer, where the projection keeps layers apart, as LoGra does.
    fisher
        ``"empirical"`` (gradients for the labels of the data), ``"true"`` (for one draw of targets
        from the model for each example) or ``"expected"`` (their expectation, the Gauss-Newton
        matrix for the usual losses, at one backward pass for each output).
    n_samples_for_hessian
        How many examples to draw for the curvature; None takes all.
    seed
        Fixes the projection and all draws.
    verbose
        As in Keras.

    Raises
    ------
    CurvatureSizeError
        If ``(k, k)`` matrices do not fit in the free memory.
    ValueError
        For an argument out of its range.

    References
    ----------
    .. [1] S. K. Choe, H. Ahn, J. Bae, K. Zhao, M. Kang, Y. Chung, A. Pratapa, W. Neiswanger, E.
       Strubell, T. Mitamura, J. Schneider, E. Hovy, R. Grosse, E. Xing. What is Your Data Worth to
       GPT? LLM-Scale Data Valuation with Influence Functions. arXiv:2405.13954, 2024.
    """

    name = "logra"
    fits_by_sums = True
    separable = True
    settings: ClassVar[tuple[str, ...]] = ("n_samples_for_hessian", "seed")

    projection: Projection
    """P."""

    projected_curvature: np.ndarray
    """``P F Pᵀ`` without damping, float64, shape ``(k, k)``."""

    damping_values: np.ndarray
    """The damping of each watched layer, float64, shape ``(layers,)``."""

    def __init__(
        self,
        model: BaseInfluenceModel,
        train_dataset: Data | None = None,
        projection: ProjectionLike = "logra",
        projection_dim: Any = None,
        *,
        damping: Any = "auto",
        fisher: str = "empirical",
        n_samples_for_hessian: int | None = None,
        seed: int | None = None,
        verbose: str | int = "auto",
    ) -> None:
        config = settings_in(locals())
        check_influence_model(model)
        given = projection.get_config() if isinstance(projection, Projection) else projection
        check_verbose(verbose)
        check_choice("fisher", fisher, FISHERS)
        config.update(projection=given, damping=check_damping(damping, model.layout))
        super().__init__(model, train_dataset, config)
        self.projection = self._resolved(projection)
        if isinstance(given, str):
            # As the kind reads it: plain numbers, which JSON can hold.
            self.config["projection_dim"] = self.projection.projection_dim
        self.projected_curvature = self._fitted()
        self.damping_values = resolve_damping(
            self.config["damping"], model.layout, self._automatic_damping
        )
        self._invert()

    def self_influence(self, gradients: BatchGradients) -> tf.Tensor:
        features = self.projection.project(gradients)
        return tf.reduce_sum(features * tf.matmul(features, self._inverse), axis=1)

    def query_factors(self, gradients: BatchGradients) -> tf.Tensor:
        """Return ``(P F Pᵀ + damping · I)⁻¹ P g``, shape ``(m, k)``."""
        return tf.matmul(self.projection.project(gradients), self._inverse)

    def scores(self, factors: tf.Tensor, gradients: BatchGradients) -> tf.Tensor:
        return tf.matmul(factors, self.train_factors(gradients), transpose_b=True)

    def train_factors(self, gradients: BatchGradients) -> tf.Tensor:
        """Return ``P g_i``, shape ``(b, k)``."""
        return self.projection.project(gradients)

    def asking_factors(self, gradients: BatchGradients) -> tf.Tensor:
        return self.query_factors(gradients)

    def columns_of_layers(self) -> list[tuple[str, int, int]]:
        layers = self.projection.layer_of_feature
        if layers is None:
            return []
        names = self.model.layout.layer_names
        ends = np.searchsorted(layers, np.arange(len(names)), side="right").tolist()
        return list(zip(names, [0, *ends[:-1]], ends, strict=True))

    def products(self, factors: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        return tf.matmul(factors, self.projection.apply(vectors), transpose_b=True)

    def damping_diagonal(self) -> np.ndarray:
        """Return what is added to H for each parameter, float64, shape ``(p,)``.

        H is known within the rows of P, where it is the damping over their squared length.
        """
        layers, lengths = self._layer_of_feature, np.diag(self._products_of_rows)
        count = len(self.damping_values)
        features = np.bincount(layers, minlength=count)
        scales = np.full(count, lengths.mean())
        np.divide(np.bincount(layers, lengths, count), features, scales, where=features > 0)
        return damping_vector(self.damping_values / scales, self.model.layout)

    def fingerprint(self) -> tuple:
        """Return what tells this fit from others: the projection, and products in its space."""
        vector = np.linspace(1.0, 2.0, self.projection.size)
        settings = json.dumps(self.projection.get_config())
        return settings, *(vector @ self._damped_curvature).tolist()

    def _solve(self, vectors: tf.Tensor) -> tf.Tensor:
        features = tf.matmul(self.projection.apply(vectors), self._inverse)
        return self.projection.adjoint(features)

    def _multiply(self, vectors: tf.Tensor) -> tf.Tensor:
        features = tf.matmul(self.projection.apply(vectors), self._pseudo_inverse)
        return self.projection.adjoint(features)

    @cached_property
    def _pseudo_inverse(self) -> tf.Tensor:
        """``(P Pᵀ)⁺ (P F Pᵀ + damping · I) (P Pᵀ)⁺``, shape ``(k, k)``."""
        inverse = np.linalg.pinv(self._products_of_rows, self._precision, hermitian=True)
        with tf.init_scope():
            return tf.constant(inverse @ self._damped_curvature @ inverse, self.model.dtype)

    @cached_property
    def _products_of_rows(self) -> np.ndarray:
        """``P Pᵀ``, float64, shape ``(k, k)``."""
        step = max(MULTIPLIED_ENTRIES // self.model.nb_params, 1)
        with tf.init_scope():
            identity = tf.eye(self.projection.size, dtype=self.model.dtype)
            rows = [
                self.projection.apply(self.projection.adjoint(identity[start : start + step]))
                for start in range(0, self.projection.size, step)
            ]
            return tf.concat(rows, axis=0).numpy().astype(np.float64)

    @property
    def _damped_curvature(self) -> np.ndarray:
        diagonal = self.damping_values[self._layer_of_feature]
        return self.projected_curvature + np.diag(diagonal)

    @property
    def _layer_of_feature(self) -> np.ndarray:
        """The layer whose damping each feature gets, shape ``(k,)``."""
        layers = self.projection.layer_of_feature
        if layers is not None:
            return layers
        if np.ptp(self.damping_values) > 0:
            message = (
                "Argument `damping` must be one number for projections that mix layers, such as "
                f"{self.projection.name!r}. Received: {self.damping_values.tolist()}. Use "
                "projection='logra', or one number."
            )
            raise ValueError(message)
        return np.zeros(self.projection.size, int)

    @property
    def _precision(self) -> float:
        """The share of the largest eigenvalue below which others are rounding."""
        return float(self.projection.size * np.finfo(self.model.dtype.as_numpy_dtype).eps)

    def _resolved(self, projection: ProjectionLike) -> Projection:
        found = resolve_projection(
            projection, self.config["projection_dim"], self.config["seed"], self.model
        )
        if found is None:
            message = (
                f"Argument `projection` must be one of {sorted(PROJECTIONS)} or a Projection. "
                "Received: None. Without a projection, use ihvp_calculator='exact'."
            )
            raise ValueError(message)
        return found

    def _fitted(self) -> np.ndarray:
        """Accumulate ``P F Pᵀ`` in one pass over the data."""
        check_moments_fit(self.projection.size)
        config = self.config
        fisher = FisherPass(
            self.engine, self._fit_dataset(), config["fisher"], config["seed"], config["verbose"]
        )

        # The engine keeps what it compiles: nothing drawn may be part of that.
        tensors = self.projection.tensors
        name = ("logra", self.projection.form)
        undrawn = self.model.resource(name, lambda: self.projection.with_tensors(()))

        def second_moments(sets: list[BatchGradients], tensors: Any) -> tuple[dict, list]:
            project = undrawn.with_tensors(tensors).project
            features = tf.concat([project(gradients) for gradients in sets], axis=0)
            return {(): PlainSum(tf.matmul(features, features, transpose_a=True))}, []

        total, count = fisher.total(
            name, second_moments, "Projected curvature", arguments=(tensors,)
        )
        self._note_size(count)
        return total[()].total / count

    def _separated(self) -> Separated:
        def over(tensors: tuple) -> LoGraIHVP:
            inverse, drawn = tensors
            return self._altered(_inverse=inverse, projection=self.projection.with_tensors(drawn))

        return Separated(self.projection.form, (self._inverse, self.projection.tensors), over)

    def _automatic_damping(self) -> float:
        return AUTO_SHARE * float(np.trace(self.projected_curvature)) / self.projection.size

    def _invert(self) -> None:
        matrix, dtype = self._damped_curvature, self.model.dtype
        trace = float(np.trace(self.projected_curvature))
        check_curved(trace, type(self).__name__, bool(self.damping_values.min() > 0))
        cutoff = rounding_cutoff(self.projected_curvature, dtype)
        if self.damping_values.min() > cutoff:
            self._inverse = tf.constant(cholesky_inverse(matrix), dtype)
            return
        diagonal = self.damping_values[self._layer_of_feature]
        values, vectors = decided_eigenpairs(*eigenpairs(matrix), diagonal, None, cutoff, dtype)
        inverse = DenseInverse(values, vectors, values != 0, cutoff)
        self._inverse = tf.cast(inverse.matrix, dtype)

    def _state(self) -> dict[str, np.ndarray]:
        return {
            "projected_curvature": self.projected_curvature,
            "damping_values": self.damping_values,
        }

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.projection = self._resolved(self.config["projection"])
        self.projected_curvature = state["projected_curvature"]
        self.damping_values = state["damping_values"]
        self._invert()
