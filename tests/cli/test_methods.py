"""Every method can be named on the command line, and is held against loss and chance."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from deel_influence.cli.app import app
from deel_influence.cli.demo_data import read_scikit_learn
from deel_influence.cli.demo_network import train_digits_network
from deel_influence.cli.methods import NUM_CHECKPOINTS, RECORDERS, Method, Takes, recorders_for

FEW_DIGITS = 120
OF_TRAINING = [method for method in Method if method.recorders]
ALIKE = (Method.grad_cos, Method.similarity)


@pytest.fixture(scope="module")
def _few_digits():
    """Let the demonstration have few digits, and train once for all who do not watch."""
    images, labels = read_scikit_learn()
    few = images[:FEW_DIGITS], labels[:FEW_DIGITS]
    trained: list[keras.Model] = []

    def train(*arguments: object, **options: object) -> keras.Model:
        if options["callbacks"]:
            return train_digits_network(*arguments, **options)
        if not trained:
            trained.append(train_digits_network(*arguments, **options))
        return trained[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deel_influence.cli.demo_data.read_scikit_learn", lambda: few)
        patch.setattr("deel_influence.cli.demo_run.train_digits_network", train)
        yield


def test_every_recorder_is_named_by_what_some_method_takes():
    assert {name for method in OF_TRAINING for name in method.recorders} == set(RECORDERS)


@pytest.mark.parametrize("method", Method, ids=lambda method: method.value)
@pytest.mark.usefixtures("_few_digits")
def test_the_demo_prints_the_area_of_every_method_beside_loss_and_chance(method, tmp_path):
    options = ["demo", "--method", method.value, "--epochs", "3", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, options, env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    rows = [line.strip("│").split("│") for line in result.stdout.splitlines() if "│" in line]
    area = {row[0].strip(): row[5].strip() for row in rows if len(row) == 7}
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    flipped = scores["label"] != read_scikit_learn()[1][:FEW_DIGITS]
    assert area[method.value] == f"{roc_auc_score(flipped, scores['score']):.4f}"
    assert area["loss"] == f"{roc_auc_score(flipped, scores['loss']):.4f}"
    assert area["random (mean)"] == "0.5000"
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert method.scores.split(",")[0].replace("'", "&#39;") in page
    issues = ["issues.csv", "issues.parquet"] if method is Method.label_issues else []
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "digits.npz",
        *issues,
        "model.keras",
        "report",
        "scores.csv",
        "scores.parquet",
    ]


@pytest.fixture(scope="module")
def triage(model_path, data_path, tmp_path_factory) -> Callable:
    def run_triage(*options: object):
        out = tmp_path_factory.mktemp("triage")
        paths = ["--model", model_path, "--data", data_path, "--out", out]
        result = CliRunner().invoke(app, [str(part) for part in ("triage", *paths, *options)])
        return result, out / "scores.parquet"

    return run_triage


def test_triage_by_loss_ranks_by_the_loss(triage):
    result, path = triage("--method", "loss")
    assert result.exit_code == 0, result.output
    scores = pd.read_parquet(path)
    np.testing.assert_allclose(scores["score"], scores["loss"], rtol=1e-6)


@pytest.mark.parametrize("method", ["relatif", "representer-lje"])
def test_methods_that_solve_take_a_strategy(triage, method):
    for damping in ("0.1", "10"):
        options = ["--method", method, "--ihvp", "ekfac", "--damping", damping]
        result, path = triage(*options)
        assert result.exit_code == 0, result.output
        page = (path.parent / "report" / "index.html").read_text(encoding="utf-8")
        assert f"by EKFAC, damping {damping}" in page


def test_representer_points_are_those_of_a_head_within_another_model(
    triage, network, data_path, tmp_path
):
    body = network.layers[0](network.inputs[0])
    head = keras.Sequential(network.layers[1:], name="nested")
    nested = keras.Model(network.inputs[0], head(body))
    nested.compile(loss=network.loss)
    nested.save(tmp_path / "nested.keras")
    options = ["--method", "representer-lje", "--ihvp", "ekfac", "--damping", "0.1"]
    _, expected = triage(*options)
    out = tmp_path / "out"
    paths = ["--model", tmp_path / "nested.keras", "--data", data_path, "--out", out]
    result = CliRunner().invoke(app, [str(part) for part in ("triage", *paths, *options)])
    assert result.exit_code == 0, result.output
    scores = [pd.read_parquet(path)["score"] for path in (out / "scores.parquet", expected)]
    np.testing.assert_allclose(*scores, rtol=1e-4)


@pytest.mark.parametrize("method", OF_TRAINING, ids=lambda method: method.value)
def test_methods_that_watch_the_training_need_one(triage, method):
    result, _ = triage("--method", method.value)
    assert result.exit_code == 2
    assert "--method must be one that a trained model is enough for" in result.stderr
    assert method.value in result.stderr


@pytest.mark.parametrize(
    "option", [("--ihvp", "ekfac"), ("--damping", "0.1"), ("--samples", "5")], ids="".join
)
def test_options_of_a_strategy_are_refused_beside_a_method_without_one(triage, option):
    result, _ = triage("--method", "loss", *option)
    assert result.exit_code == 2
    assert f"{option[0]} sets up a strategy, and --method loss takes none" in result.stderr


@pytest.mark.parametrize(
    "method", [m for m in Method if Takes.WEIGHTS not in m.takes and m not in OF_TRAINING]
)
def test_weights_are_refused_beside_a_method_that_they_have_no_effect_on(triage, method):
    result, _ = triage("--method", method.value, "--weights", "hidden")
    assert result.exit_code == 2
    assert f"--weights has no effect on --method {method.value}" in result.stderr


@pytest.mark.parametrize("method", ["grad-dot", "arnoldi", "weights-boundary"])
def test_the_page_names_the_weights_that_were_looked_at(triage, method):
    result, path = triage("--method", method, "--weights", "hidden")
    assert result.exit_code == 0, result.output
    page = (path.parent / "report" / "index.html").read_text(encoding="utf-8")
    assert "hidden/kernel" in page
    assert "logits/kernel" not in page


def test_methods_of_classifiers_refuse_a_regression(run, tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(12, 2)).astype("float32")
    np.savez(tmp_path / "data.npz", x=x, y=x[:, 0])
    files = ["--model", tmp_path / "model.keras", "--data", tmp_path / "data.npz"]
    for method in (m for m in Method if Takes.CLASSES in m.takes and m not in OF_TRAINING):
        result = run("triage", *files, "--out", tmp_path / "out", "--method", method.value)
        assert result.exit_code == 2, method
        assert "from_logits" in result.stderr, method


@pytest.mark.parametrize(("epochs", "kept"), [(30, [6, 12, 18, 24, 30]), (3, [1, 2, 3]), (1, [1])])
def test_checkpoints_are_spread_evenly_over_the_training(tmp_path, epochs, kept):
    recorders = recorders_for(Method.tracin, tmp_path, epochs)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.zeros((4, 2), "float32")
    model.fit(x, x[:, :1], epochs=epochs, verbose=0, callbacks=list(recorders.values()))
    assert [c.epoch for c in recorders["checkpoints"].checkpoints] == kept
    assert len(kept) <= NUM_CHECKPOINTS
