"""The reproduction of the kernel machine beside the network runs, and its parts are right."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel


@pytest.fixture
def script() -> ModuleType:
    return importlib.import_module("koh_liang_fig4")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Noisy images, brighter for fish, and features that tell the classes apart, but not fully."""
    generator = np.random.default_rng(0)
    images, features = {}, {}
    for name, number in (("train", 80), ("test", 60)):
        y = np.arange(number) % 2
        noise = generator.normal(0, 30, (number, 4, 4, 3))
        pixels = np.clip(120 + 40 * y[:, None, None, None] + noise, 0, 255).astype(np.uint8)
        images |= {f"x_{name}": pixels, f"y_{name}": y}
        seen = generator.normal(size=(number, 5)) + 2 * y[:, None] - 1
        features |= {f"x_{name}": seen.astype(np.float32), f"y_{name}": y}
    np.savez(tmp_path / "dogfish64.npz", **images)
    np.savez(tmp_path / "dogfish_sqznet512.npz", **features)
    return tmp_path


def test_it_runs_and_gives_a_figure_for_each_quantity_and_model(script, data_dir):
    script.main(["--form", "smoke", "--data-dir", str(data_dir), "--out", str(data_dir)])
    result = json.loads((data_dir / "koh_liang_fig4.json").read_text())
    measured = {row["quantity"]: row["measured"] for row in result["rows"]}
    assert np.isfinite(list(measured.values())).all()
    assert len(measured) == 3 + 2 * len(script.QUANTITIES)
    assert measured["features of a network: test accuracy"] > 0.8
    assert (data_dir / "koh_liang_fig4.png").exists()


def test_inner_products_of_the_features_are_the_kernel(script):
    x = np.random.default_rng(0).normal(size=(9, 4))
    train, test = script.kernel_features(x[:6], x[6:], 0.3)
    np.testing.assert_allclose(train @ train.T, rbf_kernel(x[:6], gamma=0.3), atol=1e-8)
    np.testing.assert_allclose(test @ train.T, rbf_kernel(x[6:], x[:6], gamma=0.3), atol=1e-8)


def test_measures_of_a_machine_that_sees_distance_and_class_alone(script):
    distances = np.arange(1.0, 101.0)
    is_fish = np.arange(100) % 2 == 0
    values = np.where(is_fish, 1.0, -1.0) / distances**2
    found = script.measures(values, distances, is_fish, {"num_largest": 20, "num_helpful": 10})
    assert found["correlation"] < 0
    assert found["near"] > 0.9
    assert found["rank"] == pytest.approx(0.095)
    assert (found["by_class"], found["by_class_anywhere"], found["dogs"]) == (1, 1, 0)


def test_the_share_at_all_distances_counts_images_that_are_far(script):
    distances = np.arange(1.0, 101.0)
    is_fish = np.arange(100) % 2 == 0
    # Right nearby, wrong in the farther half, where influence is half as large.
    values = np.where(is_fish, 1.0, -1.0) * np.where(distances <= 50, 2.0, -1.0)
    found = script.measures(values, distances, is_fish, {"num_largest": 20, "num_helpful": 10})
    assert (found["by_class"], found["by_class_anywhere"]) == (1, pytest.approx(2 / 3))


def test_the_first_of_each_class_stay_in_their_order(script):
    y = np.array([1, 0, 0, 1, 1, 0])
    np.testing.assert_array_equal(script.first_of_each_class(y, 2), [0, 1, 2, 3])
