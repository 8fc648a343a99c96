"""The reproduction of figure 2 (logistic regression) runs, and resumes."""

from __future__ import annotations

import importlib
import json
from types import ModuleType

import numpy as np
import pytest

from tests.reproductions.small_mnist import arguments, write_small_mnist


@pytest.fixture
def script() -> ModuleType:
    return importlib.import_module("koh_liang_fig2")


def test_predictions_agree_with_retraining_and_with_one_another(script, tmp_path):
    script.main(arguments(write_small_mnist(tmp_path)))
    result = json.loads((tmp_path / "koh_liang_fig2.json").read_text())
    measured = {row["quantity"]: row["measured"] for row in result["rows"]}
    assert np.isfinite(list(measured.values())).all()
    assert measured["Pearson correlation, conjugate gradients"] > 0.95
    # Of 60 images, each weighs so much that the first order falls short of the change.
    assert 1 < measured["Slope of actual over predicted changes, conjugate gradients"] < 2
    predicted = result["details"]["predicted"]
    # The sum is broken off after so many steps that only the noise of the batches is left.
    assert np.corrcoef(predicted[script.LISSA], predicted[script.CG])[0, 1] > 0.95
    residuals = result["details"]["relative_residual"]
    assert residuals[script.CG] < 1e-5 < residuals[script.LISSA]
    bounds = {row["quantity"]: row["at_least"] for row in result["rows"]}
    for name in (script.LISSA, script.LISSA_OF_PAPER):
        assert bounds[f"Pearson correlation, {name}"] == 0.95
    assert (tmp_path / "koh_liang_fig2.png").exists()
    # The five retrainings, and the one on all images.
    assert len(list((tmp_path / "pieces").rglob("*.npz"))) == 6
