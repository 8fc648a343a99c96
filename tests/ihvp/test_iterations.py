"""How long iterative strategies iterate, on Hessians of known condition numbers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import spearmanr

from deel_influence.errors import ConvergenceWarning
from deel_influence.ihvp import (
    AstraIHVP,
    CGDIHVPFactory,
    ConjugateGradientDescentIHVP,
    InverseHessianVectorProduct,
    LissaIHVP,
    LissaIHVPFactory,
)
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import InfluenceModel
from tests.linalg.spectra import rotation
from tests.oracles import assert_close, relative_error

pytestmark = pytest.mark.usefixtures("float64")

N, P = 40, 8
KAPPAS = [1.6, 10.0, 100.0]
STRATEGIES = {
    "lissa": LissaIHVP,
    "cgd": ConjugateGradientDescentIHVP,
    "astra": AstraIHVP,
    "astra-cg": lambda *args, **options: AstraIHVP(*args, solver="cg", **options),
}


class Regression:
    """Linear regression whose Hessian ``2 XᵀX / n`` has eigenvalues from 1 to κ."""

    def __init__(self, kappa: float) -> None:
        generator = np.random.default_rng(0)
        self.eigenvalues = np.geomspace(1.0, kappa, P)
        orthonormal = np.linalg.qr(generator.normal(size=(N, P)))[0]
        self.x = np.sqrt(N / 2 * self.eigenvalues) * orthonormal @ rotation(P).T
        self.y = self.x.sum(axis=1, keepdims=True) + generator.normal(size=(N, 1))
        self.hessian = 2 * self.x.T @ self.x / N
        dense = keras.layers.Dense(1, use_bias=False)
        keras_model = keras.Sequential([keras.Input((P,)), dense])
        weights = np.linalg.lstsq(self.x, self.y, rcond=None)[0]
        dense.kernel.assign(weights)
        self.gradients = 2 * (self.x @ weights - self.y) * self.x
        self.model = InfluenceModel(keras_model, loss_function="mse")
        self.train = tf.data.Dataset.from_tensor_slices((self.x, self.y)).batch(16)

    def strategy(self, name: str, **options: object) -> InverseHessianVectorProduct:
        options = {"damping": 0.0, "seed": 0, **options}
        return STRATEGIES[name](self.model, train_dataset=self.train, **options)

    @property
    def solutions(self) -> np.ndarray:
        return np.linalg.solve(self.hessian, self.gradients.T).T


def neumann(hessian: np.ndarray, rhs: np.ndarray, scale: float, steps: int) -> np.ndarray:
    """Return x after some steps of ``x ← x + (b - H x) / scale`` from 0."""
    x = np.zeros_like(rhs)
    for _ in range(steps):
        x = x + (rhs - x @ hessian) / scale
    return x


@pytest.mark.parametrize("kappa", KAPPAS)
def test_lissa_takes_as_many_steps_as_it_is_given(kappa):
    """They are those of Influenciae and of the papers, which stop at no tolerance."""
    problem, scale = Regression(kappa), 1.25 * kappa
    strategy = problem.strategy("lissa", n_opt_iters=300, scale=scale)
    result = strategy.solve_with_report(problem.gradients)
    expected = neumann(problem.hessian, problem.gradients, scale, 300)
    # Rounding errors in float64, which do not add up: each step shrinks those before it.
    assert_close(result.solution, expected, 1e-11)
    np.testing.assert_array_equal(result.num_steps, 300)
    # In the worst direction what is left is (1 - 1 / scale)^300.
    left = (1 - 1 / scale) ** 300
    assert relative_error(result.solution, problem.solutions) <= left + 1e-11


@pytest.mark.parametrize("steps", [1, 7, 40])
def test_astra_takes_as_many_steps_as_it_is_given(steps):
    problem = Regression(10.0)
    strategy = problem.strategy("astra", n_opt_iters=steps, learning_rate=0.5)
    result = strategy.solve_with_report(problem.gradients)
    preconditioner = strategy.preconditioner.apply(np.eye(P)).numpy()
    expected = np.zeros_like(problem.gradients)
    for _ in range(steps):
        residual = problem.gradients - expected @ problem.hessian
        expected = expected + 0.5 * residual @ preconditioner
    assert_close(result.solution, expected, 1e-11)
    np.testing.assert_array_equal(result.num_steps, steps)


@pytest.mark.parametrize("kappa", KAPPAS)
@pytest.mark.parametrize("name", ["cgd", "astra-cg"])
def test_conjugate_gradients_go_on_until_rounding_errors_remain(name, kappa):
    problem = Regression(kappa)
    strategy = problem.strategy(name, n_opt_iters=300)
    result = strategy.solve_with_report(problem.gradients)
    # The condition number times some roundings of 1e-16 of a residual, which add up over p.
    assert relative_error(result.solution, problem.solutions) <= 1e-14 * P * kappa
    assert result.all_converged


def test_conjugate_gradients_take_as_many_steps_as_they_are_given():
    problem = Regression(100.0)
    strategy = problem.strategy("cgd", n_opt_iters=3, block_size=1)
    result = strategy.solve_with_report(problem.gradients[:4])
    np.testing.assert_array_equal(result.num_steps, 3)
    assert result.reason == "the 3 steps allowed were used up"


@pytest.mark.parametrize("kappa", KAPPAS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_by_default_scores_are_ranked_as_exact_ones(name, kappa):
    problem = Regression(kappa)
    calculator = FirstOrderInfluenceCalculator(problem.model, problem.train, problem.strategy(name))
    scores = calculator.influence_matrix(problem.train, problem.train)
    exact = problem.gradients @ problem.solutions.T
    ranks = [spearmanr(one, other).statistic for one, other in zip(scores, exact, strict=True)]
    assert min(ranks) >= 0.999
    result = calculator.ihvp_calculator.last_result
    assert result.all_converged
    # A relative residual of 1e-4 leaves at most the condition number times that as error.
    assert relative_error(scores, exact) <= 1e-4 * kappa
    own = calculator.score(problem.train).values
    assert spearmanr(own, np.diag(exact)).statistic >= 0.999


@pytest.mark.parametrize("name", STRATEGIES)
def test_with_a_tolerance_the_number_of_steps_is_a_bound(name):
    problem = Regression(10.0)
    strategy = problem.strategy(name, n_opt_iters=300, tolerance=0.1)
    result = strategy.solve_with_report(problem.gradients)
    assert result.all_converged
    assert result.num_steps.max() < 50
    assert result.residual_norm.max() <= 0.1
    short = problem.strategy(name, n_opt_iters=1, tolerance=1e-9)
    assert short.solve_with_report(problem.gradients).num_steps.max() == 1


def test_steps_that_do_not_suffice_are_reported():
    problem = Regression(100.0)
    strategy = problem.strategy("lissa", n_opt_iters=20)
    with pytest.warns(ConvergenceWarning, match="after 20 steps, where 0.0001 was asked for"):
        strategy.solve(problem.gradients)


def test_mini_batches_take_all_steps_and_are_measured_by_their_noise():
    problem = Regression(1.6)
    strategy = problem.strategy("lissa", batch_size=10, n_opt_iters=25)
    result = strategy.solve_with_report(problem.gradients)
    np.testing.assert_array_equal(result.num_steps, 25)
    assert strategy.tolerance == 0.05


def test_factories_and_copies_keep_what_was_given(tmp_path):
    problem = Regression(1.6)
    for factory in (CGDIHVPFactory, LissaIHVPFactory):
        settings = {"damping": 0.0}
        strategy = factory(**settings).build(problem.model, problem.train)
        assert not strategy.takes_all_steps
        strategy = factory(n_cgd_iters=30, **settings).build(problem.model, problem.train)
        copy = strategy.with_dataset(problem.train)
        path = strategy.save(tmp_path / "strategy")
        loaded = type(strategy).load(path, problem.model, problem.train)
        for other in (strategy, copy, loaded):
            assert other.takes_all_steps
            assert other.num_steps == 30


@pytest.mark.parametrize("damping", [0.0, 3.0, 300.0])
def test_preconditioners_have_the_scale_and_the_damping_of_the_hessian(damping):
    problem = Regression(10.0)
    hessian = problem.hessian + damping * np.eye(P)
    options = {"damping": damping, "preconditioner_rank": 4000}
    found = {
        name: problem.strategy("cgd", preconditioner=name, **options).preconditioner
        for name in ("jacobi", "ekfac")
    }
    # Of 40 examples with one drawn label each, the mean square is off by sqrt(2 / 40) at a time,
    # and a diagonal of 4,000 probes by sqrt(7 / 4000) of an entry beside it.
    share = 10.0 / (10.0 + damping)
    ekfac = found["ekfac"].apply(np.eye(P))
    assert relative_error(ekfac, np.linalg.inv(hessian)) <= 3 * np.sqrt(2 / N) * share
    jacobi = found["jacobi"].apply(np.eye(P))
    assert relative_error(jacobi, np.diag(1 / np.diag(hessian))) <= 3 * np.sqrt(7 / 4000) * share


def test_a_preconditioner_that_knows_the_hessian_saves_steps():
    problem, first = Regression(1e4), slice(0, 1)
    steps = {}
    for name in (None, "ekfac"):
        strategy = problem.strategy("cgd", preconditioner=name, tolerance=1e-3)
        report = strategy.solve_with_report(problem.gradients[first])
        assert report.all_converged
        steps[name] = int(report.num_steps.max())
    # One step for each eigenvalue, where those of P⁻¹ H lie together but for the drawn labels.
    assert steps["ekfac"] < P <= steps[None]
