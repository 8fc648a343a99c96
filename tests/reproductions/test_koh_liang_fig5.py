"""The reproduction of the training-set attack runs, and retrains as the library does."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
from scipy.special import expit

layers = keras.layers


@pytest.fixture
def script() -> ModuleType:
    return importlib.import_module("koh_liang_fig5")


@pytest.fixture(scope="module")
def trained_layer() -> Any:
    """A last layer on 12 examples of 3 features, at its minimum."""
    generator = np.random.default_rng(0)
    dogfish = importlib.import_module("koh_liang_dogfish")
    return dogfish.LastLayer(generator.normal(size=(12, 3)), np.tile([1.0, -1.0], 6), 0.1)


@pytest.fixture
def layer(trained_layer: Any) -> Any:
    return copy.deepcopy(trained_layer)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Noisy images, brighter for fish, and a small network with random weights."""
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    data = {}
    for name, number in (("train", 60), ("test", 20)):
        y = np.arange(number) % 2
        noise = generator.normal(0, 30, (number, 8, 8, 3))
        pixels = 110 + 40 * y[:, None, None, None] + noise
        data |= {f"x_{name}": np.clip(pixels, 0, 255).astype(np.uint8), f"y_{name}": y}
    np.savez(tmp_path / "dogfish64.npz", **data)
    inputs = keras.Input((None, None, 3))
    outputs = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, activation="relu")(inputs))
    keras.Model(inputs, outputs).save(tmp_path / "squeezenet_v1_1_notop.keras")
    return tmp_path


def test_an_attack_runs_and_leaves_the_stored_images_as_they_are(script, data_dir):
    script.main(["--form", "smoke", "--data-dir", str(data_dir), "--out", str(data_dir)])
    result = json.loads((data_dir / "koh_liang_fig5.json").read_text())
    measured = {row["quantity"]: row["measured"] for row in result["rows"]}
    assert np.isfinite(list(measured.values())).all()
    assert measured["test accuracy"] > 0.8
    assert measured["share of attacks that leave the 8-bit images as they are"] == 1
    # Three steps of 0.02.
    assert measured["largest change of a pixel, in levels"] == pytest.approx(0.06, rel=1e-4)
    (attacked,) = result["details"]["attacks"]
    for results in attacked["attacks"]:
        assert results["loss_after"] > results["loss_before"]
    assert (data_dir / "koh_liang_fig5.png").exists()


def test_the_interval_of_a_share_is_wilsons(script):
    z, share, number = 1.959964, 0.25, 8
    centre = (share + z**2 / (2 * number)) / (1 + z**2 / number)
    root = np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2))
    half = z * root / (1 + z**2 / number)
    assert script.interval(share, number) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert script.interval(0.0, number)[0] == 0


def test_the_last_layer_finds_the_minimum_again(layer):
    assert np.linalg.norm(layer.gradient()) < 1e-8
    layer.features[3] += 0.5
    assert np.linalg.norm(layer.gradient()) > 1e-3
    layer.refit()
    assert np.linalg.norm(layer.gradient()) <= 1e-8


def test_gradient_hessian_and_sensitivity_are_derivatives(layer):
    generator = np.random.default_rng(0)
    weights, query = generator.normal(size=3), generator.normal(size=3)

    def objective(w: np.ndarray) -> float:
        losses = np.logaddexp(0, -layer.signs * (layer.features @ w))
        return losses.mean() + 0.05 * (w @ w)

    def gradient_at(w: np.ndarray) -> np.ndarray:
        layer.weights = w
        return layer.gradient()

    np.testing.assert_allclose(gradient_at(weights), derivative(objective, weights), rtol=1e-6)
    hessian = derivative(gradient_at, weights)
    layer.weights = weights
    np.testing.assert_allclose(layer.hessian(), hessian, rtol=1e-6)
    direction = np.linalg.solve(hessian, query)

    def moved(features: np.ndarray) -> float:
        slope = -layer.signs[4] * expit(-layer.signs[4] * (features @ weights))
        return slope * (features @ direction)

    expected = np.linalg.norm(derivative(moved, layer.features[4]))
    assert layer.sensitivity(query)[4] == pytest.approx(expected, rel=1e-6)


def derivative(function: Callable[..., Any], x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Return the derivative by central differences, the axis of ``x`` last."""
    shifts = step * np.eye(len(x))
    parts = [(function(x + shift) - function(x - shift)) / (2 * step) for shift in shifts]
    return np.stack(parts, axis=-1)
