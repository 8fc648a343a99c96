"""LoGra against dense algebra with the same projection matrix, in float64."""

from __future__ import annotations

import gc
import json
import weakref

import numpy as np
import pytest

from deel_influence.curvature import EmpiricalFisherOperator, GaussNewtonOperator
from deel_influence.errors import CurvatureSizeError
from deel_influence.gradients.projections import PROJECTIONS as PROJECTION_KINDS
from deel_influence.gradients.projections import LoGraProjection, SJLTProjection
from deel_influence.gradients.projections import inverse as inverse_module
from deel_influence.ihvp import InverseHessianVectorProduct, LoGraIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator
from tests.ihvp.problems import (
    batches,
    convex,
    data,
    queries,
    right_hand_sides,
    skips,
    streamed,
)
from tests.oracles import assert_close, gradient_rows

pytestmark = pytest.mark.usefixtures("float64")

PROJECTIONS = {
    "logra": {"projection_dim": (3, 2)},
    "sjlt": {"projection": "sjlt", "projection_dim": 9},
    "factgrass": {"projection": "factgrass", "projection_dim": 6},
}
ALL = pytest.mark.parametrize("options", PROJECTIONS.values(), ids=PROJECTIONS)


def matrix_of(strategy: LoGraIHVP) -> np.ndarray:
    """Return P, shape ``(k, p)``."""
    return strategy.projection.apply(np.eye(strategy.model.nb_params)).numpy().T


def inverse(
    strategy: LoGraIHVP, rows: np.ndarray, diagonal: float | np.ndarray = 0.5
) -> np.ndarray:
    """Return ``Pᵀ (P F Pᵀ + diagonal)⁻¹ P``, shape ``(p, p)``, F from gradient rows."""
    p = matrix_of(strategy)
    features = rows @ p.T
    inside = features.T @ features / len(rows) + np.eye(len(p)) * diagonal
    return p.T @ np.linalg.solve(inside, p)


@ALL
def test_solutions_and_scores_equal_those_of_dense_algebra(options):
    model = skips()
    strategy = LoGraIHVP(model, streamed(), damping=0.5, seed=1, **options)
    rows = gradient_rows(model, *data())
    expected = inverse(strategy, rows)
    vectors = right_hand_sides(model)
    assert_close(strategy.solve(vectors), vectors @ expected, 1e-10)
    calculator = FirstOrderInfluenceCalculator(model, batches(), strategy)
    x, y = (np.concatenate(part) for part in zip(*queries().as_numpy_iterator(), strict=True))
    queried = gradient_rows(model, x, y) @ expected
    scores = calculator.influence_matrix(queries(), batches(), verbose=0)
    assert_close(scores, queried @ rows.T, 1e-10)
    own = np.sum(rows @ expected * rows, axis=1)
    assert_close(calculator.score(batches(11), verbose=0).values, own, 1e-10)
    changes = calculator.predict_loss_change(queries(), batches(), verbose=0)
    gradient = model.regularization_gradient().numpy()
    assert_close(changes, queried @ (rows + gradient).T / len(rows), 1e-10)


@ALL
def test_multiplying_is_the_pseudo_inverse_of_solving(options):
    strategy = LoGraIHVP(skips(), batches(), damping=0.5, seed=1, **options)
    identity = np.eye(strategy.model.nb_params)
    expected = np.linalg.pinv(strategy.solve(identity), 1e-9, hermitian=True)
    assert_close(strategy.multiply(identity), expected, 1e-8)


def test_what_the_damping_adds_within_the_rows_of_the_projection_is_told():
    options = {"projection_dim": (3, 2), "seed": 1}
    dampings = (1.0, 0.5, 0.7)
    strategy = LoGraIHVP(skips(), batches(), damping=dampings, **options)
    without = LoGraIHVP(strategy.model, batches(), damping=0.0, **options)
    rows = matrix_of(strategy)
    added = strategy.multiply(rows) - without.multiply(rows)
    assert_close(added, rows * strategy.damping_diagonal(), 1e-10)
    mixed = LoGraIHVP(strategy.model, batches(), "sjlt", 9, damping=0.5).damping_diagonal()
    assert_close(mixed, np.full(strategy.model.nb_params, 0.5 * 9 / 73), 1e-12)


def test_the_expected_fisher_matrix_is_the_gauss_newton_matrix():
    model = skips()
    strategy = LoGraIHVP(model, streamed(), projection_dim=(3, 2), fisher="expected", seed=0)
    p, gauss_newton = matrix_of(strategy), GaussNewtonOperator(model, batches()).to_dense()
    assert_close(strategy.projected_curvature, p @ gauss_newton @ p.T, 1e-9)


def test_without_a_loss_of_dimensions_it_is_the_inverse_of_the_empirical_fisher_matrix():
    model = convex()
    strategy = LoGraIHVP(model, batches(), damping=0.3)
    fisher = EmpiricalFisherOperator(model, batches()).to_dense()
    expected = np.linalg.inv(fisher + 0.3 * np.eye(15))
    assert_close(strategy.solve(np.eye(15)), expected, 1e-11)
    assert_close(strategy.multiply(np.eye(15)), fisher + 0.3 * np.eye(15), 1e-11)


