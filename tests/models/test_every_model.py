"""Every kind of model against Keras's own loss, example by example; the table is in `zoo`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import pytest

from deel_influence.errors import LayerRuleWarning
from deel_influence.gradients import GradientEngine
from deel_influence.ihvp import EKFACIHVP, ConjugateGradientDescentIHVP, ExactIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel
from tests.models.case import STRATEGIES, ModelCase
from tests.models.problem import Problem, problem_of
from tests.models.zoo import CASES, IN_FULL, SELDOM, fast_strategies
from tests.oracles import assert_close

CGD_TOLERANCE = 1e-4  # the strategy's own
# A bound on the condition number of `Problem.hessian` with its damping.
CONDITION = 20
# Rounding in the gradients, times the same number; and once more, for the second derivative.
CURVATURE_LOSS = 100


def gradients_and_products(problem: Problem) -> None:
    model = problem.differentiated
    queries, training = problem.gradients(model)
    assert_close(_library_rows(problem, model), training, problem.case.rtol)
    matrix = _matrix(problem, model, "identity")
    assert_close(matrix, queries @ training.T, 2 * problem.case.rtol)


def exact_inverse(problem: Problem) -> None:
    ihvp = ExactIHVP(problem.curved, problem.training, damping=problem.damping, verbose=0)
    matrix = _matrix(problem, problem.curved, ihvp)
    assert_close(matrix, problem.influence, CURVATURE_LOSS * problem.case.rtol)


def kronecker_factors(problem: Problem) -> None:
    ihvp = EKFACIHVP(problem.curved, problem.training, seed=0, verbose=0)
    matrix = _matrix(problem, problem.curved, ihvp)
    assert np.all(np.isfinite(matrix))
    assert np.any(matrix)


def conjugate_gradients(problem: Problem) -> None:
    # Products in half precision carry their rounding into the residual, which stops falling there.
    tolerance = max(CGD_TOLERANCE, problem.case.rtol)
    ihvp = ConjugateGradientDescentIHVP(
        problem.curved,
        train_dataset=problem.training,
        damping=problem.damping,
        tolerance=tolerance,
    )
    matrix = _matrix(problem, problem.curved, ihvp)
    assert_close(matrix, problem.influence, CONDITION * tolerance)


CHECKS: dict[str, Callable[[Problem], None]] = dict(
    zip(
        STRATEGIES,
        (gradients_and_products, exact_inverse, kronecker_factors, conjugate_gradients),
        strict=True,
    )
)


def _library_rows(problem: Problem, model: BaseInfluenceModel) -> np.ndarray:
    """Return the gradients ``(n, p)`` of the training examples, batch by batch."""
    engine, parts = GradientEngine.of(model), []
    for batch in problem.training:
        engine.prepare(batch)
        parts.append(engine.graph_gradients(batch).materialize().numpy())
    return np.concatenate(parts)


def _matrix(problem: Problem, model: BaseInfluenceModel, ihvp: object) -> np.ndarray:
    calculator = FirstOrderInfluenceCalculator(model, problem.training, ihvp)
    return calculator.influence_matrix(problem.queries, problem.training)


@contextmanager
def _warning(case: ModelCase, strategy: str) -> Iterator[None]:
    """Demand the row's warning where all layers are watched, and let it pass elsewhere."""
    if case.warns is None:
        yield
    elif strategy == "identity":
        with pytest.warns(LayerRuleWarning, match=case.warns):
            yield
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=LayerRuleWarning)
            yield


def _refusal(case: ModelCase, strategy: str) -> AbstractContextManager:
    refusal = case.refusals.get(strategy)
    return nullcontext() if refusal is None else pytest.raises(refusal.kinds, match=refusal.text)


def _marks(case: ModelCase, strategy: str) -> list[pytest.MarkDecorator]:
    # Workers take whole models, whose strategies share what they need.
    together = pytest.mark.xdist_group(case.id)
    return [together] if strategy in fast_strategies(case) else [together, pytest.mark.slow]


def rows() -> list:
    """Return a parameter set for each model and strategy."""
    return [
        pytest.param(
            case,
            strategy,
            id=f"{case.id}-{strategy}",
            marks=_marks(case, strategy),
        )
        for case in CASES
        for strategy in STRATEGIES
    ]


@pytest.mark.parametrize(("case", "strategy"), rows())
def test_scores_are_those_of_plain_autodiff_of_the_loss_of_keras(case: ModelCase, strategy: str):
    problem = problem_of(case)
    before = problem.model.get_weights()
    with _warning(case, strategy), _refusal(case, strategy):
        CHECKS[strategy](problem)
    for weight, kept in zip(problem.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_the_table_has_no_two_of_a_name_and_its_lists_name_rows():
    names = [case.id for case in CASES]
    assert len(set(names)) == len(names) >= 40
    assert set(names) >= IN_FULL | SELDOM
    assert not IN_FULL & SELDOM
