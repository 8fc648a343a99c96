"""Representer points by a local Jacobian expansion around the head's own weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from ..gradients.batch_gradients import BatchGradients
from ..gradients.passes import Pass
from ..ihvp.base import InverseHessianVectorProduct
from ..ihvp.registry import resolve_ihvp
from ..model.influence_model import BaseInfluenceModel
from ..model.selection import LayerKey
from ..types import Batch, Data
from ..utils.datasets import Item, count_examples
from .base import BaseRepresenterPoint


class RepresenterPointLJE(BaseRepresenterPoint):
    """Parts ``(θ† - H⁻¹ (g_i + ∇R)) · f / n`` of a logit, one for each training example [1]_.

    θ† are the weights of the last Dense layer, g_i the gradient of the loss of z_i in them, H the
    curvature of the training objective, and f the features of the query. To first order around θ†
    the gradient of the objective vanishes at

        θ* ≈ θ† - H⁻¹ ((1/n) Σ_i g_i + ∇R) = Σ_i (θ† - H⁻¹ (g_i + ∇R)) / n,

    so that the parts add up to the logits that one Newton step leads to: the model's own where it
    is trained to a minimum. Positive: z_i supports that class of the query. The share ``θ†·f / n``
    is the same for all training examples, and only sets where zero is. A bias counts as the
    weight of a feature of one.

    The score of an example alone is the absolute value of its part in its own logit, by which the
    authors look for wrong labels.

    Unlike `RepresenterPointL2` it leaves the head as it is. (The authors move it by a small step
    of gradient ascent first; the expansion holds without.)

    Parameters
    ----------
    model
        The wrapped model, or a compiled Keras model.
    dataset
        The batched training set, n examples.
    ihvp_calculator
        The name of a strategy (``"exact"``, ``"ekfac"``, ``"cgd"``, ...), an `IHVPCalculator`, a
        factory, or an `InverseHessianVectorProduct` that was fitted on an InfluenceModel watching
        the last Dense layer alone.
    n_samples_for_hessian
        How many examples to draw for the curvature; None takes all.
    target_layer
        Name or index of the Dense layer that gives the logits; None finds it.
    shuffle_buffer_size
        Without effect: the draw is uniform over the whole dataset.
    query_class
        Which class of a query is looked at: ``"predicted"``, ``"label"``, or an index.
    seed
        Fixes the draw of examples.

    References
    ----------
    .. [1] Y. Sui, G. Wu, S. Sanner. Representer Point Selection via Local Jacobian Expansion for
       Post-hoc Classifier Explanation of Deep Neural Networks and Ensemble Models. NeurIPS 2021.
    """

    def __init__(
        self,
        model: BaseInfluenceModel | keras.Model,
        dataset: Data,
        ihvp_calculator: Any = "exact",
        n_samples_for_hessian: int | None = None,
        target_layer: LayerKey = None,
        shuffle_buffer_size: int = 10000,  # noqa: ARG002 - kept for users of Influenciae
        query_class: str | int = "predicted",
        seed: int | None = None,
    ) -> None:
        super().__init__(
            model,
            dataset,
            target_layer=target_layer,
            query_class=query_class,
            argument="dataset",
        )
        self._check_fitted(ihvp_calculator)
        self.num_train_examples = count_examples(dataset)
        self.ihvp_calculator = resolve_ihvp(
            ihvp_calculator,
            self.model,
            dataset,
            n_samples_for_hessian=n_samples_for_hessian,
            seed=seed,
        )
        if not self.ihvp_calculator.traceable:
            # Their solves go over the data, and cannot be part of a compiled function.
            self._eager_hooks = frozenset(
                {"_self_scores", "_query_factors", "_train_vectors", "_values_by_class"}
            )

    def _stream(self, data: Pass) -> Iterator[Item]:
        self.ihvp_calculator.check_unchanged()
        return super()._stream(data)

    def _train_vectors(self, batch: Batch) -> tf.Tensor:
        """Return ``(θ† - H⁻¹ (g_i + ∇R)) / n``, shape ``(b, p)``."""
        rows = self.engine.graph_gradients(batch).materialize()
        rows += self.model.regularization_gradient()
        return (self._flat_weights() - self.ihvp_calculator.solve(rows)) / self.num_train_examples

    def _query_vectors(self, batch: Batch) -> tf.Tensor:
        return self._query(batch)[0].materialize()

    def _query_factors(self, batch: Batch) -> tf.Tensor:
        """Return the factors of the strategy and, last, ``θ†·f - ∇Rᵀ H⁻¹ f``, ``(m, q + 1)``."""
        directions, logits = self._query(batch)
        factors = self.ihvp_calculator.query_factors(directions)
        penalty = self.model.regularization_gradient()[None]
        shares = logits[:, None] - self.ihvp_calculator.products(factors, penalty)
        return tf.concat([factors, shares], axis=1)

    def _scores_of_batch(self, factors: tf.Tensor, batch: Batch) -> tf.Tensor:
        gradients = self.engine.graph_gradients(batch)
        changes = self.ihvp_calculator.scores(factors[:, :-1], gradients)
        return (factors[:, -1:] - changes) / self.num_train_examples

    def _values_by_class(self, features: tf.Tensor, batch: Batch) -> tf.Tensor:
        shape = (-1, self.head.num_features, self.head.num_outputs)
        return tf.einsum("mr,brc->mcb", features, tf.reshape(self._train_vectors(batch), shape))

    def _self_scores(self, batch: Batch) -> tf.Tensor:
        products = self._query_vectors(batch) * self._train_vectors(batch)
        return tf.abs(tf.reduce_sum(products, axis=1))

    def _kernel_weights(self) -> tf.Tensor:
        data = Pass(self.train_dataset, "dataset", in_order=False)
        total = self._summed(data, self._summed_gradients)
        gradient = total / self.num_train_examples + self.model.regularization_gradient()
        weights = self._flat_weights() - self.ihvp_calculator.solve(gradient[None])
        return tf.reshape(weights, (self.head.num_features, self.head.num_outputs))

    def _vector_settings(self) -> tuple:
        ihvp = self.ihvp_calculator
        return self.num_train_examples, ihvp.name, *ihvp.fingerprint()

    def _query(self, batch: Batch) -> tuple[BatchGradients, tf.Tensor]:
        """Return ``f ⊗ e_c`` for the queried class c, and the logit of that class ``(b,)``."""
        forward = self.head.forward(batch)
        logits = self.head.logits(forward)
        chosen = self._class_weights(batch, logits)
        # The gradient of that logit in the weights: f is the input, e_c the derivative.
        directions = self.engine.assemble(batch, forward, [chosen])
        return directions, tf.reduce_sum(chosen * logits, axis=1)

    def _check_fitted(self, ihvp_calculator: Any) -> None:
        """Refuse a strategy that was fitted on other weights than those of the head."""
        fitted = isinstance(ihvp_calculator, InverseHessianVectorProduct)
        if fitted and ihvp_calculator.model is not self.model:
            message = (
                "Argument `ihvp_calculator` must be fitted on the InfluenceModel that is passed "
                f"as `model`, and that one must watch layer {self.head.layer.name!r} alone. "
                "Received: a strategy of another model, or of more weights. Pass "
                "InfluenceModel(model, start_layer=...) to both, or the name of a strategy."
            )
            raise ValueError(message)

    def _flat_weights(self) -> tf.Tensor:
        """Return θ†, shape ``(p,)``."""
        values = [tf.cast(v.value, self.model.dtype) for v in self.model.weights]
        return self.model.layout.flatten(values)
