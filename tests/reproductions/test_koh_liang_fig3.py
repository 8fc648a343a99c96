"""The reproduction of figure 3 runs; its losses and its machine are what they should be."""

from __future__ import annotations

import importlib
import json
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf

from tests.reproductions.small_mnist import arguments, write_small_mnist


@pytest.fixture
def script() -> ModuleType:
    return importlib.import_module("koh_liang_fig3")


def test_correlations_and_slopes_are_those_of_the_changes_that_are_written(script, tmp_path):
    script.main(arguments(write_small_mnist(tmp_path)))
    result = json.loads((tmp_path / "koh_liang_fig3.json").read_text())
    measured = {row["quantity"]: row["measured"] for row in result["rows"]}
    actual = np.array(result["details"]["actual"])
    assert len(actual) == script.SETTINGS["smoke"]["num_removed"]
    for temperature, changes in result["details"]["predicted"].items():
        ending = f"temperature {float(temperature):g}"
        expected = np.corrcoef(changes, actual)[0, 1]
        assert measured[f"Pearson correlation, {ending}"] == pytest.approx(expected, abs=1e-3)
        slope = np.polyfit(changes, actual, 1)[0]
        label = f"Slope of actual over predicted changes, {ending}"
        assert measured[label] == pytest.approx(slope, rel=1e-2)


def test_the_smooth_hinge_lies_above_the_hinge_by_at_most_t_log_2(script):
    labels = np.array([1, 1, -1, -1])
    outputs = np.array([[2.0], [1.0], [0.5], [-3.0]])
    hinge = script.smooth_hinge(0)(labels, tf.constant(outputs)).numpy()
    np.testing.assert_allclose(hinge, [0, 0, 1.5, 0])
    smooth = script.smooth_hinge(0.1)(labels, tf.constant(outputs)).numpy()
    expected = 0.1 * np.log1p(np.exp((1 - labels * outputs[:, 0]) / 0.1))
    np.testing.assert_allclose(smooth, expected, rtol=1e-9)
    assert np.all((smooth > hinge) & (smooth <= hinge + 0.1 * np.log(2) + 1e-12))


@pytest.mark.parametrize("temperature", [0, 0.1])
def test_predicted_changes_are_those_of_the_closed_form(script, temperature):
    generator = np.random.default_rng(0)
    x, weights = generator.normal(size=(20, 4)), generator.normal(size=4)
    images = script.Images(x, np.where(np.arange(20) % 2, 1, -1))
    settings = {**script.COMMON, "cg_tolerance": 1e-10}
    svm = script.linear_classifier(4, 1, settings["weight_decay"], "float64")
    svm.set_weights([weights[:, None]])
    found = script.predicted_changes(svm, temperature, images, images.one(1), settings)

    missing = 1 - images.y * (x @ weights)
    hessian = settings["weight_decay"] * np.eye(4)
    if temperature == 0:
        slopes = (missing > 0).astype(float)
    else:
        slopes = 1 / (1 + np.exp(-missing / temperature))
        hessian += (x.T * (slopes * (1 - slopes) / temperature)) @ x / 20
    gradients = -(slopes * images.y)[:, None] * x
    assert gradients[1].any()
    # With an image its share of the weight decay goes.
    removed = gradients + settings["weight_decay"] * weights
    expected = removed @ np.linalg.solve(hessian, gradients[1]) / 20
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_no_direction_leads_down_from_the_weights_of_the_machine(script):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(50, 3)).astype(np.float32)
    y = np.where(x[:, 0] + generator.normal(size=50) > 0, 1, -1)
    positions = np.arange(1, 50)
    weights = script.hinge_training(script.Images(x, y), script.COMMON)(positions, seed=0)

    def objective(w: np.ndarray) -> float:
        hinges = np.maximum(1 - y[positions] * (x[positions].astype(np.float64) @ w), 0)
        return hinges.mean() + script.COMMON["weight_decay"] * (w @ w) / 2

    moved = weights + 1e-4 * generator.normal(size=(200, 3))
    assert min(map(objective, moved)) > objective(weights)
