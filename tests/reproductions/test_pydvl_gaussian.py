"""pyDVL's two Gaussians are redrawn, and boundaries and influences are measured as defined."""

from __future__ import annotations

import importlib
import json

import keras
import numpy as np
import pytest


@pytest.fixture
def script():
    return importlib.import_module("pydvl_gaussian")


def regression(weights, bias):
    """Logistic regression of given weights."""
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    network.set_weights([np.array(weights, float)[:, None], np.array([bias], float)])
    return network


def test_the_smoke_form_writes_finite_rows_and_solvers_that_agree(script, tmp_path):
    script.main(["--form", "smoke", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "pydvl_gaussian.json").read_text())
    rows = {row["quantity"]: row["measured"] for row in result["rows"]}
    assert np.isfinite(list(rows.values())).all()
    assert rows["largest difference of conjugate gradients from the exact inverse, relative"] < 0.01
    bounds = {row["quantity"]: row["at_least"] for row in result["rows"]}
    assert bounds["mean influence of the flipped points, exact inverse"] == -0.90489
    assert bounds["flipped against other points, ROC AUC"] is None
    assert 0 <= rows["flipped against other points, ROC AUC"] <= 1
    assert (tmp_path / result["figure"]).stat().st_size > 1000


def test_the_points_have_the_means_and_the_variance_of_the_notebook(script):
    points = script.draw_points(10_000, 24)
    assert (points.x.shape, points.x_test.shape) == ((6999, 2), (2000, 2))
    for label in (0, 1):
        ours = points.x[points.y[:, 0] == label]
        np.testing.assert_allclose(ours.mean(axis=0), label, atol=0.03)
        np.testing.assert_allclose(ours.var(axis=0), 0.2, atol=0.02)


def test_the_minimum_has_no_gradient(script):
    points = script.draw_points(400, 0)
    weights, bias = script.minimise_loss(points).get_weights()
    rest = 1 / (1 + np.exp(-points.x @ weights - bias)) - points.y
    np.testing.assert_allclose([*(points.x.T @ rest), rest.sum(axis=0)], 0, atol=1e-3)


@pytest.mark.parametrize(
    ("weights", "bias", "angle", "distance"),
    [
        ([3, 3], -3, 0, 0),  # the best one
        ([2, 0], -1, 45, 0),  # through the middle, at an angle
        ([1, 1], 0, 0, 2**-0.5),  # parallel, through one of the means
    ],
)
def test_a_boundary_is_measured_by_angle_and_distance(script, weights, bias, angle, distance):
    measured = script.boundary(regression(weights, bias))
    np.testing.assert_allclose(measured, (angle, distance), atol=1e-3)


def test_mean_influences_are_those_of_the_formula(script):
    points = script.draw_points(400, 0)
    network = regression([2.0, 1.0], -1.0)

    def gradients(x, y):
        x = np.hstack([x, np.ones((len(x), 1))]).astype(np.float64)
        chance = 1 / (1 + np.exp(-x @ [2.0, 1.0, -1.0]))
        return x, chance, (chance - y[:, 0])[:, None] * x

    x, chance, train = gradients(points.x[:100], script.flip_first(points.y[:100]))
    hessian = (x * (chance * (1 - chance))[:, None]).T @ x / len(x)
    queries = gradients(points.x_test, points.y_test)[2]
    expected = (queries @ np.linalg.solve(hessian, train.T)).mean(axis=0)
    found = script.mean_influences(points, network)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_only_the_first_ten_labels_are_flipped(script):
    labels = np.zeros((100, 1), np.float32)
    assert script.flip_first(labels).sum() == 10
    assert script.flip_first(labels)[:10].all()
    assert not labels.any()
