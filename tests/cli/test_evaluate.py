"""`deel-influence evaluate`: what it makes, writes, prints and refuses."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from deel_influence.cli import evaluation_run
from deel_influence.cli.wrong_labels import read_wrong_labels
from deel_influence.evaluation.ground_truth import GroundTruth
from deel_influence.evaluation.subsets import random_subsets

N, M = 40, 6


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A network, its training set with wrong labels, and queries."""
    folder = tmp_path_factory.mktemp("evaluate")
    generator = np.random.default_rng(3)
    centres = 3 * generator.normal(size=(3, 4))
    y = generator.integers(0, 3, size=N + M)
    x = (centres[y] + generator.normal(size=(N + M, 4))).astype(np.float32)
    wrong = np.arange(N) % 8 == 0
    y[:N] = np.where(wrong, (y[:N] + 1) % 3, y[:N])
    found = {name: folder / f"{name}.npz" for name in ("train", "queries", "masks", "truth")}
    np.savez(found["train"], x=x[:N], y=y[:N], ids=100 + np.arange(N))
    np.savez(found["queries"], x=x[N:], y=y[N:])
    np.savez(found["masks"], mislabelled=wrong)
    found["mask"] = folder / "mask.npy"
    np.save(found["mask"], wrong)
    found["ids"] = folder / "wrong.txt"
    found["ids"].write_text("".join(f"{100 + i}\n" for i in np.flatnonzero(wrong)))
    found["model"] = folder / "model.keras"
    network(x[:N], y[:N]).save(found["model"])
    outputs = generator.normal(size=(1, 12, M))
    GroundTruth(random_subsets(N, 12), outputs, np.zeros((1, M))).save(found["truth"])
    return found


def network(x: np.ndarray, y: np.ndarray) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="tanh"),
            layers.Dense(3, name="logits"),
            # Weights that are not trained may follow.
            layers.BatchNormalization(trainable=False),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss, jit_compile=False)
    model.fit(x, y, epochs=5, verbose=0)
    return model


@pytest.fixture
def evaluated(run, paths, tmp_path):
    """Run the command; give the result and the table."""

    def run_evaluate(*options, out=tmp_path / "out", queries=True):
        data = ["--model", paths["model"], "--data", paths["train"], "--out", out]
        data += ["--queries", paths["queries"]] if queries else []
        result = run("evaluate", *data, *options)
        assert result.exit_code == 0, result.output
        return result, pd.read_csv(out / "table.csv", index_col="method")

    return run_evaluate


@pytest.fixture
def refused(run, paths, tmp_path):
    """Run the command with options that it refuses; give the line on stderr."""

    def run_to_fail(*options, queries=True):
        data = ["--model", paths["model"], "--data", paths["train"], "--out", tmp_path / "out"]
        data += ["--queries", paths["queries"]] if queries else []
        result = run("evaluate", *data, *options)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        return line

    return run_to_fail


RETRAIN = ("--leave-one-out", 8, "--subsets", 10, "--method", "influence")


