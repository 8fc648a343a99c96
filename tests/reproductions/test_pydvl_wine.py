"""pyDVL's wine notebook is redrawn, and its form of training is what it is said to be."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest
from sklearn.datasets import load_wine


@pytest.fixture
def script():
    return importlib.import_module("pydvl_wine")


def test_the_smoke_form_writes_correlations_beside_the_published_ones(script, tmp_path):
    script.main(["--form", "smoke", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "pydvl_wine.json").read_text())
    rows = {row["quantity"]: row for row in result["rows"]}
    assert np.isfinite([row["measured"] for row in rows.values()]).all()
    assert rows["EKFAC: Pearson"]["measured"] > 0.8
    assert rows["EKFAC: Pearson"]["published"] == 0.958
    assert (tmp_path / result["figure"]).stat().st_size > 1000


def test_published_figures_stand_beside_the_methods_that_gave_them(script):
    assert set(script.PUBLISHED) < set(script.STRATEGIES)
    assert script.PROJECTION in script.PUBLISHED
    assert script.ORTHOGONAL not in script.PUBLISHED


def test_the_scale_of_a_strategy_is_the_slope_through_the_origin(script):
    one = {"influences": {"exact": [1.0, -2.0, 0.5], "EKFAC": [3.0, -6.0, 1.5]}}
    assert script.scale_of(one, "EKFAC") == pytest.approx(3)


def test_the_split_is_that_of_the_notebook_and_its_first_ten_labels_are_wrong(script):
    wines = script.split_wines(24)
    assert (wines.x.shape, wines.x_test.shape) == ((106, 13), (54, 13))
    np.testing.assert_allclose([wines.x.min(), wines.x.max()], [0.0, 1.0], atol=1e-6)
    x, y = load_wine(return_X_y=True)
    order = np.random.RandomState(24).permutation(len(x))
    # scikit-learn takes the test part from the front of its permutation.
    np.testing.assert_array_equal(wines.y_test, y[order[:54]])
    assert (np.bincount(wines.y, minlength=3) > 20).all()


def test_the_decay_is_added_to_the_gradient_once(script):
    layer = script.dense_layer(2, 3, weight_decay=0.01)
    layer.build((None, 2))
    layer.set_weights([np.ones((2, 3)), np.full(3, 2.0)])
    # Half of the decay times the sum of squares, of which the gradient is the decay times w.
    expected = 0.005 * (6 * 1.0 + 3 * 4.0)
    assert float(sum(layer.losses)) == pytest.approx(expected)


def test_the_learning_rate_falls_to_zero_and_rises_again(script):
    rate = script.CosineWaves(0.4, 10)
    np.testing.assert_allclose([rate(step) for step in (0, 5, 10, 20)], [0.4, 0.2, 0, 0.4])
