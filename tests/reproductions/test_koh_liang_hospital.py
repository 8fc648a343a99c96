"""The reproduction of the hospital readmission experiment runs, and finds what was planted."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

NUM_TRAIN, NUM_TEST = 400, 60


@pytest.fixture
def script() -> ModuleType:
    return importlib.import_module("koh_liang_hospital")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Patients of two ages, of whom 20 are children: 3 readmitted, and 1 other who is kept."""
    generator = np.random.default_rng(0)

    def patients(count: int, num_children: int) -> tuple[np.ndarray, np.ndarray]:
        x = np.zeros((count, 6), np.float32)
        x[:, :3] = 0.1 * generator.normal(size=(count, 3))
        is_child = np.arange(count) < num_children
        x[:, 3], x[:, 4], x[:, 5] = is_child, ~is_child, 1
        y = (generator.normal(size=count) > 0).astype(np.int64)
        y[is_child] = np.arange(num_children) < 3
        return x, y

    (x_train, y_train), (x_test, y_test) = patients(NUM_TRAIN, 20), patients(NUM_TEST, 10)
    keep = np.ones(NUM_TRAIN, bool)
    keep[4:20] = False
    names = np.array(["a", "b", "c", "child", "adult", "one"])
    np.savez(
        tmp_path / "hospital_readmission.npz",
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        keep_modified=keep,
        age_columns=np.array([3, 4]),
        feature_names=names,
    )
    return tmp_path


def test_the_children_left_are_the_examples_of_largest_influence(script, data_dir):
    arguments = ["--form", "smoke", "--data-dir", str(data_dir), "--out", str(data_dir)]
    script.main(arguments)
    result = json.loads((data_dir / "koh_liang_hospital.json").read_text())
    measured = {row["quantity"]: row["measured"] for row in result["rows"]}
    assert np.isfinite(list(measured.values())).all()
    assert measured["children among the 4 of largest influence"] == 4
    assert measured["smallest of them, in multiples of the largest of all others"] > 1
    for position in range(4):
        predicted = measured[f"training example {position}: predicted change of the loss"]
        actual = measured[f"training example {position}: change on retraining without it"]
        # A change by one of four examples is far from small: the first order gives its sign.
        assert np.sign(predicted) == np.sign(actual)
    largest = result["details"]["largest_predicted_changes"]
    assert {int(position) for position in list(largest)[:4]} == {0, 1, 2, 3}
    assert (data_dir / "koh_liang_hospital.png").exists()


def test_the_condition_number_is_that_of_the_hessian(script):
    x = np.array([[3.0, 0.0], [0.0, 1.0]])
    model = script.logistic_regression(2, 0.1)
    # Without weights all probabilities are one half.
    model.set_weights([np.zeros((2, 1))])
    expected = (9 / 8 + 0.1) / (1 / 8 + 0.1)
    assert script.condition_number(model, x, 0.1) == pytest.approx(expected)


def test_without_a_number_the_child_that_moves_most_is_taken(script):
    before, after = np.array([0.1, 0.9, 0.2]), np.array([0.9, 0.9, 0.3])
    assert script.the_child(before, after, np.array([False, True, True]), None) == 2
    assert script.the_child(before, after, np.array([False, True, True]), 1) == 1