@pytest.fixture(scope="module")
def retrained(run, paths, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """The command run once: its result and its folder, which stays as it is."""
    out = tmp_path_factory.mktemp("retrained") / "out"
    data = ["--model", paths["model"], "--data", paths["train"], "--queries", paths["queries"]]
    return run("evaluate", *data, "--out", out, *RETRAIN), out


@pytest.fixture
def retrained_folder(retrained, tmp_path) -> Path:
    """A folder of its own with what the command left."""
    return shutil.copytree(retrained[1], tmp_path / "retrained")


def test_influence_agrees_with_the_last_layer_trained_again(retrained):
    result, retrained_folder = retrained
    table = pd.read_csv(retrained_folder / "table.csv", index_col="method")
    row = table.loc["influence (exact)"]
    assert row["leave-one-out: Pearson"] > 0.95
    assert row["half-data: LDS"] > max(0.6, table["half-data: LDS"]["random"] + 0.3)
    assert "leave-one-out: 8 retrainings, 6 queries" in result.stdout
    assert "half-data: 10 retrainings, 6 queries" in result.stdout
    assert re.search(r"NA: leave-one-out: slope of random", result.stdout)
    for name in ("evaluation.png", "evaluation.json", "leave-one-out.npz", "half-data.npz"):
        assert (retrained_folder / name).is_file()
    truth = GroundTruth.load(retrained_folder / "leave-one-out.npz")
    assert truth.changes.shape == (8, M)


def test_the_same_command_again_computes_nothing_and_gives_the_same(
    evaluated, retrained_folder, monkeypatch
):
    before = (retrained_folder / "table.csv").read_bytes()

    def never(*_arguments):
        raise RuntimeError

    monkeypatch.setattr(evaluation_run, "make_calculator", never)
    monkeypatch.setattr("deel_influence.evaluation.convex.minimise", never)
    evaluated(*RETRAIN, out=retrained_folder)
    assert (retrained_folder / "table.csv").read_bytes() == before


def test_another_method_goes_on_from_what_is_there(evaluated, retrained_folder):
    before = pd.read_csv(retrained_folder / "table.csv", index_col="method")
    _, table = evaluated(*RETRAIN, "--method", "loss", out=retrained_folder)
    pd.testing.assert_frame_equal(table.drop(index="loss"), before)
    assert np.isnan(table["half-data: LDS"]["loss"])


def test_other_settings_are_refused(run, paths, retrained_folder):
    options = ["--model", paths["model"], "--data", paths["train"], "--out", retrained_folder]
    options += ["--queries", paths["queries"], *RETRAIN]
    result = run("evaluate", *options, "--l2", 0.5)
    assert result.exit_code == 2
    assert "whose retrainings have another model" in result.stderr
    result = run("evaluate", *options, "--damping", 0.5)
    assert result.exit_code == 2
    assert "--out must be the folder of the same evaluation" in result.stderr
    assert "`damping` None where '0.5' is given" in result.stderr
    assert "Argument" not in result.stderr


def test_wrong_labels_may_be_added_later(evaluated, retrained_folder, paths):
    options = [*RETRAIN[:4], "--method", "loss", "--wrong-labels", paths["ids"]]
    _, table = evaluated(*options, out=retrained_folder)
    assert table["ROC AUC"]["loss"] > 0.7


def test_known_wrong_labels_are_searched_by_each_method(evaluated, paths):
    options = ["--method", "influence", "--ihvp", "exact", "--ihvp", "identity"]
    options += ["--method", "margin", "--damping", "0.01"]
    result, table = evaluated("--wrong-labels", paths["ids"], *options, queries=False)
    names = ["influence (exact)", "influence (identity)", "margin", "loss", "random"]
    assert list(table.index) == names
    assert (table["ROC AUC"][names[:4]] > 0.7).all()
    assert table["ROC AUC"]["random"] == 0.5
    assert "Finding the 5 wrong labels of 40" in result.stdout


@pytest.mark.parametrize("file", ["ids", "mask", "masks"])
def test_wrong_labels_are_read_from_ids_and_masks(paths, file):
    found = read_wrong_labels(paths[file], 100 + np.arange(N))
    np.testing.assert_array_equal(found, np.arange(N) % 8 == 0)


def test_a_truth_from_a_file_is_compared_with_the_model_as_it_is(evaluated, paths):
    result, table = evaluated("--truth", paths["truth"], "--method", "grad-dot")
    assert list(table)[:3] == ["truth: LDS", "truth: LDS low", "truth: LDS high"]
    assert table["truth: LDS low"]["grad-dot"] <= table["truth: LDS"]["grad-dot"]
    assert "truth: 12 retrainings, 6 queries" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "There must be something to compare with: --leave-one-out, --subsets"),
        (["--leave-one-out", 1], "--leave-one-out must be at least 2"),
        (["--leave-one-out", 41], "--leave-one-out must be at most the number of examples, 40"),
        (["--subsets", 1], "--subsets must be at least 2"),
        (["--subsets", 2, "--l2", 0], "--l2 must be finite and above 0. Received: 0"),
        (["--subsets", 2, "--weights", "0"], "--weights must name no other"),
        (["--truth", "truth", "--l2", 1], "--l2 belongs to --leave-one-out and --subsets"),
        (["--truth", "truth", "--subsets", 2], "--truth is about the model"),
        (["--truth", "nowhere.npz"], "--truth must be a file. Received: 'nowhere.npz'"),
        (["--truth", "truth", "--truth", "truth"], "--truth must name files of different names"),
        (["--wrong-labels", "train.csv"], "--wrong-labels must be a file"),
        (["--wrong-labels", "model"], "--wrong-labels must end in .txt, .npy, .npz"),
        (["--wrong-labels", "train"], "must hold an array 'mislabelled'"),
        (["--subsets", 2, "--method", "aum"], "--method must be one that a trained model"),
        (["--subsets", 2, "--method", "loss", "--ihvp", "exact"], "--ihvp sets up a strategy"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(refused, paths, options, message):
    assert message in refused(*(paths.get(option, option) for option in options))


def test_retraining_needs_queries(refused):
    assert "--queries must name the examples" in refused("--subsets", 2, queries=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("7\n", "--wrong-labels must list ids of --data. Received: "),
        ("one\n", "with 1 others, such as one"),
        ("", "must mark some examples, and not all"),
    ],
)
def test_a_list_of_wrong_labels_that_does_not_fit_is_refused(refused, tmp_path, content, message):
    (tmp_path / "wrong.txt").write_text(content)
    assert message in refused("--wrong-labels", tmp_path / "wrong.txt")


