"""Where no method is asked for, the data decide, and the command says so."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest

from deel_influence.cli.default_method import has_classes
from deel_influence.datasets.source import DataSource, stream_arrays
from tests.report.fakes import linear_model

X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
CLASSES = np.arange(12) % 3
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ONE_HOT = keras.losses.CategoricalCrossentropy(from_logits=True)
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    ("labels", "outputs", "loss", "expected"),
    [
        (CLASSES, 3, LOGITS, True),
        (np.eye(3, dtype=np.float32)[CLASSES], 3, ONE_HOT, True),
        (CLASSES % 2, 1, BINARY, True),
        (X[:, :1], 1, "mse", False),
        ((X[:, :3] > 0).astype(np.float32), 3, BINARY, True),
        (X[:, :3], 3, "mse", False),
    ],
    ids=["integers", "one-hot", "two classes", "values", "several labels", "several values"],
)
def test_classes_are_told_from_other_labels(labels, outputs, loss, expected) -> None:
    model = linear_model(np.ones((4, outputs), np.float32), keras.losses.get(loss))
    source = DataSource("x", stream_arrays(X, labels, batch_size=5))
    assert has_classes(model, source) is expected


def test_classes_are_ranked_by_label_issues(run, model_path, data_path, tmp_path) -> None:
    result = run(
        "triage", "--model", model_path, "--data", data_path, "--out", tmp_path, "--top", 5
    )
    assert result.exit_code == 0, result.output
    assert "Scored by label-issues, because the labels are classes" in result.stdout
    assert "labels are wrong by estimate" in result.stdout
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    issues = pd.read_parquet(tmp_path / "issues.parquet")
    np.testing.assert_array_equal(scores["score"], issues["suspicion"])
    np.testing.assert_array_equal(issues["id"], scores["id"])
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "issues.csv")[["id", "is_issue"]], issues[["id", "is_issue"]]
    )
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "labels are wrong, by estimate" in page
    assert page.count('aria-label="nearest"') == 5
    assert 'aria-label="for it"' in page


def test_an_option_of_influence_asks_for_it(run, model_path, data_path, tmp_path) -> None:
    options = ["--ihvp", "identity"]
    result = run("triage", "--model", model_path, "--data", data_path, "--out", tmp_path, *options)
    assert "Scored by influence, which --ihvp belongs to." in result.stdout
    assert "Method: influence, identity" in result.stdout
    assert not (tmp_path / "issues.parquet").exists()


@pytest.fixture
def values(tmp_path) -> list:
    """The options that name a regression and its data, of which one value is far off."""
    generator = np.random.default_rng(1)
    x = generator.normal(size=(60, 4)).astype(np.float32)
    y = x.sum(axis=1) + generator.normal(size=60) / 10
    y[7] += 5
    np.savez(tmp_path / "train.npz", x=x, y=y)
    model = linear_model(np.ones((4, 1), np.float32), "mse").model
    model.compile(loss="mse")
    model.save(tmp_path / "model.keras")
    return ["--model", tmp_path / "model.keras", "--data", tmp_path / "train.npz"]


def test_values_are_ranked_by_influence(run, values, tmp_path) -> None:
    result = run("triage", *values, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "Scored by influence, because the labels are no classes." in result.stdout


def test_values_are_ranked_by_label_issues_where_they_are_asked_for(run, values, tmp_path) -> None:
    out = tmp_path / "out"
    result = run("triage", *values, "--out", out, "--method", "label-issues", "--top", 3)
    assert result.exit_code == 0, result.output
    assert "labels are wrong by estimate" in result.stdout
    issues = pd.read_parquet(out / "issues.parquet")
    assert issues["suspicion"].idxmax() == 7
    assert list(issues.filter(like="signal_")) == ["signal_residual"]
    page = (out / "report" / "index.html").read_text(encoding="utf-8")
    assert "the value expected" in page
    # Another run in the same folder leaves nothing of this one.
    assert run("triage", *values, "--out", out).exit_code == 0
    assert not list(out.glob("issues.*"))


def test_several_labels_are_ranked_and_relabelled_by_sets(run, tmp_path) -> None:
    x = np.random.default_rng(1).normal(size=(60, 2)).astype(np.float32)
    right = np.stack([x[:, 0] > 0, x[:, 1] > 0], axis=1)
    y = right.astype(np.float32)
    y[5, 0] = 1 - y[5, 0]
    np.savez(tmp_path / "train.npz", x=x, y=y, class_names=["east", "north"])
    model = linear_model(8 * np.eye(2, dtype=np.float32), BINARY).model
    model.compile(loss=BINARY)
    model.save(tmp_path / "model.keras")
    data = ["--data", tmp_path / "train.npz"]
    paths = ["--model", tmp_path / "model.keras", *data, "--out", tmp_path]
    result = run("triage", *paths, "--top", 2)
    assert result.exit_code == 0, result.output
    assert "Scored by label-issues, because the labels are classes" in result.stdout
    issues = pd.read_parquet(tmp_path / "issues.parquet")
    worst = issues.loc[issues["suspicion"].idxmax()]
    assert worst["id"] == 5
    expected = " + ".join(np.array(["east", "north"])[right[5]]) or "(none)"
    assert worst["suggested_name"] == expected
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    run_name = page.split('data-run="')[1].split('"')[0]
    decisions = tmp_path / "decisions.csv"
    decisions.write_text(f"# run: {run_name}\nid,decision,label\n5,relabel,{expected}\n")
    clean = ["--decisions", decisions, "--out", tmp_path / "clean.npz"]
    result = run("apply", *data, *clean)
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(np.load(tmp_path / "clean.npz")["y"] > 0, right)
