"""`deel-influence triage`: what it writes and prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

NAMES = ["ape", "bee", "cat"]
COLUMNS = ["id", "label", "label_name", "predicted", "predicted_name", "loss", "score", "rank"]
COLUMNS += ["given_probability", "predicted_probability"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def triage(run, model_path, data_path, tmp_path):
    """Run triage with more options; give the result and the scores."""

    def run_triage(*options, model=model_path, data=data_path):
        out = tmp_path / "out"
        result = run("triage", "--model", model, "--data", data, "--out", out, *options)
        assert result.exit_code == 0, result.output
        return result, pd.read_parquet(out / "scores.parquet")

    return run_triage


def plain_gradients(network, arrays, *layer_names):
    """Per-example gradients (n, p) of the named layers by automatic differentiation."""
    x, y = arrays
    variables = [v.value for name in layer_names for v in network.get_layer(name).weights]
    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(y, network(x), from_logits=True)
    rows = tape.jacobian(losses, variables)
    return np.concatenate([row.numpy().reshape(len(x), -1) for row in rows], axis=1), losses.numpy()


def test_scores_losses_and_predictions_are_those_of_plain_autodiff(triage, network, arrays):
    _, scores = triage("--ihvp", "identity")
    gradients, losses = plain_gradients(network, arrays, "logits")
    # float32 sums of 18 squares, in another order.
    np.testing.assert_allclose(scores["score"], (gradients**2).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(scores["loss"], losses, rtol=1e-5)
    np.testing.assert_array_equal(scores["label"], arrays[1])
    np.testing.assert_array_equal(scores["predicted"], network(arrays[0]).numpy().argmax(axis=1))


@pytest.mark.parametrize("ihvp", ["exact", "identity"])
def test_every_example_has_a_row_with_its_id_and_rank(triage, ihvp):
    _, scores = triage("--ihvp", ihvp, "--batch-size", "7")
    assert list(scores) == COLUMNS
    assert scores["label_name"].tolist() == [NAMES[label] for label in scores["label"]]
    np.testing.assert_array_equal(scores["id"], 1000 + np.arange(30))
    by_rank = scores.sort_values("rank")
    np.testing.assert_array_equal(by_rank["rank"], np.arange(1, 31))
    assert by_rank["score"].is_monotonic_decreasing


def test_damping_is_added_to_the_hessian(triage):
    _, identity = triage("--ihvp", "identity")
    _, damped = triage("--ihvp", "exact", "--damping", "1e6")
    # (H + 1e6 I)⁻¹ is 1e-6 I up to a relative ‖H‖ / 1e6.
    np.testing.assert_allclose(damped["score"] * 1e6, identity["score"], rtol=1e-4)


@pytest.mark.parametrize(
    ("weights", "layer_names"),
    [
        ("logits", ["logits"]),
        ("hidden", ["hidden"]),
        ("0", ["hidden"]),
        ("-1", ["logits"]),
        ("hidden:logits", ["hidden", "logits"]),
        ("0:-1", ["hidden", "logits"]),
    ],
)
def test_the_named_layers_are_watched(triage, network, arrays, weights, layer_names):
    _, scores = triage("--ihvp", "identity", "--weights", weights)
    gradients, _ = plain_gradients(network, arrays, *layer_names)
    np.testing.assert_allclose(scores["score"], (gradients**2).sum(axis=1), rtol=1e-5)


def test_the_most_suspicious_examples_are_printed_by_class_name(triage):
    result, scores = triage("--top", "3", "--method", "loss")
    assert "The 3 most suspicious of 30 examples" in result.stdout
    worst = scores["rank"].argmin()
    row = next(line for line in result.stdout.splitlines() if f" {1000 + worst} " in line)
    assert NAMES[scores["label"][worst]] in row
    assert len([line for line in result.stdout.splitlines() if line.startswith("│")]) == 3


def test_the_scores_are_written_as_csv_too(triage, tmp_path):
    _, scores = triage("--method", "loss")
    read = pd.read_csv(tmp_path / "out" / "scores.csv")
    pd.testing.assert_frame_equal(read, scores, check_dtype=False)


def test_an_order_by_a_model_that_learnt_nothing_is_doubted(triage):
    result, _ = triage()
    assert "Doubt this order: the model predicts" in " ".join(result.stdout.split())


def test_the_page_is_written_and_named(triage, tmp_path):
    result, _ = triage()
    page = tmp_path / "out" / "report" / "index.html"
    assert str(page) in result.stdout
    assert "train.npz" in page.read_text(encoding="utf-8")


def test_a_top_beyond_the_data_shows_all(triage):
    result, _ = triage("--top", "1000", "--method", "loss")
    assert "The 30 most suspicious of 30 examples" in result.stdout


def test_a_model_without_a_loss_takes_one_by_name(triage, network, tmp_path):
    bare = keras.Sequential([network, keras.layers.Softmax()])
    bare.build((None, 4))
    bare.save(tmp_path / "bare.keras")
    options = ["--weights", "logits", "--ihvp", "identity"]
    _, expected = triage(*options)
    options += ["--loss", "sparse_categorical_crossentropy"]
    _, scores = triage(*options, model=tmp_path / "bare.keras")
    # Keras clips probabilities and takes their logarithm, which loses some digits.
    np.testing.assert_allclose(scores["score"], expected["score"], rtol=1e-4)


def test_results_of_an_earlier_run_are_replaced_and_nothing_else_is_left(triage, tmp_path):
    triage("--ihvp", "exact")
    _, scores = triage("--ihvp", "identity")
    _, again = triage("--ihvp", "identity")
    pd.testing.assert_frame_equal(scores, again)
    names = sorted(path.name for path in (tmp_path / "out").rglob("*"))
    assert names == ["index.html", "report", "scores.csv", "scores.parquet"]


def test_images_of_a_folder_are_brought_to_the_models_size(triage, tmp_path):
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)
        path = tmp_path / "images" / f"class {number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_png(pixels).numpy())
    model = keras.Sequential(
        [
            keras.Input((4, 5, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(loss="sparse_categorical_crossentropy")
    model.save(tmp_path / "images.keras")
    result, scores = triage(model=tmp_path / "images.keras", data=tmp_path / "images")
    assert scores["label"].tolist() == [0, 0, 0, 1, 1, 1]
    assert sorted(scores["id"]) == [f"class {n % 2}/{n}.png" for n in (0, 2, 4, 1, 3, 5)]
    assert "class 1/5.png" in result.stdout
    assert scores["label_name"].tolist() == ["class 0"] * 3 + ["class 1"] * 3
    page = (tmp_path / "out" / "report" / "index.html").read_text(encoding="utf-8")
    assert "class 1/3.png" in page


def run_process(*arguments):
    """Run the command line as a process of its own, as a user does."""
    code = "from deel_influence.cli.app import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_process_of_its_own_does_the_same(triage, model_path, data_path, tmp_path):
    _, expected = triage("--top", "2")
    out = tmp_path / "process"
    process = run_process(
        "triage", "--model", model_path, "--data", data_path, "--out", out, "--top", 2
    )
    assert process.returncode == 0, process.stderr
    assert "The 2 most suspicious of 30 examples" in process.stdout
    # Another process has other threads, and sums in another order.
    scores = pd.read_parquet(out / "scores.parquet")
    pd.testing.assert_frame_equal(scores, expected, rtol=1e-5)


def test_a_process_that_fails_on_a_missing_file_ends_with_one_line(data_path, tmp_path):
    process = run_process("triage", "--model", tmp_path / "no.keras", "--data", data_path)
    assert process.returncode == 2
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    assert line.startswith("Error: --model must be a file.")


def test_the_command_line_itself_loads_no_library_of_numbers():
    code = (
        "import deel_influence, sys; before = set(sys.modules); import deel_influence.cli.app; "
        "print(*(set(sys.modules) - before))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(process.stdout.split())
    assert "typer" in loaded
    heavy = {"tensorflow", "keras", "tensorflow_datasets", "pandas", "sklearn", "matplotlib"}
    assert not loaded & heavy
