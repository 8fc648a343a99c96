"""A look at the curvature before a strategy is chosen: spectrum, damping, costs and errors."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ..curvature.data import Item
from ..curvature.registry import loss_curvature, with_regularizer
from ..errors import ConvergenceWarning, CurvatureWarning, LayerRuleWarning
from ..gradients.engine import GradientEngine
from ..gradients.rows import first_gradients
from ..linalg.checks import check_count
from ..linalg.conjugate_gradients import conjugate_gradients
from ..linalg.estimation import hutchinson_trace
from ..linalg.lanczos import lanczos
from ..linalg.result import SolveResult
from ..model.influence_model import BaseInfluenceModel, check_influence_model
from ..types import Batch, Data
from ..utils.datasets import check_dataset, sample_examples
from ..utils.running import call
from ..utils.takes_data import takes_data
from .costs import Cost, Problem, expected_costs
from .damping import automatic_damping
from .diagnosis import CurvatureDiagnosis, StrategyTrial
from .registry import IHVPCalculator

CHEAP = ("identity", "kfac", "ekfac", "datainf", "nystrom", "arnoldi")
"""The strategies that are tried unless others are named."""

TRACE_PROBES = 16
REFERENCE_TOLERANCE = 1e-5
REFERENCE_STEPS = 500


@takes_data
def diagnose(
    model: BaseInfluenceModel,
    dataset: Data,
    *,
    curvature: str = "hessian",
    damping: float | None = None,
    regularizer: bool = True,
    strategies: Sequence[str] = CHEAP,
    num_vectors: int = 4,
    num_steps: int = 40,
    n_samples_for_hessian: int | None = None,
    seed: int | None = 0,
    verbose: int = 1,
) -> CurvatureDiagnosis:
    """Look at the curvature of a model's objective, and try strategies on it.

    Parameters
    ----------
    model
        The wrapped model.
    dataset
        The batched training set.
    curvature
        ``"hessian"``, ``"gauss_newton"``, ``"fisher"`` or ``"empirical_fisher"``.
    damping
        The damping at which strategies are compared; None takes the recommended one.
    regularizer
        Whether the Hessian of the model's regularisers belongs to the curvature.
    strategies
        Names of the strategies to fit and to compare with conjugate gradients; none if empty.
    num_vectors
        On how many gradients, of the first examples.
    num_steps
        Lanczos steps for the eigenvalues.
    n_samples_for_hessian
        How many examples to draw for all of it; None takes all.
    seed
        Fixes all random choices.
    verbose
        0 prints nothing.

    Returns
    -------
    The findings, which `print` shows as a table.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    Examples
    --------
    >>> import keras, numpy as np, tensorflow as tf
    >>> from deel_influence.model import InfluenceModel
    >>> keras.utils.set_random_seed(0)
    >>> x, y = np.random.randn(64, 3).astype("float32"), np.random.randn(64, 1).astype("float32")
    >>> net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    >>> found = diagnose(InfluenceModel(net, loss_function="mse"), data, verbose=0)
    >>> found.negative_share, found.trials["arnoldi"].relative_error < 0.1
    (0.0, True)
    """
    check_influence_model(model)
    check_dataset(dataset, "dataset", model.input_rank)
    check_count("num_vectors", num_vectors)
    members = [IHVPCalculator.from_string(name) for name in strategies]
    if n_samples_for_hessian is not None:
        dataset = sample_examples(dataset, n_samples_for_hessian, seed)
    examination = _Examination(model, dataset, curvature, regularizer, seed)
    examination.look_at_spectrum(num_steps, damping)
    if members:
        examination.try_strategies(members, num_vectors)
    found = examination.findings()
    if verbose:
        print(found)
    return found


class _Examination:
    """What is looked at, and what was found so far."""

    def __init__(
        self,
        model: BaseInfluenceModel,
        dataset: Data,
        curvature: str,
        regularizer: bool,
        seed: int | None,
    ) -> None:
        self._model, self._dataset = model, dataset
        self._curvature, self._regularizer, self._seed = curvature, regularizer, seed
        self._engine = GradientEngine.of(model)
        self._loss_operator = loss_curvature(curvature, model, dataset, seed)
        operator = self._loss_operator
        self._operator = with_regularizer(operator, model) if regularizer else operator
        self._trials: dict[str, StrategyTrial] = {}
        self._reference: SolveResult | None = None

    def look_at_spectrum(self, num_steps: int, damping: float | None) -> None:
        """Estimate extreme and mean eigenvalues, and choose the damping."""
        size = self._operator.size
        spectrum = lanczos(self._operator, min(num_steps, size), seed=self._seed)
        self._values, weights = spectrum.ritz_values, spectrum.ritz_weights
        # Rounding leaves eigenvalues of zero a little below it.
        negative = self._values < -1e-5 * np.abs(self._values).max(initial=0.0)
        self._negative_share = float(weights[negative].sum())
        trace = hutchinson_trace(self._operator, TRACE_PROBES, seed=self._seed)
        self._mean = trace.value / size
        smallest = float(self._values[0]) if negative.any() else 0.0
        self._recommended = automatic_damping(self._mean, smallest)
        self._damping = self._recommended if damping is None else float(damping)

    def try_strategies(self, members: Sequence[IHVPCalculator], num_vectors: int) -> None:
        """Fit strategies, and compare their solutions with those of conjugate gradients."""
        vectors = first_gradients(self._engine, self._dataset, num_vectors)
        self._reference = conjugate_gradients(
            self._operator.damped(self._damping),
            vectors,
            tolerance=REFERENCE_TOLERANCE,
            max_steps=REFERENCE_STEPS,
        )
        for member in members:
            self._trials[member.value.name] = self._try(member.value, vectors)

    def findings(self) -> CurvatureDiagnosis:
        """Return all that was found."""
        gradient_norm, example_norm = self._gradient_norms()
        return CurvatureDiagnosis(
            num_parameters=self._model.nb_params,
            num_examples=self._loss_operator.num_examples,
            curvature=self._curvature,
            gradient_norm=gradient_norm,
            example_gradient_norm=example_norm,
            smallest_eigenvalue=float(self._values[0]),
            largest_eigenvalue=float(self._values[-1]),
            mean_eigenvalue=self._mean,
            negative_share=self._negative_share,
            recommended_damping=self._recommended,
            damping=self._damping,
            condition_number=self._condition_number,
            costs=self._costs(),
            trials=self._trials,
            reference=self._reference,
        )

    @property
    def _condition_number(self) -> float:
        lowest = max(float(self._values[0]), -self._damping) + self._damping
        return (float(self._values[-1]) + self._damping) / lowest if lowest > 0 else np.inf

    def _try(self, strategy: Any, vectors: tf.Tensor) -> StrategyTrial:
        wanted = {
            "damping": self._damping,
            "seed": self._seed,
            "curvature": self._curvature,
            "regularizer": self._regularizer,
            "verbose": 0,
        }
        options = {name: wanted[name] for name in strategy.accepted_settings() & set(wanted)}
        with warnings.catch_warnings():
            # The table says it all: errors here, negative curvature above it.
            for category in (ConvergenceWarning, CurvatureWarning, LayerRuleWarning):
                warnings.simplefilter("ignore", category)
            start = time.perf_counter()
            fitted = strategy(self._model, train_dataset=self._dataset, **options)
            fit_seconds = time.perf_counter() - start
            start = time.perf_counter()
            solution = fitted.solve(vectors).numpy().astype(np.float64)
            solve_seconds = time.perf_counter() - start
        expected = self._reference_solution()
        lengths = np.linalg.norm(solution, axis=1) * np.linalg.norm(expected, axis=1)
        products = np.sum(solution * expected, axis=1)
        cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
        error = np.linalg.norm(solution - expected) / np.linalg.norm(expected)
        return StrategyTrial(float(error), float(cosines.mean()), fit_seconds, solve_seconds)

    def _reference_solution(self) -> np.ndarray:
        if self._reference is None:
            message = "There is no reference before strategies are tried."
            raise RuntimeError(message)
        return self._reference.solution.numpy().astype(np.float64)

    def _gradient_norms(self) -> tuple[float, float]:
        """Return ``‖∇J‖`` and the root mean square of ``‖∇ℓ(z_i)‖``, in one pass."""
        total = tf.zeros((self._model.nb_params,), self._model.dtype)
        squares = 0.0
        for item in self._loss_operator.data:
            gradient, norms = self._run_gradients(item)
            total += gradient
            squares += float(tf.reduce_sum(norms))
        n = self._loss_operator.num_examples
        mean = total / n
        if self._regularizer:
            mean += self._model.regularization_gradient()
        return float(tf.norm(mean)), float(np.sqrt(squares / n))

    def _run_gradients(self, item: Item) -> tuple[tf.Tensor, tf.Tensor]:
        kernel = self._engine.kernel("sum_and_norms", _sum_and_norms(self._engine))
        return call(kernel, item, (item.batch,))

    def _costs(self) -> dict[str, Cost]:
        item = next(iter(self._loss_operator.data))
        vector = tf.ones((1, self._model.nb_params), self._model.dtype)
        gradient = _seconds(lambda: self._run_gradients(item)[0].numpy())
        product = _seconds(lambda: self._loss_operator.product_with(item, vector).numpy())
        shapes = [shape for shape in self._model.layout.shapes if len(shape) > 1]
        sides = [(int(np.prod(shape[:-1])) + 1, shape[-1]) for shape in shapes]
        outputs = tf.nest.flatten(self._model.predict_batch(item.batch))
        problem = Problem(
            num_parameters=self._model.nb_params,
            num_examples=self._loss_operator.num_examples,
            num_outputs=sum(int(np.prod(output.shape[1:])) for output in outputs),
            condition_number=self._condition_number,
            product_passes=product / gradient,
            factor_entries=sum(r * r + s * s for r, s in sides),
        )
        return expected_costs(problem)


def _sum_and_norms(engine: GradientEngine) -> Callable[[Batch], tuple[tf.Tensor, tf.Tensor]]:
    def sum_and_norms(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        gradients = engine.gradients(batch)
        norms = gradients.squared_norms()
        return gradients.weighted_sum(tf.ones_like(norms)), norms

    return sum_and_norms


def _seconds(function: Callable[[], Any]) -> float:
    """Return the shortest of three times, after one call to warm up."""
    function()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)
