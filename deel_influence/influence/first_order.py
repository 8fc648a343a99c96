"""First-order influence functions, of examples and of groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from ..calculators.base import BaseInfluenceCalculator
from ..calculators.described import GROUPS, LOSS_CHANGE, PAIRS, SELF
from ..calculators.group import BaseGroupInfluenceCalculator
from ..gradients.batch_gradients import BatchGradients
from ..gradients.passes import Pass, query_and_train_passes
from ..ihvp.registry import resolve_ihvp
from ..model.influence_model import BaseInfluenceModel
from ..model.measurements import Measurement
from ..types import Batch, Data, IdFunction
from ..utils.datasets import Item, check_dataset
from ..utils.example_ids import POSITION
from ..utils.group_sums import sum_by_group
from ..utils.separable import Separated
from .training_set import size_of_training_set


class FirstOrderInfluenceCalculator(BaseInfluenceCalculator, BaseGroupInfluenceCalculator):
    """Influence ``g(z)ᵀ H⁻¹ g(z_i)`` of training example z_i on query z [1]_.

    Positive: z_i helps z, that is, without z_i the loss on z would rise. There is no 1/n in the
    score; `predict_loss_change` gives the predicted change of the loss itself. The influence of a
    group is the sum over its members [2]_.

    Parameters
    ----------
    model
        The wrapped model.
    dataset
        The batched training set, n examples.
    ihvp_calculator
        The name of a strategy (``"exact"``, ``"ekfac"``, ``"cgd"``, ...), an `IHVPCalculator`, a
        factory, or a fitted `InverseHessianVectorProduct`.
    n_samples_for_hessian
        How many examples to draw for the curvature; None takes all.
    shuffle_buffer_size
        Without effect: the draw is uniform over the whole dataset.
    normalize
        Set back examples that matter to every query [3]_: True or ``"theta"`` divides each score
        by ``‖H⁻¹ g(z_i)‖`` (θ-RelatIF), ``"loss"`` by ``√(g(z_i)ᵀ H⁻¹ g(z_i))`` (ℓ-RelatIF).
    seed
        Fixes the draw of examples.
    measurement
        Another number than the loss that is looked at on the queries: ``"margin"``, ``"logit"``,
        or a function of targets and outputs; see `BaseInfluenceCalculator`.

    References
    ----------
    .. [1] P. W. Koh, P. Liang. Understanding Black-box Predictions via Influence Functions. ICML
       2017.
    .. [2] P. W. Koh, K.-S. Ang, H. H. K. Teo, P. Liang. On the Accuracy of Influence Functions for
       Measuring Group Effects. NeurIPS 2019.
    .. [3] E. Barshan, M.-E. Brunet, G. K. Dziugaite. RelatIF: Identifying Explanatory Training
       Samples via Relative Influence. AISTATS 2020.
    """

    answers = frozenset({SELF, PAIRS, GROUPS, LOSS_CHANGE})
    separable = True

    def __init__(
        self,
        model: BaseInfluenceModel,
        dataset: Data,
        ihvp_calculator: Any = "exact",
        n_samples_for_hessian: int | None = None,
        shuffle_buffer_size: int = 10000,  # noqa: ARG002 - kept for users of Influenciae
        normalize: bool | str = False,
        seed: int | None = None,
        measurement: Measurement = None,
    ) -> None:
        super().__init__(model, measurement)
        check_dataset(dataset, "dataset", model.input_rank)
        self.train_dataset = dataset
        self.normalize = _check_normalize(normalize)
        self.ihvp_calculator = resolve_ihvp(
            ihvp_calculator,
            model,
            dataset,
            n_samples_for_hessian=n_samples_for_hessian,
            seed=seed,
        )
        if not self.ihvp_calculator.traceable:
            # Their solves go over the data, and cannot be part of a compiled function.
            self._eager_hooks = self._solving_hooks()

    @cached_property
    def num_train_examples(self) -> int:
        """The number n of examples in the training set, counted where no fit knows it.

        Raises
        ------
        EmptyDatasetError
            If there are none.
        """
        return size_of_training_set(self.ihvp_calculator, self.train_dataset)

    def predict_loss_change(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        groups: Any = None,
        id_fn: IdFunction | None = None,  # noqa: ARG002 - groups go by position
        device: str | None = None,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Predict how the loss of each query changes when training examples are removed.

        The figure is ``(1/n) g(z)ᵀ H⁻¹ Σ_i (g(z_i) + ∇R)`` over the removed examples i: what
        retraining without them, on the mean over what remains plus R, comes to in first order.
        Positive: the loss on z would rise. With a `measurement` it is the change of that.
        `normalize` has no part in it.

        Parameters
        ----------
        dataset_to_evaluate
            The m queries, batched.
        train_set
            The examples that might be removed, batched.
        groups
            For each example of ``train_set`` the number of its group, from 0, or -1 for none;
            int, shape ``(n,)``. None takes each example as a group of its own.
        id_fn
            Without effect: examples are told by their position.
        device, verbose
            As for `score`.

        Returns
        -------
        Array ``(m, n)``, or ``(m, number of groups)``.
        """
        # Groups, and the columns of the result, go by position, whatever the ids are.
        queries, train = query_and_train_passes(
            self.engine, dataset_to_evaluate, train_set, POSITION, device, verbose
        )
        blocks = self._blocks(self._streamed(train, self._changes_of_batch), queries)
        rows = [sum_by_group(block.values, groups) for block in blocks]
        return np.concatenate(rows) / self.num_train_examples

    def compute_influence_vector_group(self, group: Data) -> tf.Tensor:
        """Return ``H⁻¹ Σ_i g(z_i)`` over the group, shape ``(1, p)``.

        With ``normalize`` the group counts as one example, and its vector is divided likewise.
        """
        gradients = self._group_sum(group, "group", self._summed_gradients)
        return self._normalized_solve(gradients)

    def estimate_influence_values_group(
        self, group_train: Data, group_to_evaluate: Data | None = None
    ) -> tf.Tensor:
        """Return ``Σ_z Σ_i g(z)ᵀ H⁻¹ g(z_i)``, a scalar.

        With ``normalize`` it is divided by what divides the group's vector.
        """
        vector = self.compute_influence_vector_group(group_train)
        other = group_train if group_to_evaluate is None else group_to_evaluate
        queries = self._group_sum(other, "group_to_evaluate", self._summed_measurements)
        return tf.reduce_sum(vector * queries)

    def _solving_hooks(self) -> frozenset[str]:
        """Return the names of the hooks that solve for `H⁻¹`."""
        hooks = {"_self_scores", "_query_factors", "_train_vectors"}
        hooks |= {"_kept_with_scores", "_asking_vectors"}
        return frozenset(hooks | ({"_scores_of_batch"} if self.normalize else set()))

    def _separated(self) -> Separated | None:
        fit = self.ihvp_calculator.separated()
        if fit is None:
            return None
        form = (type(self.ihvp_calculator), fit.form, self.normalize)
        return Separated(
            form, fit.tensors, lambda tensors: self._altered(ihvp_calculator=fit.over(tensors))
        )

    def _stream(self, data: Pass) -> Iterator[Item]:
        self.ihvp_calculator.check_unchanged()
        return super()._stream(data)

    def _train_vectors(self, batch: Batch) -> tf.Tensor:
        return self._normalized_solve(self.engine.graph_gradients(batch).materialize())

    def _query_vectors(self, batch: Batch) -> tf.Tensor:
        return self.query_engine.graph_gradients(batch).materialize()

    def _vector_settings(self) -> tuple:
        ihvp = self.ihvp_calculator
        return self.normalize, ihvp.name, *ihvp.fingerprint()

    def _query_factors(self, batch: Batch) -> tf.Tensor:
        return self.ihvp_calculator.query_factors(self.query_engine.graph_gradients(batch))

    def _scores_of_batch(self, factors: tf.Tensor, batch: Batch) -> tf.Tensor:
        gradients = self.engine.graph_gradients(batch)
        return self._divided(self.ihvp_calculator.scores(factors, gradients), gradients)

    def _self_scores(self, batch: Batch) -> tf.Tensor:
        if self.query_model is not self.model:
            return super()._self_scores(batch)
        gradients = self.engine.graph_gradients(batch)
        scores = self.ihvp_calculator.self_influence(gradients)
        if self.normalize == "loss":
            return _root(scores)
        return self._divided(scores, gradients)

    def _kept_vectors(self, batch: Batch) -> tf.Tensor:
        gradients = self.engine.graph_gradients(batch)
        factors = self.ihvp_calculator.train_factors(gradients)
        return tf.transpose(self._divided(tf.transpose(factors), gradients))

    def _asking_vectors(self, batch: Batch) -> tf.Tensor:
        return self.ihvp_calculator.asking_factors(self.query_engine.graph_gradients(batch))

    def columns_of_layers(self) -> list[tuple[str, int, int]]:
        return self.ihvp_calculator.columns_of_layers()

    def _divided(self, scores: tf.Tensor, gradients: BatchGradients) -> tf.Tensor:
        """Divide scores ``(..., b)`` of a training batch as `normalize` asks."""
        if not self.normalize:
            return scores
        return tf.math.divide_no_nan(scores, self._lengths(gradients))

    def _lengths(self, gradients: BatchGradients) -> tf.Tensor:
        """Return what `normalize` divides by, shape ``(b,)``."""
        if self.normalize == "loss":
            return _root(self.ihvp_calculator.self_influence(gradients))
        return tf.norm(self.ihvp_calculator.solve(gradients.materialize()), axis=1)

    def _normalized_solve(self, rows: tf.Tensor) -> tf.Tensor:
        """Return ``H⁻¹ v`` for rows ``(b, p)``, divided as `normalize` asks."""
        vectors = self.ihvp_calculator.solve(rows)
        if not self.normalize:
            return vectors
        if self.normalize == "loss":
            lengths = _root(tf.reduce_sum(rows * vectors, axis=1))
        else:
            lengths = tf.norm(vectors, axis=1)
        return tf.math.divide_no_nan(vectors, lengths[:, None])

    def _changes_of_batch(self, factors: tf.Tensor, batch: Batch) -> tf.Tensor:
        """Return ``g(z)ᵀ H⁻¹ (g(z_i) + ∇R)`` for query factors, shape ``(m, b)``."""
        ihvp = self.ihvp_calculator
        scores = ihvp.scores(factors, self.engine.graph_gradients(batch))
        of_penalty = ihvp.products(factors, self.model.regularization_gradient()[None])
        return scores + of_penalty * self.model.shares_of_regularization(batch)

    def _group_sum(
        self, group: tf.data.Dataset, argument: str, hook: Callable[[Batch], tf.Tensor]
    ) -> tf.Tensor:
        """Return the sum over a dataset of what a hook gives for a batch, shape ``(1, p)``."""
        check_dataset(group, argument, self.model.input_rank)
        return self._summed(Pass(group, argument, "Group", in_order=False), hook)[None]

    def _summed_measurements(self, batch: Batch) -> tf.Tensor:
        return self.query_model.batch_gradient_tensor(batch)


def _root(squares: tf.Tensor) -> tf.Tensor:
    """Return square roots; an indefinite curvature, which has none, gives zero."""
    return tf.sqrt(tf.maximum(squares, 0.0))


def _check_normalize(normalize: Any) -> str | None:
    """Return ``"theta"``, ``"loss"`` or None."""
    if normalize in (False, None):
        return None
    if normalize in (True, "theta"):
        return "theta"
    if normalize == "loss":
        return "loss"
    message = (
        f"Argument `normalize` must be False, True, 'theta' or 'loss'. Received: {normalize!r}."
    )
    raise ValueError(message)
