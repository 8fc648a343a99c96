"""The reproduction of the spam experiment runs, and computes the published formula."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import sparse
from scipy.special import expit


@pytest.fixture
def script() -> ModuleType:
    return importlib.import_module("koh_liang_fig6")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Emails of 40 words, of which spam uses the first half more often."""
    generator = np.random.default_rng(0)
    data = {}
    for name, number in (("train", 120), ("test", 60)):
        y = (np.arange(number) % 3 == 0).astype(np.int64)
        rates = np.where(np.arange(40) < 20, 0.2 + y[:, None], 1.2 - y[:, None])
        data |= {f"x_{name}": generator.poisson(rates).astype(np.uint16), f"y_{name}": y}
    np.savez(tmp_path / "enron1_bow.npz", **data)
    return tmp_path


def test_self_influence_finds_more_flips_than_chance(script, data_dir):
    script.main(["--form", "smoke", "--data-dir", str(data_dir), "--out", str(data_dir)])
    result = json.loads((data_dir / "koh_liang_fig6.json").read_text())
    measured = {row["quantity"]: row["measured"] for row in result["rows"]}
    assert np.isfinite(list(measured.values())).all()
    for inputs in ("counts", "log counts"):
        found = measured[f"{inputs}: flips found by self-influence in 30% read (%)"]
        assert found > measured[f"{inputs}: flips found by random in 30% read (%)"]
    bounded = {row["quantity"] for row in result["rows"] if row["at_least"] is not None}
    budgets = script.COMMON["budgets"]
    assert bounded == {
        f"{inputs}: flips found by self-influence in {budget:.0%} read (%)"
        for inputs in ("counts", "log counts")
        for budget in budgets
    }
    assert (data_dir / "koh_liang_fig6.png").exists()


def test_self_influence_is_the_published_closed_form(script):
    generator = np.random.default_rng(0)
    x, labels = generator.normal(size=(12, 20)), np.arange(12) % 2
    weights, decay = generator.normal(size=(20, 1)), 0.01
    settings = {"weight_decay": decay, "batch_size": 5}
    scores = script.scores_by_order(sparse.csr_matrix(x), labels, weights, settings, 0)

    margins = (2 * labels - 1) * (x @ weights[:, 0])
    p = expit(margins)
    hessian = (x.T * (p * (1 - p))) @ x / 12 + decay * np.eye(20)
    expected = (1 - p) ** 2 * np.einsum("ij,ij->i", x @ np.linalg.inv(hessian), x)
    np.testing.assert_allclose(scores["self-influence"], expected, rtol=1e-6)
    np.testing.assert_allclose(scores["loss"], -np.log(p), rtol=1e-6)


def test_training_reaches_the_minimum_of_the_mean_loss_with_weight_decay(script):
    generator = np.random.default_rng(0)
    x, labels = generator.normal(size=(30, 4)), np.arange(30) % 2
    weights = script.logistic_regression(30, 0.1).fit(x, labels).coef_[0]
    signs = 2 * labels - 1
    gradient = -(x.T @ (signs * expit(-signs * (x @ weights)))) / 30 + 0.1 * weights
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
