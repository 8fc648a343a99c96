"""The search for flipped labels runs, and its networks, features and tables are as described."""

from __future__ import annotations

import importlib
import json

import keras
import numpy as np
import pytest

MEASURES = {"roc_auc", "average_precision", "recall at 10%", "recall at 20%"}


@pytest.fixture
def script():
    return importlib.import_module("mislabel_detection")


@pytest.fixture
def data_dir(tmp_path):
    """A folder with two classes of counts that differ in one column."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 200)
    counts = generator.poisson(2.0, (200, 57)).astype("float32")
    counts[:, 0] += 8 * labels
    path = tmp_path / "data"
    path.mkdir()
    arrays = {"x_train": counts, "y_train": labels, "x_test": counts[:4], "y_test": labels[:4]}
    np.savez(path / "spambase.npz", **arrays)
    return path


def test_the_smoke_form_measures_and_keeps_what_is_done(script, data_dir, tmp_path, capsys):
    arguments = ["--form", "smoke", "--data-dir", str(data_dir), "--out", str(tmp_path / "out")]
    script.main(arguments)
    result = json.loads((tmp_path / "out" / "mislabel_detection.json").read_text())
    table = result["details"]["mean_lowest_highest"]["spambase"]
    assert set(table) == {"influence", "tracin", "aum", "loss", script.RANDOM}
    assert all(set(measures) == MEASURES for measures in table.values())
    values = np.array([list(measures.values()) for measures in table.values()])
    assert ((values >= 0) & (values <= 1)).all()
    np.testing.assert_allclose(table[script.RANDOM]["roc_auc"], 0.5)
    np.testing.assert_allclose(table[script.RANDOM]["recall at 20%"], 0.2)
    capsys.readouterr()
    script.main(arguments)
    assert "1 of 1 pieces are there already" in capsys.readouterr().out


def test_columns_have_mean_zero_and_variance_one_and_constant_ones_are_zero(script):
    counts = np.random.default_rng(0).poisson(3.0, (50, 4)) * np.array([1, 10, 100, 0])
    columns = script.PROBLEMS["adult"].prepare(counts)
    np.testing.assert_allclose(columns.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(columns.std(axis=0), [1, 1, 1, 0], atol=1e-5)


@pytest.mark.parametrize("data", ["mnist", "cifar10_12k", "spambase", "adult"])
def test_every_network_ends_in_logits_of_its_classes(script, data):
    problem = script.PROBLEMS[data]
    shape = {"mnist": (28, 28), "cifar10_12k": (32, 32, 3)}.get(data, (57,))
    last = keras.layers.Dense(problem.num_classes)
    network = keras.Sequential([keras.Input(shape), *problem.hidden(), last])
    assert network.output_shape == (None, problem.num_classes)


def test_a_table_holds_mean_lowest_and_highest_of_the_seeds(script):
    def piece(area):
        measures = {"roc_auc": area, "average_precision": 0.5, "recall": [0.1, 0.2]}
        return {"measured": {"loss": measures}}

    pieces = {"adult-seed0": piece(0.6), "adult-seed1": piece(0.8), "mnist-seed0": piece(1.0)}
    table = script.summary(pieces, {"adult": 10, "mnist": 10})
    np.testing.assert_allclose(table["adult"]["loss"]["roc_auc"], [0.7, 0.6, 0.8])
    np.testing.assert_allclose(table["mnist"]["loss"]["roc_auc"], [1.0, 1.0, 1.0])
