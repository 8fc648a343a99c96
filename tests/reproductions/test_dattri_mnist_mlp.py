"""The reproduction of dattri's benchmark for a network runs, with what it adds to the other."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.reproductions.small_mnist import write_ten_classes


@pytest.fixture
def script() -> ModuleType:
    return importlib.import_module("dattri_mnist_mlp")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return write_ten_classes(tmp_path)


def test_one_model_and_several_are_compared_with_one_retraining_and_with_more(script, data_dir):
    script.main(["--form", "smoke", "--data-dir", str(data_dir), "--out", str(data_dir)])
    result = json.loads((data_dir / "dattri_mnist_mlp.json").read_text())
    measured = {row["quantity"]: row["measured"] for row in result["rows"]}
    assert np.isfinite(list(measured.values())).all()
    assert all(-1 <= value <= 1 for value in measured.values())
    for label in ("ekfac of margins, early", "ekfac of margins, early, 2 models"):
        assert f"LDS, {label}" in measured
        assert -1 <= result["details"]["lds"][label]["lds_mean_of_seeds"] <= 1
    assert "LDS of another retraining of each half" in measured
    for group, labels in {
        "ensemble": ["tracin, 2 models", "ekfac of margins, early, 2 models"],
        "single-model strategy": ["ekfac of margins, early"],
    }.items():
        best = max(labels, key=lambda label: result["details"]["lds"][label]["validation"])
        assert result["details"][f"best {group}"] == best
        reported = measured[f"LDS of the best {group} ({best})"]
        assert reported == result["details"]["lds"][best]["lds"]
    assert (data_dir / "dattri_mnist_mlp.png").exists()


def test_every_method_of_the_settings_is_known(script):
    methods = importlib.import_module("dattri_methods").METHODS
    for settings in script.SETTINGS.values():
        for entry in settings["pairs"].values():
            assert methods[entry["method"]].has_pairs
        for entry in settings["single"].values():
            assert methods[entry["method"]].has_single
        assert set(settings["ensembles"]) <= set(settings["pairs"])
