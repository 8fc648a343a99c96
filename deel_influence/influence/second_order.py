"""Second-order influence of groups of training examples."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from ..calculators.described import GROUPS, LOSS_CHANGE, PAIRS, Measured
from ..calculators.group import BaseGroupInfluenceCalculator
from ..gradients.engine import GradientEngine
from ..gradients.passes import Pass, query_and_train_passes
from ..ihvp.registry import resolve_ihvp
from ..linalg.checks import check_choice
from ..model.influence_model import BaseInfluenceModel, check_influence_model
from ..model.measurements import Measurement
from ..types import Batch, Data, IdFunction
from ..utils.datasets import check_dataset, count_examples
from ..utils.example_ids import POSITION
from ..utils.group_sums import group_labels
from ..utils.running import run
from .group_passes import GroupPasses
from .group_steps import newton_steps
from .loss_changes import loss_changes, warn_of_rounding
from .regularization_curvature import RegularizationCurvature
from .training_set import size_of_training_set

CURVATURES = ("hessian", "gauss_newton")
STEPS = ("second_order", "newton")


class SecondOrderInfluenceCalculator(Measured, BaseGroupInfluenceCalculator):
    """Influence of groups, the interactions between their members included [1]_.

    Without a group U of u = q·n examples, training minimises the mean over the n - u others plus
    R. At the trained parameters the gradient of that objective and its Hessian are

        -(1/(n - u)) G,           G = Σ_{i∈U} (g_i + ∇R),
        (1/(n - u)) (n H - K),    K = Σ_{i∈U} h_i + u (R'' + D),

    h_i the Hessian of the loss of z_i, D the damping of H. The Newton step ``(n H - K)⁻¹ G``,
    expanded to second order around ``(1 - q) n H``, which it would be for a group of average
    curvature, is the predicted change of the parameters,

        δ = (1/n) [ (1 - 2q)/(1 - q)² H⁻¹ G + 1/((1 - q)² n) H⁻¹ K H⁻¹ G ],

    with the coefficients of the paper, and the regulariser in both terms. Third derivatives of the
    loss are left out, as there. With ``step="newton"`` δ is the Newton step itself, all members
    taken out at once, by conjugate gradients. ``n δ`` without ∇R in G is the group's influence
    vector, in the scale of `FirstOrderInfluenceCalculator`. Positive values: the group helps the
    query.

    Parameters
    ----------
    model
        The wrapped model.
    dataset
        The batched training set, n examples.
    ihvp_calculator
        As for `FirstOrderInfluenceCalculator`.
    n_samples_for_hessian
        How many examples to draw for H; None takes all. The groups' own curvature is always that
        of all their members.
    shuffle_buffer_size
        Without effect: the draw is uniform over the whole dataset.
    seed
        Fixes the draw of examples.
    curvature
        That of the groups, ``"hessian"`` or ``"gauss_newton"``; it should be that of the strategy.
    step
        ``"second_order"``: the expansion of the paper. ``"newton"``: the whole step, at some more
        passes over the members of the groups; for groups that carry much of what the training set
        says somewhere.
    measurement
        Another number than the loss that is looked at on the queries; see
        `BaseInfluenceCalculator`.

    Raises
    ------
    ConvergenceError
        While scoring with ``step="newton"``, for a group without which the training objective has
        no positive curvature along some direction.

    References
    ----------
    .. [1] S. Basu, X. You, S. Feizi. On Second-Order Group Influence Functions for Black-Box
       Predictions. ICML 2020.
    """

    answers = frozenset({PAIRS, GROUPS, LOSS_CHANGE})

    def __init__(
        self,
        model: BaseInfluenceModel,
        dataset: Data,
        ihvp_calculator: Any = "exact",
        n_samples_for_hessian: int | None = None,
        shuffle_buffer_size: int = 10000,  # noqa: ARG002 - kept for users of Influenciae
        seed: int | None = None,
        *,
        curvature: str = "hessian",
        step: str = "second_order",
        measurement: Measurement = None,
    ) -> None:
        check_influence_model(model)
        check_dataset(dataset, "dataset", model.input_rank)
        check_choice("curvature", curvature, CURVATURES)
        check_choice("step", step, STEPS)
        self.model = model
        self.measurement = measurement
        self.engine = GradientEngine.of(model)
        self._look_at_queries()
        self.train_dataset = dataset
        self.curvature = curvature
        self.step = step
        self.ihvp_calculator = resolve_ihvp(
            ihvp_calculator,
            model,
            dataset,
            n_samples_for_hessian=n_samples_for_hessian,
            seed=seed,
        )
        self._regularization = RegularizationCurvature(self.ihvp_calculator)

    @cached_property
    def num_train_examples(self) -> int:
        """The number n of examples in the training set, counted where no fit knows it.

        Raises
        ------
        EmptyDatasetError
            If there are none.
        """
        return size_of_training_set(self.ihvp_calculator, self.train_dataset)

    def influence_matrix(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        groups: Any = None,
        device: str | None = None,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Return the influence of every group on every query.

        Parameters
        ----------
        dataset_to_evaluate
            The m queries, batched.
        train_set
            The members of the groups, batched; examples of no group may be among them.
        groups
            For each example of ``train_set`` the number of its group, from 0, or -1 for none;
            int, shape ``(n,)``. None takes each example as a group of its own.
        device
            Where to compute; None leaves it to TensorFlow.
        verbose
            As in Keras.

        Returns
        -------
        Array ``(m, number of groups)``.
        """
        queries, train = self._checked(dataset_to_evaluate, train_set, device, verbose)
        vectors = self._vectors(train, groups, is_regularized=False)
        return self._over_queries(queries, _gradient_products, vectors)

    def predict_loss_change(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        groups: Any = None,
        id_fn: IdFunction | None = None,  # noqa: ARG002 - groups go by position
        device: str | None = None,
        verbose: str | int = "auto",
        *,
        linearize: bool = False,
    ) -> np.ndarray:
        """Predict how the loss of each query changes when a group is removed.

        The figure is ``ℓ(z, θ̂ + δ) - ℓ(z, θ̂)``, in units of the loss, one forward pass over the
        queries for each group. Positive: the loss on z would rise.

        Parameters
        ----------
        dataset_to_evaluate, train_set, groups, device, verbose
            As for `influence_matrix`.
        id_fn
            Without effect: examples are told by their position.
        linearize
            Whether to return ``g(z)ᵀ δ`` in its place, as in the paper: cheaper for very many
            groups, and free of the rounding of a difference of two losses, but it misses how the
            loss bends along δ, which large groups show. In half precision that rounding is larger
            than most changes, of which a `CurvatureWarning` warns.

        Returns
        -------
        Array ``(m, number of groups)``.
        """
        queries, train = self._checked(dataset_to_evaluate, train_set, device, verbose)
        if not linearize:
            warn_of_rounding(self.query_model)
        vectors = self._vectors(train, groups, is_regularized=True)
        steps = vectors / self.num_train_examples
        make = _gradient_products if linearize else _loss_changes
        return self._over_queries(queries, make, steps)

    def compute_influence_vector_group(self, group: Data) -> tf.Tensor:
        """Return the group's influence vector, shape ``(1, p)``: n δ without ∇R in G."""
        data = Pass(group, "group").checked(self.engine)
        one = np.zeros(count_examples(group), dtype=int)
        return self._vectors(data, one, is_regularized=False)

    def estimate_influence_values_group(
        self, group_train: Data, group_to_evaluate: Data | None = None
    ) -> tf.Tensor:
        """Return ``Σ_z g(z)ᵀ v`` with v the influence vector of a group, a scalar."""
        vector = self.compute_influence_vector_group(group_train)
        other = group_train if group_to_evaluate is None else group_to_evaluate
        check_dataset(other, "group_to_evaluate", self.model.input_rank)
        queries = Pass(other, "group_to_evaluate", in_order=False)
        values = self._over_queries(queries, _gradient_products, vector)
        return tf.constant(values.sum(), self.model.dtype)

    def _checked(
        self,
        dataset_to_evaluate: tf.data.Dataset,
        train_set: tf.data.Dataset,
        device: str | None,
        verbose: str | int,
    ) -> tuple[Pass, Pass]:
        return query_and_train_passes(
            self.engine, dataset_to_evaluate, train_set, POSITION, device, verbose
        )

    def _vectors(self, data: Pass, groups: Any, is_regularized: bool) -> tf.Tensor:
        """Return n δ for each group, with or without ∇R in G, shape ``(J, p)``."""
        self.ihvp_calculator.check_unchanged()
        labels = group_labels(groups, count_examples(data.dataset))
        passes = GroupPasses(self.engine, data, labels)
        shares = self._shares(passes.sizes, data.argument)
        sizes = tf.constant(passes.sizes[:, None], self.model.dtype)
        gradients = passes.gradients()
        if is_regularized:
            gradients += sizes * self.model.regularization_gradient()
        solve = self.ihvp_calculator.solve

        def own(vectors: tf.Tensor) -> tf.Tensor:
            permanent = sizes * self._regularization.apply(vectors)
            return passes.products(vectors, self.curvature) + permanent

        if self.step == "newton":
            n = self.num_train_examples
            tolerance = float(np.sqrt(np.finfo(self.model.dtype.as_numpy_dtype).eps))
            return newton_steps(gradients, solve, lambda rows: own(rows) / n, tolerance)
        first = solve(gradients)
        second = solve(own(first))
        kept = (1 - shares) ** 2
        return first * ((1 - 2 * shares) / kept) + second / (kept * self.num_train_examples)

    def _shares(self, sizes: np.ndarray, argument: str) -> tf.Tensor:
        """Return the share q of each group in the training set, shape ``(J, 1)``."""
        if sizes.max() >= self.num_train_examples:
            message = (
                f"Argument `{argument}` must leave at least one of the "
                f"{self.num_train_examples} training examples. Received: a group of {sizes.max()}."
            )
            raise ValueError(message)
        return tf.constant(sizes[:, None] / self.num_train_examples, self.model.dtype)

    def _over_queries(
        self,
        queries: Pass,
        make: Callable[[GradientEngine], Callable[..., tf.Tensor]],
        vectors: tf.Tensor,
    ) -> np.ndarray:
        """Return what a kernel gives for the queries and J vectors, shape ``(m, J)``."""
        rows, engine = [], self.query_engine
        for item in queries.items(self.engine, engine):
            kernel = engine.kernel(("second_order", make.__name__), make(engine))
            found = run(kernel, item, (item.batch, vectors), queries.device, axis=0)
            rows.append(found.numpy())
        return np.concatenate(rows)


def _gradient_products(engine: GradientEngine) -> Callable[..., tf.Tensor]:
    return lambda batch, vectors: engine.gradients(batch).dot(vectors)


def _loss_changes(engine: GradientEngine) -> Callable[..., tf.Tensor]:
    def changes(batch: Batch, steps: tf.Tensor) -> tf.Tensor:
        return loss_changes(engine.model, batch, steps)

    return changes