def test_layers_may_have_dampings_of_their_own_where_features_keep_them_apart():
    model = skips()
    dampings = (1.0, 0.5, 0.7)
    strategy = LoGraIHVP(model, batches(), projection_dim=(3, 2), damping=dampings, seed=2)
    diagonal = np.array(dampings)[strategy.projection.layer_of_feature]
    expected = inverse(strategy, gradient_rows(model, *data()), diagonal)
    assert_close(strategy.solve(np.eye(model.nb_params)), expected, 1e-10)
    with pytest.raises(ValueError, match=r"one number for projections that mix layers.*'sjlt'"):
        LoGraIHVP(model, batches(), "sjlt", 9, damping=dampings)


def test_automatic_damping_is_a_tenth_of_the_mean_eigenvalue():
    strategy = LoGraIHVP(skips(), batches(), projection_dim=(3, 2), seed=2)
    mean = np.linalg.eigvalsh(strategy.projected_curvature).mean()
    assert_close(strategy.damping_values, np.full(3, 0.1 * mean), 1e-12)


def test_without_damping_directions_without_curvature_are_dropped():
    model = skips()
    strategy = LoGraIHVP(model, batches(6, n=6), projection_dim=(3, 2), damping=0.0, seed=2)
    p, rows = matrix_of(strategy), gradient_rows(model, *data(6))
    inside = np.linalg.pinv(p @ rows.T @ rows @ p.T / 6, 1e-12, hermitian=True)
    assert_close(strategy.solve(np.eye(model.nb_params)), p.T @ inside @ p, 1e-6)


def test_more_features_come_nearer_to_the_damped_inverse():
    model = skips()
    rows = gradient_rows(model, *data())
    fisher = rows.T @ rows / len(rows)
    expected = rows @ np.linalg.solve(fisher + 0.5 * np.eye(model.nb_params), rows.T)
    errors = []
    for dims in ((2, 1), (4, 3), (5, 5), (6, 5)):
        strategy = LoGraIHVP(model, batches(), projection_dim=dims, damping=0.5, seed=0)
        errors.append(np.linalg.norm(rows @ strategy.solve(rows).numpy().T - expected))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9 < errors[-2]


@pytest.mark.parametrize("kind", ["by-name", "by-object"])
def test_what_was_saved_is_loaded_with_the_same_projection(kind, tmp_path):
    model = skips()
    given = SJLTProjection(model, 9, seed=5, nonzeros=3) if kind == "by-object" else "gaussian"
    fitted = LoGraIHVP(model, batches(), given, np.int64(9), damping=0.5)
    loaded = InverseHessianVectorProduct.load(fitted.save(tmp_path / "logra"), model)
    assert type(loaded) is LoGraIHVP
    assert json.dumps(loaded.get_config()) == json.dumps(fitted.get_config())
    assert_close(matrix_of(loaded), matrix_of(fitted), 1e-15)
    vectors = right_hand_sides(model)
    assert_close(loaded.solve(vectors), fitted.solve(vectors), 1e-13)
    assert loaded.fingerprint() == fitted.fingerprint()
    copy = fitted.with_dataset(batches(n=12))
    assert_close(matrix_of(copy), matrix_of(fitted), 1e-15)
    assert copy.fingerprint() != fitted.fingerprint()


def test_a_seed_fixes_the_projection_and_the_draws():
    model = skips()

    def curvature(seed):
        options = {"projection_dim": (3, 2), "fisher": "true", "seed": seed}
        return LoGraIHVP(model, batches(), **options).projected_curvature

    first = curvature(4)
    assert_close(curvature(4), first, 0)
    assert not np.allclose(curvature(5), first)


@pytest.mark.parametrize("kind", ["logra", "rademacher"])
def test_strategies_of_several_seeds_share_what_is_compiled_and_leave_nothing(kind, monkeypatch):
    model, projections, traced = skips(), [], []
    project = PROJECTION_KINDS[kind].project
    monkeypatch.setattr(
        PROJECTION_KINDS[kind], "project", lambda *a: traced.append(a[0]) or project(*a)
    )
    for seed in range(3):
        strategy = LoGraIHVP(model, streamed(), kind, 3, damping=0.5, seed=seed, verbose=0)
        features = gradient_rows(model, *data()) @ matrix_of(strategy).T
        expected = features.T @ features / len(features)
        assert_close(strategy.projected_curvature, expected, 1e-10)
        projections.append(weakref.ref(strategy.projection))
    assert len(traced) == 1
    del strategy
    gc.collect()
    assert [reference() for reference in projections] == [None] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"projection": None}, r"`projection` must be one of .*'logra'.*Received: None"),
        ({"projection": "pca"}, r"`projection` must be one of .*Received: 'pca'"),
        ({"fisher": "exact"}, r"`fisher` must be one of .*Received: 'exact'"),
        ({"damping": -1.0}, r"`damping` must be a finite number >= 0"),
        ({"projection": LoGraProjection, "seed": 0}, r"Received: <class"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LoGraIHVP(convex(), batches(), **options)


def test_features_whose_curvature_does_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(inverse_module, "available_bytes", lambda: 1000)
    with pytest.raises(CurvatureSizeError, match=r"15 features.*smaller `projection_dim`"):
        LoGraIHVP(convex(), batches())
