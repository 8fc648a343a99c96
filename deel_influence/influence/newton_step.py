"""The influence of single examples with their own part taken out of the Hessian."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ..calculators.base import BaseInfluenceCalculator
from ..calculators.described import LOSS_CHANGE, PAIRS, SELF
from ..calculators.queries import ScoreSource
from ..curvature.closed_form import has_closed_form
from ..curvature.dense import check_dense_memory, dense_curvature, regularizer_hessian
from ..curvature.flat import check_curved
from ..errors import CurvatureWarning, UnsupportedModelError
from ..gradients.engine import GradientEngine
from ..gradients.passes import Pass, query_and_train_passes
from ..ihvp.base import InverseHessianVectorProduct
from ..ihvp.damping import AUTO, automatic_damping, check_damping, damping_vector, resolve_damping
from ..ihvp.left_out import warn_if_lost
from ..ihvp.registry import resolve_ihvp
from ..linalg.dense_inverse import DenseInverse, decided_eigenpairs, rounding_cutoff
from ..linalg.eigen import eigenpairs, eigenvalues
from ..model.fingerprint import check_unchanged_since, model_fingerprint
from ..model.influence_model import BaseInfluenceModel
from ..model.measurements import Measurement
from ..types import Batch, Data, IdFunction
from ..utils.datasets import Item, check_dataset
from ..utils.example_ids import POSITION
from ..utils.group_sums import sum_by_group
from .leverage import LastLayerLeverage, Leverage, NetworkLeverage
from .training_set import size_of_training_set

SMALLEST_EIGENVALUE = 1e-6
"""Below this eigenvalue of ``I - S B`` an example decides on some parameters by itself."""

_REMEDY = "or use FirstOrderInfluenceCalculator with ihvp_calculator='ekfac'"


class NewtonStepInfluenceCalculator(BaseInfluenceCalculator):
    """One Newton step of the training without z_i, exact in its own leverage.

    Without z_i, training minimises the mean over the n - 1 others plus R. One Newton step from
    the trained parameters changes them by

        δ_i = (A - h_i)⁻¹ (g_i + ∇R),    A = n H - R'' - D,

    with h_i the Hessian of the loss of z_i and D the damping of H, which like R does not shrink
    with the training set. First order has n H in the place of A - h_i, and so predicts too little
    for examples with leverage. Where one Dense layer is watched, with input φ and c outputs,
    ``g_i = φ_i ⊗ s_i`` and ``h_i = φ_i φ_iᵀ ⊗ S_i``, and by Sherman, Morrison and Woodbury

        δ_i = A⁻¹ (∇R + φ_i ⊗ t_i),    (I - S_i B_i) t_i = s_i + S_i ρ_i,

    where ``B_i`` is A⁻¹ between the c vectors ``φ_i ⊗ e_k``, and ``ρ_i`` holds their products with
    ``A⁻¹ ∇R``: one inverse for all examples, then a c×c system for each. For ridge regression the
    step is leave-one-out retraining itself [1]_, for other generalised linear models the
    approximate leave-one-out of [2]_.

    With ``ihvp_calculator`` any model may be watched. H is that of the strategy, h_i the
    Gauss-Newton part ``J_iᵀ S_i J_i`` with J_i the Jacobian of the c logits, A is ``n H``, and
    changes of loss are those of the network's tangent: the rescaled influence of [3]_, for c
    outputs.

    The score is ``n g(z)ᵀ δ_i`` without ∇R, in the scale of `FirstOrderInfluenceCalculator`.
    Positive: z_i helps z. Without a strategy H is the dense Hessian of the training objective,
    (p, p).

    Parameters
    ----------
    model
        The wrapped model. Without ``ihvp_calculator`` it must watch one Dense layer, called once,
        on inputs ``(b, r)``; whatever comes before and after is free.
    dataset
        The batched training set, n examples.
    damping
        Added to the diagonal of H: a number or ``"auto"``, as for `ExactIHVP`. A strategy has its
        own.
    measurement
        Another number than the loss that is looked at on the queries; see
        `BaseInfluenceCalculator`.
    ihvp_calculator
        A strategy whose solves take no pass over the data, as for
        `FirstOrderInfluenceCalculator`; with the Gauss-Newton or Fisher matrix, as
        ``ExactIHVP(..., curvature="gauss_newton")`` or ``"ekfac"``.

    Raises
    ------
    ValueError
        If the strategy goes over the data in each solve, or a damping is given beside it.
    UnsupportedModelError
        If the model watches anything else than one Dense layer, and there is no strategy.
    CurvatureSizeError
        If the matrix does not fit in the free memory.
    BatchError
        While scoring, for an example without which the training objective has no curvature, or a
        negative one, in some direction. An approximate H may be less than the part of an example.
    SavedCurvatureError
        While scoring, if the model has been trained further since.

    References
    ----------
    .. [1] R. D. Cook. Detection of Influential Observation in Linear Regression. Technometrics
       1977.
    .. [2] K. Rahnama Rad, A. Maleki. A Scalable Estimate of the Out-of-Sample Prediction Error via
       Approximate Leave-One-Out Cross-Validation. JRSS B 2020.
    .. [3] I. Rubinstein, S. B. Hopkins. Rescaled Influence Functions: Accurate Data Attribution in
       High Dimension. NeurIPS 2025.
    """

    answers = frozenset({SELF, PAIRS, LOSS_CHANGE})

    _leverage: Leverage[Any]

    def __init__(
        self,
        model: BaseInfluenceModel,
        dataset: Data,
        damping: Any = 0.0,
        measurement: Measurement = None,
        *,
        ihvp_calculator: Any = None,
    ) -> None:
        super().__init__(model, measurement)
        check_dataset(dataset, "dataset", model.input_rank)
        self.train_dataset = dataset
        self._fitted_on = model_fingerprint(model)
        if ihvp_calculator is None:
            self.num_train_examples, self._leverage = self._of_last_layer(damping)
            return
        strategy = _checked_strategy(resolve_ihvp(ihvp_calculator, model, dataset), damping)
        self.ihvp_calculator = strategy
        self.num_train_examples = size_of_training_set(strategy, dataset)
        self._leverage = NetworkLeverage(self.engine, strategy)

    def _of_last_layer(self, damping: Any) -> tuple[int, LastLayerLeverage]:
        """Invert the Hessian of a Dense layer; return n with it."""
        model, dataset, name = self.model, self.train_dataset, type(self).__name__
        checked = check_damping(damping, model.layout)
        _check_layer(self.engine, dataset)
        check_dense_memory(model, dataset, remedy=_REMEDY)
        found = dense_curvature(model, dataset, regularizer=False, verbose=0)
        penalty = regularizer_hessian(model) if model.is_regularized else None
        largest = float(np.abs(found.matrix).max(initial=0.0))
        is_damped = checked != AUTO and np.min(checked) > 0
        check_curved(largest, name, penalty is not None or is_damped)
        by_layer = resolve_damping(
            checked, model.layout, lambda: _automatic_damping(found.matrix, penalty)
        )
        values = damping_vector(by_layer, model.layout)
        # n A⁻¹, so that its products are in the scale of H⁻¹.
        share = 1 - 1 / found.num_examples
        inverse = _inverted(found.matrix, values, penalty, share, model.dtype)
        warn_if_lost(inverse, self.engine, dataset, name)
        return found.num_examples, LastLayerLeverage(self.engine, inverse)

    def predict_loss_change(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        groups: Any = None,
        id_fn: IdFunction | None = None,  # noqa: ARG002 - groups go by position
        device: str | None = None,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Predict how the loss of each query changes when a training example is removed.

        The figure is ``g(z)ᵀ δ_i + ½ δ_iᵀ ∇²ℓ(z) δ_i``, in units of the loss. Positive: the loss
        on z would rise. Most of what a linear prediction leaves is in the second term.

        Parameters
        ----------
        dataset_to_evaluate
            The m queries, batched.
        train_set
            The examples that might be removed, batched.
        groups
            As for `FirstOrderInfluenceCalculator.predict_loss_change`: the change for a group is
            the sum over its members, each removed alone.
        id_fn
            Without effect: examples are told by their position.
        device, verbose
            As for `score`.

        Returns
        -------
        Array ``(m, n)``, or ``(m, number of groups)``.
        """
        queries, train = query_and_train_passes(
            self.engine, dataset_to_evaluate, train_set, POSITION, device, verbose
        )
        streamed = self._streamed(train, self._changes_of_batch)
        blocks = self._blocks(ScoreSource(self._query_terms, streamed.scored), queries)
        return np.concatenate([sum_by_group(block.values, groups) for block in blocks])

    def _stream(self, data: Pass) -> Iterator[Item]:
        check_unchanged_since(self._fitted_on, self.model, type(self).__name__)
        return super()._stream(data)

    def _train_vectors(self, batch: Batch) -> tf.Tensor:
        terms = self._leverage.terms(batch)
        t = self._corrected(terms, self._leverage.coupling(terms))
        return self._leverage.steps(terms, t)

    def _query_vectors(self, batch: Batch) -> tf.Tensor:
        return self.query_engine.gradients(batch).materialize()

    def _vector_settings(self) -> tuple:
        row = tf.linspace(tf.ones((), self.model.dtype), 2.0, self.model.nb_params)[None]
        return tuple(self._leverage.solve(row)[0].numpy().tolist())

    def _query_factors(self, batch: Batch) -> tf.Tensor:
        return self._leverage.solve(self._query_vectors(batch))

    def _scores_of_batch(self, factors: tf.Tensor, batch: Batch) -> tf.Tensor:
        terms = self._leverage.terms(batch)
        t = self._corrected(terms, self._leverage.coupling(terms))
        return tf.transpose(terms.rows(t).dot(factors))

    def _self_scores(self, batch: Batch) -> tf.Tensor:
        if self.query_model is not self.model:
            return super()._self_scores(batch)
        terms = self._leverage.terms(batch)
        coupling = self._leverage.coupling(terms)
        t = tf.cast(self._corrected(terms, coupling), tf.float64)
        along = tf.linalg.matvec(coupling, t)
        scores = tf.reduce_sum(tf.cast(terms.deltas, tf.float64) * along, axis=1)
        return tf.cast(scores, self.model.dtype)

    def _query_terms(self, batch: Batch) -> tf.Tensor:
        return self._leverage.query_terms(self.query_engine, batch)

    def _changes_of_batch(self, queries: tf.Tensor, batch: Batch) -> tf.Tensor:
        """Return the predicted changes ``(m, b)`` for what `_query_terms` gave."""
        n, terms = self.num_train_examples, self._leverage.terms(batch)
        gradient = self.model.regularization_gradient()[None]
        shares = self.model.shares_of_regularization(batch)[:, None]
        rho = shares * self._leverage.along(terms, self._leverage.solve(gradient) / n)
        t = self._corrected(terms, self._leverage.coupling(terms), rho)
        moved, deltas, curvature = self._leverage.moved(queries, terms, t, shares * gradient)
        moved /= n
        slope = deltas[:, None] + tf.matmul(moved, curvature) / 2
        return tf.reduce_sum(moved * slope, axis=2)

    def _corrected(
        self, terms: Any, coupling: tf.Tensor, rho: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Return t, shape ``(b, c)``, without ρ for a step without ∇R; n B is given."""
        # The systems are small, and lose digits where the leverage is near one: in float64.
        curvature = tf.cast(terms.curvature, tf.float64)
        coupling /= self.num_train_examples
        right = tf.cast(terms.deltas, tf.float64)
        if rho is not None:
            right += tf.linalg.matvec(curvature, tf.cast(rho, tf.float64))
        check = tf.debugging.assert_greater(
            _smallest_eigenvalues(curvature, coupling),
            tf.constant(SMALLEST_EIGENVALUE, tf.float64),
            "an example decides on some parameters by itself: without it the training objective "
            "has no positive curvature there. Pass a larger `damping`",
        )
        system = tf.eye(int(right.shape[1]), dtype=tf.float64) - tf.matmul(curvature, coupling)
        with tf.control_dependencies([] if check is None else [check]):
            solved = tf.linalg.solve(system, right[:, :, None])[:, :, 0]
        return tf.cast(solved, self.model.dtype)


def _smallest_eigenvalues(curvature: tf.Tensor, coupling: tf.Tensor) -> tf.Tensor:
    """Return the smallest eigenvalue of ``I - S B`` for each pair of ``(b, c, c)``, ``(b,)``.

    A determinant would be a product of c factors, and small for many classes whatever they are.
    """
    values, vectors = tf.linalg.eigh(coupling)
    root = vectors * tf.sqrt(tf.maximum(values, 0.0))[:, None]
    # S B has the eigenvalues of the symmetric Rᵀ S R, with B = R Rᵀ.
    inner = tf.matmul(root, tf.matmul(curvature, root), transpose_a=True)
    return 1 - tf.linalg.eigvalsh(inner)[:, -1]


def _checked_strategy(
    strategy: InverseHessianVectorProduct, damping: Any
) -> InverseHessianVectorProduct:
    if not (isinstance(damping, (int, float)) and damping == 0):
        message = (
            "Argument `damping` must be left out beside `ihvp_calculator`, which has its own. "
            f"Received: {damping!r}. Pass it to the strategy: EKFACIHVP(model, data, damping=...)."
        )
        raise ValueError(message)
    if not strategy.traceable:
        message = (
            "Argument `ihvp_calculator` must solve without passes over the data, since each "
            f"example asks for as many solves as it has outputs. Received: {strategy.name!r}. Use "
            "'ekfac', 'kfac', 'exact' or 'woodbury'."
        )
        raise ValueError(message)
    return strategy


def _check_layer(engine: GradientEngine, dataset: tf.data.Dataset) -> None:
    """Refuse a model whose examples do not have a Hessian of rank c in the watched weights."""
    next(Pass(dataset, "dataset", in_order=False).items(engine))
    if has_closed_form(engine):
        return
    names = sorted({block.name for block in engine.model.layout.blocks})
    message = (
        "NewtonStepInfluenceCalculator needs a model that watches one Dense layer, called once on "
        "inputs (b, r): only then is the Hessian of an example of low rank and cheap to take out. "
        f"Received: watched weights of {names}. Watch the last layer alone: InfluenceModel(model)."
    )
    raise UnsupportedModelError(message)


def _automatic_damping(curvature: np.ndarray, penalty: np.ndarray | None) -> float:
    values = eigenvalues(curvature if penalty is None else curvature + penalty)
    return automatic_damping(float(values.mean()), float(values[0]))


def _inverted(
    curvature: np.ndarray,
    damping: np.ndarray,
    penalty: np.ndarray | None,
    share: float,
    dtype: tf.DType,
) -> DenseInverse:
    """Return the inverse of ``C + share · (penalty + damping)``; C ``(p, p)`` is overwritten."""
    cutoff = rounding_cutoff(curvature, dtype)
    if penalty is not None:
        penalty *= share
        curvature += penalty
    curvature[np.diag_indices_from(curvature)] += share * damping
    values, vectors = decided_eigenpairs(
        *eigenpairs(curvature), share * damping, penalty, cutoff, dtype
    )
    if values[0] < -cutoff:
        message = (
            f"The curvature has negative eigenvalues, the smallest {values[0]:.3g}: the weights "
            "are no minimum of the training objective, so that a Newton step has no clear meaning "
            "along them. Train further, or pass a larger `damping`."
        )
        warnings.warn(message, CurvatureWarning, stacklevel=3)
    return DenseInverse(values, vectors, values != 0, cutoff)
