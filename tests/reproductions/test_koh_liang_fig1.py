"""The reproduction of figure 1 runs, and its variants are the published formulas."""

from __future__ import annotations

import importlib
import json
from types import ModuleType

import numpy as np
import pytest

from tests.reproductions.small_mnist import arguments, write_small_mnist


@pytest.fixture
def script() -> ModuleType:
    return importlib.import_module("koh_liang_fig1")


def test_only_influence_with_all_terms_agrees_with_retraining(script, tmp_path):
    script.main(arguments(write_small_mnist(tmp_path)))
    result = json.loads((tmp_path / "koh_liang_fig1.json").read_text())
    assert np.isfinite([row["measured"] for row in result["rows"]]).all()
    pearson = result["details"]["pearson"]
    assert pearson[script.FULL] > 0.95
    assert max(pearson, key=pearson.get) == script.FULL
    shares = [
        r["measured"] for r in result["rows"] if "without the inverse Hessian (" in r["quantity"]
    ]
    assert shares == [1.0, 1.0]  # pixels are not negative


def test_the_variants_are_those_of_the_paper(script):
    generator = np.random.default_rng(0)
    x, decay = generator.uniform(size=(30, 4)), 0.1
    signs, weights = generator.choice([-1.0, 1.0], size=30), generator.normal(size=4)
    network = script.linear_classifier(4, 1, decay, "float64")
    network.set_weights([weights[:, None]])
    train = script.Images(x, (signs[:, None] + 1) / 2)
    query = train.one(3)
    values = script.influences(network, train, query, script.COMMON)

    wrong = 1 / (1 + np.exp(signs * (x @ weights)))
    hessian = (x.T * (wrong * (1 - wrong))) @ x / 30 + decay * np.eye(4)
    signed = (signs[3] * wrong[3] * x[3])[None] * signs[:, None]
    without_either = np.sum(signed * x, axis=1)
    without_loss = np.sum(np.linalg.solve(hessian, signed.T).T * x, axis=1)
    expected = {
        script.FULL: without_loss * wrong,
        script.NO_LOSS: without_loss,
        script.NO_HESSIAN: without_either * wrong,
        script.NEITHER: without_either,
    }
    for name, influence in expected.items():
        np.testing.assert_allclose(values[name], influence, rtol=1e-5, err_msg=name)
