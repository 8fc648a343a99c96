"""A row of the table made real: its model, its data, and what plain autodiff says of them."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_influence.model import BaseInfluenceModel
from tests.models.case import ModelCase
from tests.models.oracle import Example, PlainInfluence

TRAINING, QUERIES, BATCH = 6, 3, 4  # the last batch is a partial one


class Problem:
    """A model with its data, wrapped for gradients and for curvature."""

    def __init__(self, case: ModelCase) -> None:
        self.case = case
        self.model = case.build()
        generator = np.random.default_rng(0)
        self._training, self._queries = (case.data(generator, n) for n in (TRAINING, QUERIES))

    @property
    def training(self) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(self._training).batch(BATCH)

    @property
    def queries(self) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(self._queries).batch(BATCH)

    @cached_property
    def differentiated(self) -> BaseInfluenceModel:
        """The model, watching the variables whose gradients are compared."""
        return self._wrap(self.case.differentiated)

    @cached_property
    def curved(self) -> BaseInfluenceModel:
        """The model, watching the few variables whose curvature is compared."""
        return self._wrap(self.case.curved)

    def gradients(self, model: BaseInfluenceModel) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradients by plain autodiff of queries ``(m, p)`` and training ``(n, p)``."""
        oracle = self._oracle(model)
        queries, training = _alone(self._queries), _alone(self._training)
        return oracle.gradients(queries), oracle.gradients(training)

    @cached_property
    def hessian(self) -> np.ndarray:
        """The Hessian ``(p, p)`` of the training objective by plain autodiff."""
        return self._oracle(self.curved).hessian(_alone(self._training))

    @cached_property
    def damping(self) -> float | str:
        """A damping that makes the Hessian well-conditioned.

        It is a tenth of the largest eigenvalue, and twice the most negative one on top: condition
        numbers stay near ten, and tolerances tell rounding from mistakes. Where the strategies
        are to refuse the model there may be no Hessian.
        """
        if "exact" in self.case.refusals:
            return "auto"
        eigenvalues = np.linalg.eigvalsh(self.hessian)
        return float(0.1 * eigenvalues.max() + 2 * max(-eigenvalues.min(), 0.0))

    @cached_property
    def influence(self) -> np.ndarray:
        """The influence matrix ``(m, n)`` of plain autodiff, ``g(z)ᵀ H⁻¹ g(z_i)``."""
        queries, training = self.gradients(self.curved)
        damped = self.hessian + self.damping * np.eye(len(self.hessian))
        return queries @ np.linalg.solve(damped, training.T)

    def _wrap(self, parts: tuple[str, ...]) -> BaseInfluenceModel:
        over_positions = "sum" if self.case.positions else "mean"
        watched = variables_of(self.model, parts)
        return BaseInfluenceModel(self.model, watched, loss_over_positions=over_positions)

    def _oracle(self, model: BaseInfluenceModel) -> PlainInfluence:
        return PlainInfluence(self.model, model.weights, self.case.positions)


@lru_cache(maxsize=1)
def problem_of(case: ModelCase) -> Problem:
    """Return the problem of a row; strategies of one row that follow each other share it."""
    return Problem(case)


def variables_of(model: keras.Model, parts: tuple[str, ...]) -> list[keras.Variable]:
    """Return the trainable variables whose path has one of the parts; all if there is none."""
    chosen = [v for v in model.trainable_variables if any(p in v.path for p in parts)]
    return chosen if parts else list(model.trainable_variables)


def _alone(examples: Any) -> list[Example]:
    """Return the examples as batches of one."""
    return list(tf.data.Dataset.from_tensor_slices(examples).batch(1))
