"""DataInf: the inverse of each example's own curvature, averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from ..curvature.data import CurvatureData
from ..gradients.batch_gradients import BatchGradients, join_columns, take_columns
from ..gradients.engine import GradientEngine
from ..model.influence_model import BaseInfluenceModel, check_influence_model
from ..types import Batch, Data
from ..utils.arguments import settings_in
from ..utils.running import call, run
from .base import InverseHessianVectorProduct
from .damping import AUTO_SHARE, check_damping, damping_vector, resolve_damping


class DataInfIHVP(InverseHessianVectorProduct):
    """Swap mean and inverse, ``H_l⁻¹ ≈ (1/n) Σ_i (g_il g_ilᵀ + λ_l I)⁻¹`` for each layer l [1]_.

    By Sherman and Morrison each term is known, so that a vector v of layer l becomes
    ``(1/λ_l) (v - (1/n) Σ_i (g_ilᵀ v) / (λ_l + ‖g_il‖²) g_il)``: one pass of gradients over the
    data for a batch of vectors, and no matrix. The curvature that it approximates is the
    empirical Fisher matrix of each layer, which `multiply` gives.

    Parameters
    ----------
    model
        The wrapped model.
    train_dataset
        The batched training set.
    damping
        λ: a number, ``"auto"`` (for each layer a tenth of the mean of its squared gradient
        entries, as in the paper), or one number for each watched layer; above 0.
    n_samples_for_hessian
        How many examples to draw; None takes all.
    seed
        Fixes the draw of examples.

    Raises
    ------
    ValueError
        If the damping of a layer is 0.

    References
    ----------
    .. [1] Y. Kwon, E. Wu, K. Wu, J. Zou. DataInf: Efficiently Estimating Data Influence in
       LoRA-tuned LLMs and Diffusion Models. ICLR 2024.
    """

    name = "datainf"
    separable = True
    settings: ClassVar[tuple[str, ...]] = ("n_samples_for_hessian", "seed")
    traceable: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True

    def __init__(
        self,
        model: BaseInfluenceModel,
        train_dataset: Data | None = None,
        *,
        damping: Any = "auto",
        n_samples_for_hessian: int | None = None,
        seed: int | None = None,
    ) -> None:
        config = settings_in(locals())
        check_influence_model(model)
        config["damping"] = check_damping(damping, model.layout)
        super().__init__(model, train_dataset, config)
        self._data = CurvatureData(model, self._fit_dataset(), with_features=False)
        self.damping_values = resolve_damping(
            self.config["damping"], model.layout, self._mean_squares
        )
        if self.damping_values.min() <= 0:
            message = (
                "Argument `damping` must be above 0 for every layer. Received: "
                f"{self.damping_values.tolist()}, where a layer without any gradient has 0 by "
                '"auto". Pass a number.'
            )
            raise ValueError(message)

    def _mean_squares(self) -> np.ndarray:
        """Return a tenth of the mean squared gradient entry of each layer, ``(layers,)``."""
        layout = self.model.layout
        total = np.zeros(len(layout.blocks))
        for item in self._data:
            kernel = self.engine.kernel("layer_norms", _layer_norms(self.engine))
            values = run(kernel, item, (item.batch,), axis=0)
            total += values.numpy().astype(np.float64).sum(axis=0)
        sizes = np.array([block.size for block in layout.blocks])
        return AUTO_SHARE * total / (self._data.num_examples * sizes)

    def _solve(self, vectors: tf.Tensor) -> tf.Tensor:
        damping = tf.constant(self.damping_values, self.model.dtype)
        removed = self._mean_over_data("datainf", _removed_by_examples, vectors, damping)
        diagonal = damping_vector(self.damping_values, self.model.layout)
        return (vectors - removed) / tf.constant(diagonal, self.model.dtype)

    def _multiply(self, vectors: tf.Tensor) -> tf.Tensor:
        product = self._mean_over_data("layer_fisher", _layer_fisher, vectors)
        diagonal = damping_vector(self.damping_values, self.model.layout)
        return product + tf.constant(diagonal, self.model.dtype) * vectors

    def _mean_over_data(
        self,
        name: str,
        make: Callable[[GradientEngine], Callable[..., tf.Tensor]],
        vectors: tf.Tensor,
        *arguments: tf.Tensor,
    ) -> tf.Tensor:
        total = tf.zeros_like(vectors)
        for item in self._data:
            kernel = self.engine.kernel(name, make(self.engine))
            total += call(kernel, item, (item.batch, vectors, *arguments))
        return total / self._data.num_examples

    def _state(self) -> dict[str, np.ndarray]:
        return {"damping_values": self.damping_values}

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.damping_values = state["damping_values"]
        self._data = CurvatureData(self.model, self._fit_dataset(), with_features=False)


def _layer_norms(engine: GradientEngine) -> Callable[[Batch], tf.Tensor]:
    def norms(batch: Batch) -> tf.Tensor:
        return _norms_by_layer(engine, engine.gradients(batch))

    return norms


def _removed_by_examples(engine: GradientEngine) -> Callable[..., tf.Tensor]:
    def removed(batch: Batch, vectors: tf.Tensor, damping: tf.Tensor) -> tf.Tensor:
        gradients = engine.gradients(batch)
        weights = 1 / (damping + _norms_by_layer(engine, gradients))
        return _weighted_by_layer(engine, gradients, vectors, weights)

    return removed


def _layer_fisher(engine: GradientEngine) -> Callable[..., tf.Tensor]:
    def product(batch: Batch, vectors: tf.Tensor) -> tf.Tensor:
        gradients = engine.gradients(batch)
        ones = tf.ones_like(_norms_by_layer(engine, gradients))
        return _weighted_by_layer(engine, gradients, vectors, ones)

    return product


def _layers_of(engine: GradientEngine, gradients: BatchGradients) -> Sequence[list[int]]:
    """Return, for each watched layer, the places of its blocks among those of the gradients."""
    return [
        [i for i, placed in enumerate(gradients.blocks) if placed.parts[0] in layer.parts]
        for layer in engine.model.layout.blocks
    ]


def _norms_by_layer(engine: GradientEngine, gradients: BatchGradients) -> tf.Tensor:
    """Return ``‖g_il‖²``, shape ``(b, layers)``."""
    columns = [
        tf.add_n([gradients.blocks[i].block.squared_norms() for i in places])
        for places in _layers_of(engine, gradients)
    ]
    return tf.stack(columns, axis=1)


def _weighted_by_layer(
    engine: GradientEngine, gradients: BatchGradients, vectors: tf.Tensor, weights: tf.Tensor
) -> tf.Tensor:
    """Return ``Σ_i w_il (g_ilᵀ v_l) g_il`` for vectors ``(k, p)``, weights ``(b, layers)``."""
    layout, results = engine.model.layout, []
    for layer, places in enumerate(_layers_of(engine, gradients)):
        placed = [gradients.blocks[i] for i in places]
        products = tf.add_n([p.block.dot(take_columns(vectors, p.parts, layout)) for p in placed])
        weighted = tf.transpose(products * weights[:, layer : layer + 1])
        results += [(p.parts, p.block.weighted_sum(weighted)) for p in placed]
    return join_columns(results, layout)
