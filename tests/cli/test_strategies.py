"""Every strategy can be named on the command line, fitted, kept in a file, and used from there."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from deel_influence.cli.app import app
from deel_influence.cli.demo_data import read_scikit_learn
from deel_influence.cli.demo_network import train_digits_network
from deel_influence.cli.loading import load_model, watch
from deel_influence.cli.options import Ihvp
from deel_influence.ihvp import registry
from deel_influence.ihvp.base import InverseHessianVectorProduct
from deel_influence.ihvp.exact import ExactIHVP
from deel_influence.ihvp.registry import IHVPCalculator
from deel_influence.model.influence_model import InfluenceModel

NAMES = [member.value for member in Ihvp if member is not Ihvp.auto]
FITTED = [name for name in NAMES if name != "identity"]
FEW_DIGITS = 120
BATCH_SIZE = 16


@pytest.fixture(scope="module")
def triage(model_path: Path, data_path: Path, tmp_path_factory: pytest.TempPathFactory):
    """Run triage on the small model in two batches; give the result, the scores and the page."""

    def run_triage(*options: object, model: Path = model_path, data: Path = data_path):
        out = tmp_path_factory.mktemp("triage")
        paths = ["--model", model, "--data", data, "--out", out, "--batch-size", BATCH_SIZE]
        arguments = [str(part) for part in ("triage", *paths, *options)]
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        page = (out / "report" / "index.html").read_text(encoding="utf-8")
        return result, pd.read_parquet(out / "scores.parquet"), page

    return run_triage


@pytest.fixture
def fit(run, model_path, data_path, tmp_path):
    """Fit a strategy on the small model; give the result and the file."""

    def run_fit(*options: object, model: Path = model_path):
        path = tmp_path / "fitted.npz"
        paths = ["--model", model, "--data", data_path, "--out", path, "--batch-size", BATCH_SIZE]
        result = run("fit", *paths, *options)
        assert result.exit_code == 0, result.output
        return result, path

    return run_fit


def test_the_names_are_those_of_the_library():
    assert [member.value.name for member in IHVPCalculator] == NAMES


@pytest.fixture(scope="module")
def identity_scores(triage) -> np.ndarray:
    _, scores, _ = triage("--ihvp", "identity")
    return scores["score"].to_numpy()


@pytest.mark.parametrize("name", FITTED)
def test_a_fitted_file_gives_the_scores_of_a_fit_on_the_spot(triage, fit, identity_scores, name):
    options = ["--ihvp", name, "--damping", "100", "--samples", "20"]
    _, expected, direct_page = triage(*options)
    # H is of size one, so that (H + 100 I)⁻¹ is I / 100 to some percent, for every strategy.
    np.testing.assert_allclose(expected["score"] * 100, identity_scores, rtol=0.1)
    assert "damping 100, from a sample of 20 examples" in direct_page

    result, path = fit(*options)
    assert f"{name} (" in result.stdout
    assert str(path) in result.stdout
    _, scores, page = triage("--curvature", path)
    pd.testing.assert_frame_equal(scores, expected, rtol=1e-5)
    assert f"damping 100, from a sample of 20 examples, read from {path}" in page


def test_the_damping_that_a_rule_gave_is_told(triage, fit):
    result, path = fit("--ihvp", "ekfac", "--damping", "auto")
    strategy = IHVPCalculator.from_string("ekfac").value
    with np.load(path) as arrays:
        resolved = f"auto ({arrays['damping'].item():.3g})"
    assert strategy.__name__ in result.stdout
    assert resolved in result.stdout
    _, _, page = triage("--curvature", path)
    assert f"damping {resolved}" in page


def test_fitting_tells_the_smallest_and_largest_eigenvalue_and_the_size(fit, model_path):
    result, path = fit("--ihvp", "exact", "--damping", "0.5")
    model = watch(load_model(model_path), weights=None, loss=None)
    eigenvalues = np.linalg.eigvalsh(InverseHessianVectorProduct.load(path, model).hessian)
    assert f"{eigenvalues[0]:.3g} to {eigenvalues[-1]:.3g}" in result.stdout
    assert f"({path.stat().st_size / 1024:.1f} KiB)" in result.stdout


@pytest.mark.parametrize(("limit", "name"), [(3000, "exact"), (10, "ekfac")])
def test_the_default_goes_by_the_size_of_the_model(triage, monkeypatch, limit, name):
    monkeypatch.setattr(registry, "EXACT_UP_TO", limit)
    result, scores, page = triage("--method", "influence")
    _, expected, named_page = triage("--ihvp", name)
    pd.testing.assert_frame_equal(scores, expected, rtol=1e-5)
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("Method:")]
    metric = line.split(", ", 1)[1]
    assert metric in page
    assert metric in named_page


def test_a_file_fitted_in_python_on_the_model_in_memory_serves_the_saved_model(
    triage, network, arrays, tmp_path
):
    data = tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH_SIZE)
    strategy = ExactIHVP(InfluenceModel(network), data, damping=0.01, verbose=0)
    _, expected, _ = triage("--ihvp", "exact", "--damping", "0.01")
    _, scores, _ = triage("--curvature", strategy.save(tmp_path / "exact.npz"))
    pd.testing.assert_frame_equal(scores, expected, rtol=1e-5)


def test_fitting_again_replaces_the_file_and_leaves_nothing_else(fit):
    fit("--ihvp", "exact")
    _, path = fit("--ihvp", "kfac")
    with np.load(path) as arrays:
        assert "damping" in arrays.files
    assert [child.name for child in path.parent.iterdir()] == [path.name]


def test_solves_that_do_not_converge_are_told_in_one_line(triage, monkeypatch):
    monkeypatch.setattr(Ihvp.cgd, "for_all", {"n_opt_iters": 1})
    result, _, _ = triage("--ihvp", "cgd", "--damping", "0.001", "--batch-size", 3)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Warning:")]
    assert "10 times a search did not converge" in line
    assert "3 of 3 right-hand sides did not converge" in line
    assert "--damping" in line


@pytest.fixture(scope="module")
def _few_digits() -> None:
    """Let the demonstration have few digits, and train its network on them once."""
    images, labels = read_scikit_learn()
    few = images[:FEW_DIGITS], labels[:FEW_DIGITS]
    trained: list[keras.Model] = []

    def train(*arguments: object, **options: object) -> keras.Model:
        if not trained:
            trained.append(train_digits_network(*arguments, **options))
        return trained[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deel_influence.cli.demo_data.read_scikit_learn", lambda: few)
        patch.setattr("deel_influence.cli.demo_run.train_digits_network", train)
        yield


# Each name goes through the code that triage goes through, above. Here: no curvature, a dense
# matrix, products with it, and factors, on a network with convolutions.
@pytest.mark.parametrize("name", ["identity", "exact", "cgd", "ekfac"])
@pytest.mark.usefixtures("_few_digits")
def test_the_demo_works_with_strategies_of_every_kind(run, name, tmp_path):
    result = run("demo", "--ihvp", name, "--epochs", 2, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    scores = pd.read_parquet(tmp_path / "scores.parquet")["score"]
    assert len(scores) == FEW_DIGITS
    assert (scores > 0).all()
    assert "12 of 120 labels were flipped" in result.stdout
