"""What the strategies share that see the curvature through its products alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from ..curvature.flat import check_curved
from ..curvature.operator import CurvatureOperator
from ..curvature.registry import check_curvature, loss_curvature, with_regularizer
from ..linalg.estimation import hutchinson_trace
from ..linalg.lanczos import extreme_eigenvalues
from ..linalg.linear_operator import LinearOperator
from ..model.influence_model import BaseInfluenceModel
from ..types import Data
from .base import InverseHessianVectorProduct
from .damping import automatic_damping, check_damping, damping_vector, resolve_damping

TRACE_PROBES = 16
LANCZOS_STEPS = 24


class OperatorIHVP(InverseHessianVectorProduct):
    """Base class of strategies that know ``C`` by ``v ↦ C v`` only; ``H = C + R'' + damping``.

    With ``damping="auto"`` the damping is a tenth of the mean eigenvalue of ``C + R''`` (its
    trace by Hutchinson's estimate over p) and, for a Hessian with negative eigenvalues, 1.1 times
    the size of the smallest (by Lanczos) on top, so that H is positive definite.

    To be implemented by subclasses, beside the hooks of the base class: `_fit`.
    """

    settings: ClassVar[tuple[str, ...]] = ("n_samples_for_hessian", "seed")

    damping_values: np.ndarray
    """The damping of each watched layer, float64, shape ``(layers,)``."""

    def __init__(
        self,
        model: BaseInfluenceModel,
        train_dataset: Data | None,
        config: Mapping[str, Any],
    ) -> None:
        super().__init__(model, train_dataset, config)
        if train_dataset is None:
            raise self._missing_data()
        check_curvature(self.curvature)
        self.config["damping"] = check_damping(self.config["damping"], model.layout)
        self.damping_values = resolve_damping(
            self.config["damping"], model.layout, self._automatic_damping
        )
        self._fit()

    def _fit(self) -> None:
        """Learn what the solves need, damping and operator being there. May be overridden."""

    @property
    def curvature(self) -> str:
        """The name of the curvature C."""
        return self.config["curvature"]

    @property
    def damping(self) -> float:
        """The damping; the mean over parameters where layers differ."""
        return float(damping_vector(self.damping_values, self.model.layout).mean())

    @property
    def is_damped_evenly(self) -> bool:
        """Whether all layers have the same damping."""
        return bool(np.ptp(self.damping_values) == 0)

    @cached_property
    def loss_operator(self) -> CurvatureOperator:
        """C, over the training set or the sample of it that was asked for."""
        return loss_curvature(
            self.curvature, self.model, self._fit_dataset(), self.config.get("seed")
        )

    @cached_property
    def undamped_operator(self) -> LinearOperator:
        """``C + R''``."""
        return self._regularized(self.loss_operator)

    @cached_property
    def operator(self) -> LinearOperator:
        """H."""
        return self._damped(self.undamped_operator)

    @property
    def damping_or_vector(self) -> float | np.ndarray:
        """The damping: a number, or a diagonal ``(p,)`` where layers differ."""
        if self.is_damped_evenly:
            return self.damping
        return damping_vector(self.damping_values, self.model.layout)

    def step_operators(
        self, batch_size: int | None, seed: int | None
    ) -> LinearOperator | Iterator[LinearOperator]:
        """Return ``C + R''``, or an endless series of it over random batches of examples."""
        if batch_size is None:
            return self.undamped_operator
        drawn = self.loss_operator.minibatches(batch_size, seed)
        return (self._regularized(operator) for operator in drawn)

    def _regularized(self, operator: LinearOperator) -> LinearOperator:
        return with_regularizer(operator, self.model) if self.config["regularizer"] else operator

    def _damped(self, operator: LinearOperator) -> LinearOperator:
        return operator.damped(self.damping_or_vector) if self.damping else operator

    def _automatic_damping(self) -> float:
        seed = self.config.get("seed") or 0
        operator = self.undamped_operator
        mean = hutchinson_trace(operator, TRACE_PROBES, seed=seed).value / operator.size
        check_curved(abs(float(mean)), type(self).__name__, False)
        if self.curvature != "hessian":
            return automatic_damping(mean)
        smallest, _ = extreme_eigenvalues(operator, num_steps=LANCZOS_STEPS, seed=seed)
        return automatic_damping(mean, float(smallest))

    def _multiply(self, vectors: tf.Tensor) -> tf.Tensor:
        return self.operator.apply(vectors)

    def _state(self) -> dict[str, np.ndarray]:
        return {"damping_values": self.damping_values}

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.damping_values = state["damping_values"]
