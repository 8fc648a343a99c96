"""Products with Fisher matrices, from factored per-example gradients."""

from __future__ import annotations

import tensorflow as tf

from ..gradients.engine import GradientEngine
from ..model.influence_model import BaseInfluenceModel
from ..types import Batch, Data
from ..utils.kernels import Kernel
from .draws import Draws
from .frozen import FrozenPart
from .operator import CurvatureOperator, Product, frozen_replayed
from .sampling import sampled_gradients


class EmpiricalFisherOperator(CurvatureOperator):
    """``v ↦ (1/n) Σ_i g_i g_iᵀ v`` with the gradients of the training losses themselves.

    Not the Fisher matrix: it weighs each example by its residual, and vanishes where all are
    fitted [1]_. It costs one pass of the gradient engine for all k vectors.

    Parameters
    ----------
    model, dataset, device, jit_compile, held_bytes
        As for `CurvatureOperator`.

    References
    ----------
    .. [1] F. Kunstner, L. Balles, P. Hennig. Limitations of the Empirical Fisher Approximation for
       Natural Gradient Descent. NeurIPS 2019.
    """

    kind = "empirical_fisher"

    def _kernel(self, single: bool) -> Kernel:  # noqa: ARG002 - all vectors at once anyway
        return self._compiled("product", _empirical_product)


class FisherOperator(CurvatureOperator):
    """``v ↦ (1/n) Σ_i ĝ_i ĝ_iᵀ v`` with gradients for targets drawn from the model [1]_.

    In expectation over the draws it is the Fisher matrix, for cross-entropy and squared error the
    Gauss-Newton matrix. An example has the same draw in every product and every mini-batch.

    Parameters
    ----------
    model, dataset, device, jit_compile, held_bytes
        As for `CurvatureOperator`.
    seed
        Fixes the draws.

    References
    ----------
    .. [1] J. Martens. New Insights and Perspectives on the Natural Gradient Method. JMLR 2020.
    """

    kind = "fisher"

    def __init__(
        self,
        model: BaseInfluenceModel,
        dataset: Data,
        *,
        seed: int | None = None,
        device: str | None = None,
        jit_compile: bool = False,
        held_bytes: int | None = None,
    ) -> None:
        super().__init__(
            model, dataset, device=device, jit_compile=jit_compile, held_bytes=held_bytes
        )
        self.seed = 0 if seed is None else int(seed)

    def _kernel(self, single: bool) -> Kernel:  # noqa: ARG002 - all vectors at once anyway
        return self._compiled("product", _sampled_product)


def _empirical_product(
    model: BaseInfluenceModel,
    part: FrozenPart | None,
    single: bool,  # noqa: ARG001 - all vectors at once anyway
) -> Product:
    engine = GradientEngine.of(model)
    part = _usable(engine, part)

    def product(
        batch: Batch,
        features: tuple[tf.Tensor, ...],
        vectors: tf.Tensor,
        draws: tuple,  # noqa: ARG001 - for the operator that samples
    ) -> tf.Tensor:
        with frozen_replayed(part, features):
            gradients = engine.gradients(batch)
        return gradients.weighted_sum(tf.transpose(gradients.dot(vectors)))

    return product


def _sampled_product(
    model: BaseInfluenceModel,
    part: FrozenPart | None,
    single: bool,  # noqa: ARG001 - all vectors at once anyway
) -> Product:
    engine = GradientEngine.of(model)
    part = _usable(engine, part)

    def product(
        batch: Batch, features: tuple[tf.Tensor, ...], vectors: tf.Tensor, draws: tuple
    ) -> tf.Tensor:
        with frozen_replayed(part, features):
            gradients = sampled_gradients(engine, batch, Draws(*draws))
        return gradients.weighted_sum(tf.transpose(gradients.dot(vectors)))

    return product


def _usable(engine: GradientEngine, part: FrozenPart | None) -> FrozenPart | None:
    """Return the frozen part unless some variables are differentiated example by example.

    That runs the model on one example after the other, and the features are those of a batch.
    """
    return None if engine.fallback_variables else part