def test_queries_that_the_model_does_not_take_are_named(run, paths, tmp_path):
    np.savez(tmp_path / "wide.npz", x=np.zeros((3, 9), np.float32), y=np.zeros(3, np.int64))
    options = ["--model", paths["model"], "--data", paths["train"], "--out", tmp_path / "out"]
    result = run("evaluate", *options, "--queries", tmp_path / "wide.npz", "--subsets", 2)
    assert result.exit_code == 2
    assert "--queries must be what the model and its loss take" in result.stderr


def test_a_truth_of_other_data_is_refused(refused, tmp_path):
    GroundTruth(random_subsets(9, 3), np.zeros((1, 3, 2)), np.zeros((1, 2))).save(
        tmp_path / "other"
    )
    message = refused("--truth", tmp_path / "other.npz")
    assert "--truth must be of the 40 examples of --data and the 6 of --queries" in message
    assert "of 9 examples and 2 queries" in message


@pytest.mark.parametrize(
    ("num_subsets", "outputs"), [(1, np.arange(6.0)), (3, np.ones(6))], ids=["one", "no other"]
)
def test_a_truth_that_tells_nothing_is_refused(refused, tmp_path, num_subsets, outputs):
    outputs = np.tile(outputs, (1, num_subsets, 1))
    GroundTruth(random_subsets(N, num_subsets), outputs, np.zeros((1, M))).save(tmp_path / "truth")
    message = refused("--truth", tmp_path / "truth.npz")
    assert "--truth must hold at least two retrainings, whose outputs differ" in message


@pytest.fixture
def with_last_layers(run, paths, tmp_path):
    """Run the command for a model of such last layers; give the result."""

    def run_with(layers):
        inputs = keras.Input((4,))
        model = keras.Model(inputs, layers(inputs))
        model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.save(tmp_path / "model.keras")
        options = ["--data", paths["train"], "--queries", paths["queries"], "--subsets", 2]
        options += ["--model", tmp_path / "model.keras", "--out", tmp_path / "out"]
        return run("evaluate", *options, "--method", "loss")

    return run_with


def shared(inputs):
    layer = keras.layers.Dense(4)
    return layer(keras.layers.Activation("tanh")(layer(inputs)))


def skipped(inputs):
    features = keras.layers.Dense(3, activation="tanh")(inputs)
    return keras.layers.Add()([features, keras.layers.Dense(3)(features[:, :2])])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda x: keras.layers.PReLU()(keras.layers.Dense(3)(x)), "is a Dense layer"),
        (shared, "a last layer that is called once.* which is called 2 times"),
        (skipped, "which the output does not depend on alone"),
        (
            lambda x: keras.layers.Add()([keras.layers.Dense(3)(x), keras.layers.Dense(3)(x)]),
            "beside which there are others with weights",
        ),
    ],
)
def test_a_model_whose_last_layer_cannot_be_trained_so_is_refused(
    with_last_layers, layers, message
):
    result = with_last_layers(layers)
    assert result.exit_code == 2, result.output
    assert re.search(message, result.stderr)
