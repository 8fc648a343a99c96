"""Every strategy that sees the curvature through its products, against dense solves in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import keras
import numpy as np
import pytest

from deel_influence.common import InfluenceModel
from deel_influence.errors import ConvergenceError, ConvergenceWarning
from deel_influence.ihvp import (
    EKFACIHVP,
    AstraIHVP,
    CGDIHVPFactory,
    ConjugateGradientDescentIHVP,
    DataInfIHVP,
    ExactIHVP,
    ExactIHVPFactory,
    IHVPCalculator,
    InverseHessianVectorProduct,
    LissaIHVP,
    LissaIHVPFactory,
    NystromIHVP,
    WoodburyIHVP,
    registry,
)
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.utils.datasets import count_examples, sample_examples
from tests.ihvp.problems import (
    PROBLEMS,
    batches,
    convex,
    damping_for,
    data,
    dense,
    queries,
    right_hand_sides,
    skips,
    streamed,
)
from tests.oracles import assert_close, gradient_rows, relative_error

pytestmark = pytest.mark.usefixtures("float64")


@dataclass(frozen=True)
class Row:
    """A strategy with settings under which it solves the whole system.

    Attributes
    ----------
    make
        Builds it from model, data and damping.
    kind
        The curvature that it inverts.
    rtol
        How exact its solutions are.
    """

    id: str
    make: Callable[..., InverseHessianVectorProduct]
    kind: str
    rtol: float = 1e-7


def cgd(preconditioner: str | None) -> Callable[..., InverseHessianVectorProduct]:
    def make(model, dataset, damping):
        return ConjugateGradientDescentIHVP(
            model,
            train_dataset=dataset,
            damping=damping,
            tolerance=1e-10,
            preconditioner=preconditioner,
            preconditioner_rank=8,
            seed=0,
        )

    return make


ROWS = [
    Row("exact", lambda m, d, damping: ExactIHVP(m, d, damping=damping), "hessian"),
    Row("cgd", cgd(None), "hessian"),
    Row("cgd-jacobi", cgd("jacobi"), "hessian"),
    Row("cgd-ekfac", cgd("ekfac"), "hessian"),
    Row(
        "cgd-gauss-newton-nystrom",
        lambda m, d, damping: ConjugateGradientDescentIHVP(
            m,
            d,
            curvature="gauss_newton",
            preconditioner="nystrom",
            preconditioner_rank=8,
            damping=damping,
            tolerance=1e-10,
        ),
        "gauss_newton",
    ),
    Row(
        "lissa",
        lambda m, d, damping: LissaIHVP(m, d, damping=damping, tolerance=1e-8, n_opt_iters=5000),
        "hessian",
        1e-6,
    ),
    Row(
        "nystrom",
        lambda m, d, damping: NystromIHVP(
            m, d, rank=100, damping=damping, curvature="gauss_newton", seed=1
        ),
        "gauss_newton",
        1e-5,
    ),
    Row(
        "woodbury",
        lambda m, d, damping: WoodburyIHVP(m, d, damping=damping),
        "gauss_newton",
    ),
    Row(
        "astra",
        lambda m, d, damping: AstraIHVP(m, d, damping=damping, tolerance=1e-9, n_opt_iters=5000),
        "gauss_newton",
        1e-6,
    ),
    Row(
        "astra-cg",
        lambda m, d, damping: AstraIHVP(m, d, damping=damping, tolerance=1e-9, solver="cg"),
        "gauss_newton",
        1e-6,
    ),
]
DAMPINGS = {"small": 0.5, "large": 2.0, "by-layer": (1.0, 0.5, 0.7)}
# Every strategy on every problem, with one damping and with one per layer; the scores below add
# another size. All pairs for a solver in steps and for one that is fitted.
SOLVED = [
    pytest.param(row, PROBLEMS[problem], DAMPINGS[damping], id=f"{row.id}-{problem}-{damping}")
    for row in ROWS
    for problem, damping in [
        (problem, damping)
        for problem in PROBLEMS
        for damping in DAMPINGS
        if row.id in ("cgd", "nystrom")
        or (problem, damping) in (("convex", "small"), ("skips", "by-layer"))
    ]
]


# Made once: the probe of a model's engine and its dense curvature take longer than most solves.
made_once = cache(lambda problem: problem())
dense_once = cache(lambda problem, kind: dense(made_once(problem), kind))


@pytest.mark.parametrize(("row", "problem", "damping"), SOLVED)
def test_solutions_equal_those_of_a_dense_solver(row, problem, damping):
    model = made_once(problem)
    damping, diagonal = damping_for(model, damping)
    strategy = row.make(model, streamed() if problem is skips else batches(), damping)
    matrix = dense_once(problem, row.kind) + np.diag(diagonal)
    vectors = right_hand_sides(model)
    assert_close(strategy.solve(vectors), np.linalg.solve(matrix, vectors.T).T, row.rtol)
    assert_close(strategy.multiply(vectors), vectors @ matrix, row.rtol)


# Scores are made of solutions, which differ by solver and preconditioner alone in the others.
@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.id not in ("cgd-jacobi", "cgd-ekfac", "astra-cg")],
    ids=lambda row: row.id,
)
def test_scores_equal_those_of_dense_algebra(row):
    model, damping = made_once(skips), 2.0
    strategy = row.make(model, batches(), damping)
    calculator = FirstOrderInfluenceCalculator(model, batches(), strategy)
    matrix = dense_once(skips, row.kind) + damping * np.eye(model.nb_params)
    train = gradient_rows(model, *data())
    x, y = (np.concatenate(part) for part in zip(*queries().as_numpy_iterator(), strict=True))
    expected = gradient_rows(model, x, y) @ np.linalg.solve(matrix, train.T)
    scores = calculator.influence_matrix(queries(), batches(), verbose=0)
    assert_close(scores, expected, 10 * row.rtol)
    own = np.sum(train * np.linalg.solve(matrix, train.T).T, axis=1)
    assert_close(calculator.score(batches(11), verbose=0).values, own, 10 * row.rtol)
    changes = calculator.predict_loss_change(queries(), batches(), verbose=0)
    gradient = model.regularization_gradient().numpy()
    queried = gradient_rows(model, x, y) @ np.linalg.inv(matrix)
    assert_close(changes, (expected + (queried @ gradient)[:, None]) / len(train), 10 * row.rtol)


@pytest.mark.parametrize("name", [member.value.name for member in IHVPCalculator])
def test_every_strategy_is_known_by_its_name_and_gives_finite_scores(name):
    model = convex()
    calculator = FirstOrderInfluenceCalculator(model, batches(), name, seed=0)
    assert type(calculator.ihvp_calculator) is IHVPCalculator.from_string(name).value
    scores = calculator.influence_matrix(queries(), batches(), verbose=0)
    assert scores.shape == (5, 30)
    assert np.isfinite(scores).all()


def test_a_preset_is_a_strategy_with_its_settings():
    model = convex()
    calculator = FirstOrderInfluenceCalculator(model, batches(), "ekfac_cg", seed=3)
    strategy, config = calculator.ihvp_calculator, calculator.ihvp_calculator.config
    assert type(strategy) is ConjugateGradientDescentIHVP
    assert (strategy.curvature, strategy.preconditioner_name) == ("gauss_newton", "ekfac")
    assert (config["tolerance"], config["seed"]) == (1e-3, 3)
    assert config["n_samples_for_hessian"] is None
    train = gradient_rows(model, *data())
    matrix = dense(model, "gauss_newton") + np.diag(strategy.damping_diagonal())
    x, y = (np.concatenate(part) for part in zip(*queries().as_numpy_iterator(), strict=True))
    expected = gradient_rows(model, x, y) @ np.linalg.solve(matrix, train.T)
    scores = calculator.influence_matrix(queries(), batches(), verbose=0)
    assert_close(scores, expected, 1e-2)  # the tolerance is of residuals, in another norm
    assert np.all(strategy.last_result.residual_norm <= 1e-3)


SAMPLED = [m.value for m in IHVPCalculator if m.value.name != "identity"]


@pytest.mark.parametrize("strategy", SAMPLED, ids=lambda s: s.name)
def test_a_sample_of_the_examples_is_drawn_by_the_seed(strategy):
    model = convex()
    vector = right_hand_sides(model)[:1]

    def product(seed):
        return strategy(
            model, train_dataset=batches(), n_samples_for_hessian=9, seed=seed, damping=0.5
        ).multiply(vector)

    assert_close(product(1), product(1), 1e-12)
    assert relative_error(product(1), product(2)) > 1e-6


@pytest.mark.parametrize("strategy", SAMPLED, ids=lambda s: s.name)
def test_a_copy_for_other_data_keeps_all_settings(strategy):
    model = convex()
    first = strategy(
        model, train_dataset=batches(), damping=[0.25], n_samples_for_hessian=20, seed=3
    )
    copy = first.with_dataset(batches(n=12))
    assert type(copy) is strategy
    assert copy.get_config() == first.get_config()
    assert relative_error(copy.multiply(np.eye(15)), first.multiply(np.eye(15))) > 1e-3


def test_the_factories_of_influenciae_build_strategies_and_serve_as_calculators():
    model = convex()
    exact = ExactIHVPFactory().build(model, batches())
    cgd = CGDIHVPFactory(-1, 50, damping=0.0, tolerance=1e-8).build(model, batches())
    lissa = LissaIHVPFactory(-1, 4000, damping=0.5).build(model, batches())
    assert [type(s) for s in (exact, cgd, lissa)] == [
        ExactIHVP,
        ConjugateGradientDescentIHVP,
        LissaIHVP,
    ]
    calculator = FirstOrderInfluenceCalculator(model, batches(), CGDIHVPFactory(n_cgd_iters=7))
    assert calculator.ihvp_calculator.config["n_opt_iters"] == 7


def test_a_factory_is_given_the_sample_and_the_calculator_knows_the_size_of_the_whole():
    model, whole = convex(), batches()
    calculator = FirstOrderInfluenceCalculator(model, whole, ExactIHVPFactory(), 9, seed=3)
    sample = ExactIHVP(model, sample_examples(whole, 9, 3))
    np.testing.assert_array_equal(calculator.ihvp_calculator.hessian, sample.hessian)
    assert calculator.num_train_examples == count_examples(whole) > 9


def test_influenciaes_order_of_arguments_works():
    model = convex()
    strategy = ConjugateGradientDescentIHVP(model, -1, batches(), 33)
    assert strategy.config["n_opt_iters"] == 33
    assert LissaIHVP(model, -1, batches(), 44, None, 0.5, 10.0).config["scale"] == 10.0


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_automatic_damping_makes_the_hessian_positive_definite(problem):
    model = problem()
    eigenvalues = np.linalg.eigvalsh(dense(model, "hessian"))
    expected = 0.1 * max(eigenvalues.mean(), 0) + 1.1 * max(-eigenvalues[0], 0)
    strategy = ConjugateGradientDescentIHVP(model, batches(), seed=0)
    assert 0.5 * expected < strategy.damping < 2 * expected
    assert eigenvalues[0] + strategy.damping > 0
    assert_close(ExactIHVP(model, batches(), damping="auto").eigenvalues, eigenvalues + expected)


def test_datainf_averages_the_inverse_of_each_example_layer_by_layer():
    model = skips()
    rows = gradient_rows(model, *data())
    vectors = right_hand_sides(model)
    strategy = DataInfIHVP(model, streamed())
    expected = np.zeros_like(vectors)
    for block, damping in zip(model.layout.blocks, strategy.damping_values, strict=True):
        start, end = block.slot
        part = rows[:, start:end]
        assert_close(damping, 0.1 * np.mean(part**2), 1e-9)
        inverse = np.mean(
            [np.linalg.inv(np.outer(g, g) + damping * np.eye(end - start)) for g in part], axis=0
        )
        expected[:, start:end] = vectors[:, start:end] @ inverse
    assert_close(strategy.solve(vectors), expected, 1e-8)


def test_what_did_not_converge_is_reported_with_a_remedy():
    model = skips()
    options = {"damping": 0.3, "n_opt_iters": 2, "tolerance": 1e-8, "block_size": 1}
    strategy = ConjugateGradientDescentIHVP(model, batches(), **options)
    vectors = right_hand_sides(model)
    with pytest.warns(ConvergenceWarning, match=r"5 of 5 .* 2 steps.*larger `n_opt_iters`"):
        strategy.solve(vectors)
    result = strategy.last_result
    assert not result.converged.any()
    assert (result.num_steps == 2).all()
    matrix = dense(model, "hessian") + 0.3 * np.eye(model.nb_params)
    true = np.linalg.norm(vectors - result.solution @ matrix, axis=1)
    assert_close(result.residual_norm, true / np.linalg.norm(vectors, axis=1), 1e-6)
    strict = ConjugateGradientDescentIHVP(model, batches(), on_failure="raise", **options)
    with pytest.raises(ConvergenceError, match="did not converge"):
        strict.solve(vectors)
    assert not strict.solve_with_report(vectors).all_converged


def test_an_indefinite_hessian_is_reported_with_what_to_do():
    strategy = ConjugateGradientDescentIHVP(skips(), batches(), damping=0.0)
    vectors = right_hand_sides(strategy.model)
    with pytest.warns(ConvergenceWarning, match=r"not positive definite.*gauss_newton"):
        assert np.isfinite(strategy.solve(vectors)).all()


def test_lissa_with_too_small_a_scale_reports_divergence():
    strategy = LissaIHVP(convex(), batches(), damping=0.1, scale=1e-3)
    vectors = right_hand_sides(strategy.model)
    with pytest.warns(ConvergenceWarning, match=r"the residual grew at scale=0.001.*raise `scale`"):
        solution = strategy.solve(vectors).numpy()
    assert not strategy.last_result.converged.any()
    assert not solution.any()


def test_lissa_on_minibatches_comes_close_and_says_how_close():
    model = convex()
    strategy = LissaIHVP(
        model,
        batches(),
        damping=0.5,
        batch_size=10,
        num_repeats=4,
        n_opt_iters=120,
        tolerance=1e-6,
        seed=0,
    )
    matrix = dense(model, "hessian") + 0.5 * np.eye(model.nb_params)
    vectors = right_hand_sides(model)[:4]
    with pytest.warns(ConvergenceWarning, match="residual"):
        solution = strategy.solve(vectors)
    assert relative_error(solution, np.linalg.solve(matrix, vectors.T).T) < 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": -1.0}, r"`damping` must be a finite number >= 0.*Received: -1.0"),
        ({"damping": [0.1, 0.2]}, r"one such number for each of the 1 watched layers"),
        ({"curvature": "fischer"}, r"`curvature` must be one of .*Received: 'fischer'"),
        ({"preconditioner": "magic"}, r"`preconditioner` must be .*Received: 'magic'"),
        ({"on_failure": "ignore"}, r"`on_failure` must be one of .*Received: 'ignore'"),
        ({"tolerance": 0.0}, r"`tolerance` must be a finite number > 0. Received: tolerance=0.0"),
        ({"n_opt_iters": 0}, r"`n_opt_iters` must be a whole number >= 1"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ConjugateGradientDescentIHVP(convex(), batches(), **options)


@pytest.mark.parametrize("strategy", SAMPLED, ids=lambda s: s.name)
def test_a_missing_training_set_is_refused(strategy):
    with pytest.raises(ValueError, match=r"train_dataset"):
        strategy(convex())


def test_auto_takes_the_exact_hessian_while_it_is_small_and_fits(monkeypatch):
    model = InfluenceModel(
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), loss_function="mse"
    )
    assert registry.strategy_named("auto", model) is ExactIHVP
    monkeypatch.setattr("deel_influence.curvature.dense.available_bytes", lambda: 100)
    assert registry.strategy_named("Auto", model) is EKFACIHVP
    monkeypatch.undo()
    monkeypatch.setattr(registry, "EXACT_UP_TO", 7)
    assert registry.strategy_named("auto", model) is EKFACIHVP
    with pytest.raises(ValueError, match=r"must be one of \['auto', 'exact'"):
        registry.strategy_named("automatic", model)
