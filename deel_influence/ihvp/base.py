"""Inverse-Hessian-vector products: a curvature, a solver and a damping."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import tensorflow as tf

from ..gradients.batch_gradients import BatchGradients
from ..gradients.engine import GradientEngine
from ..model.influence_model import BaseInfluenceModel, check_influence_model
from ..utils.datasets import check_dataset, numbered_batches
from ..utils.running import check_finite_inputs, run


class InverseHessianVectorProduct(ABC):
    """Products with ``H⁻¹`` and ``H``, for whole batches of vectors; rows are vectors.

    A strategy is one subclass with two hooks, `_solve` and `_multiply`; one that can score
    without materialising gradients overrides `self_influence` too. Its class attribute `settings`
    names which of ``n_samples_for_hessian``, ``shuffle_buffer_size`` and ``seed`` it takes.

    Parameters
    ----------
    model
        The wrapped model.
    train_dataset
        The batched training set, over which the curvature is taken; None where the strategy
        needs none.
    """

    name: ClassVar[str]
    settings: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, model: BaseInfluenceModel, train_dataset: tf.data.Dataset | None = None
    ) -> None:
        check_influence_model(model)
        if train_dataset is not None:
            check_dataset(train_dataset, "train_dataset", model.input_rank)
        self.model = model
        self.train_dataset = train_dataset
        self.engine = GradientEngine.of(model)

    @abstractmethod
    def _solve(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``H⁻¹ v`` for every row of vectors ``(b, p)``. To be implemented by subclasses."""

    @abstractmethod
    def _multiply(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``H v`` for every row of vectors ``(b, p)``. To be implemented by subclasses."""

    def fingerprint(self) -> tuple:
        """Return what tells this fit from others: the product of H with a fixed vector."""
        vector = tf.linspace(tf.ones((), self.model.dtype), 2.0, self.model.nb_params)
        return tuple(np.asarray(self._multiply(vector[None]))[0].tolist())

    def solve(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``H⁻¹ v`` for every row of ``vectors``, shape ``(b, p)``.

        Raises
        ------
        ValueError
            If the rows do not have p entries.
        """
        return self._solve(self._checked(vectors))

    def multiply(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``H v`` for every row of ``vectors``, shape ``(b, p)``.

        Raises
        ------
        ValueError
            If the rows do not have p entries.
        """
        return self._multiply(self._checked(vectors))

    def self_influence(self, gradients: BatchGradients) -> tf.Tensor:
        """Return ``g_iᵀ H⁻¹ g_i`` for the examples of a batch, shape ``(b,)``; traceable."""
        rows = gradients.materialize()
        return tf.reduce_sum(rows * self._solve(rows), axis=1)

    def compute_ihvp(self, group: tf.data.Dataset, use_gradient: bool = True) -> tf.Tensor:
        """Return ``H⁻¹ g_i`` for the examples of a dataset.

        Parameters
        ----------
        group
            A batched dataset of examples or, without ``use_gradient``, of vectors ``(b, p)``.
        use_gradient
            Whether gradients are taken first.

        Returns
        -------
        Rows ``(n, p)``, one for each example.
        """
        return self._over(group, use_gradient, "solve")

    def compute_hvp(self, group: tf.data.Dataset, use_gradient: bool = True) -> tf.Tensor:
        """Return ``H g_i`` for the examples of a dataset; the arguments of `compute_ihvp`."""
        return self._over(group, use_gradient, "multiply")

    def _over(self, group: tf.data.Dataset, use_gradient: bool, product: str) -> tf.Tensor:
        check_dataset(group, "group", self.model.input_rank if use_gradient else None)
        apply = {"solve": self._solve, "multiply": self._multiply}[product]
        if not use_gradient:
            vectors = (tf.nest.flatten(batch)[0] for batch, _ in numbered_batches(group))
            return tf.concat([apply(self._checked(rows)) for rows in vectors], axis=0)
        results = []
        for index, (batch, ids) in enumerate(numbered_batches(group, argument="group")):
            check_finite_inputs(batch, index, ids)
            self.engine.prepare(batch)
            kernel = self.engine.kernel("rows", lambda b: self.engine.gradients(b).materialize())
            results.append(apply(run(kernel, index, ids, (batch,), None, axis=0)))
        return tf.concat(results, axis=0)

    def _checked(self, vectors: tf.Tensor) -> tf.Tensor:
        vectors = tf.cast(tf.convert_to_tensor(vectors), self.model.dtype)
        if vectors.shape.rank != 2 or vectors.shape[1] != self.model.nb_params:
            message = (
                f"Argument `vectors` must have shape (b, p) with p = {self.model.nb_params}, one "
                f"vector in each row. Received: shape {vectors.shape}."
            )
            raise ValueError(message)
        return vectors
