"""What users do wrong costs them one line, and never a traceback."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import deel_influence
from deel_influence.errors import DataSourceError

X = np.zeros((6, 4), np.float32)
Y = np.zeros(6, np.int64)


@pytest.fixture(autouse=True)
def _restore_log_level():
    logger = logging.getLogger("deel_influence")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture
def fail(run, model_path, data_path, tmp_path):
    """Run triage with other options than the good ones; give the line on stderr."""

    def run_to_fail(**options) -> str:
        options = {"model": model_path, "data": data_path, "out": tmp_path / "out", **options}
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        return error_line(run("triage", *arguments))

    return run_to_fail


def error_line(result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0}, "--top must be at least 1. Received: 0."),
        ({"top": "many"}, "Invalid value for '--top'"),
        ({"batch-size": 0}, "--batch-size must be at least 1. Received: 0."),
        ({"damping": -1}, "--damping must be auto, or finite and not negative. Received: -1."),
        ({"damping": "nan"}, "auto, or finite and not negative. Received: nan."),
        ({"damping": "inf"}, "auto, or finite and not negative. Received: inf."),
        ({"damping": "much"}, "auto, or finite and not negative. Received: much."),
        ({"samples": 0}, "--samples must be at least 1. Received: 0."),
        ({"seed": -1}, "Invalid value for '--seed'"),
        ({"damping": 1, "ihvp": "identity"}, "--damping belongs to a Hessian"),
        ({"samples": 9, "ihvp": "identity"}, "--samples belongs to a Hessian"),
        ({"ihvp": "guess"}, "'guess' is not one of 'auto', 'exact', 'cgd'"),
        ({"weights": "nolayer"}, "Received: 'nolayer'. Layers with weights: ['hidden', 'logits']"),
        ({"weights": "logits:hidden"}, "must not come before `start_layer`"),
        ({"weights": "7"}, "must be an index from -2 to 1"),
        ({"loss": "nonsense"}, "--loss must be the name of a Keras loss. Received: 'nonsense'"),
        ({"model": "nowhere.keras"}, "--model must be a file. Received: 'nowhere.keras'"),
        ({"data": "nowhere.npz"}, "must exist. Received: 'nowhere.npz'"),
        ({"data": "tfds:no_such_dataset"}, "name a dataset of TensorFlow Datasets"),
        ({"data": "http://data.org"}, "scheme 'http' is unknown"),
        ({"unknown": 1}, "--unknown. Try: deel-influence triage --help"),
    ],
)
def test_a_bad_option_is_named(fail, options, message):
    assert message in fail(**options)


def save_model(path: Path, *layers, loss="mse") -> Path:
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile(loss=loss)
    model.save(path)
    return path


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def truncated(path: Path, original: Path) -> Path:
    return write(path, original.read_bytes()[:500])


BAD_MODELS = {
    "empty": (lambda folder, good: write(folder / "a.keras", b""), "load in safe mode"),
    "junk": (lambda folder, good: write(folder / "a.keras", b"x" * 99), "load in safe mode"),
    "truncated": (lambda folder, good: truncated(folder / "a.keras", good), "load in safe mode"),
    "another format": (lambda folder, good: write(folder / "a.h5", b""), "must be a `.keras` file"),
    "code inside": (
        lambda folder, good: save_model(
            folder / "a.keras", keras.layers.Lambda(lambda x: x + 1), keras.layers.Dense(1)
        ),
        "load in safe mode",
    ),
    "no weights": (
        lambda folder, good: save_model(folder / "a.keras", keras.layers.Softmax()),
        "must have a layer with trainable weights",
    ),
    "no loss": (
        lambda folder, good: save_model(folder / "a.keras", keras.layers.Dense(3), loss=None),
        "loss",
    ),
    "a folder": (lambda folder, good: folder, "--model must be a file"),
}


@pytest.mark.parametrize(("make", "message"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_a_bad_model_is_named(fail, make, message, model_path, tmp_path):
    assert message in fail(model=make(tmp_path, model_path))


BAD_DATA = {
    "junk": (None, "readable `.npz` archive"),
    "no labels": ({"x": X}, "must hold arrays `x` and `y`"),
    "different lengths": ({"x": X, "y": Y[:2]}, "6 and 2 rows"),
    "no examples": ({"x": X[:0], "y": Y[:0]}, "at least one"),
    "another input shape": ({"x": X[:, :3], "y": Y}, "what the model and its loss take"),
    "labels out of range": ({"x": X, "y": Y + 3}, "3"),
    "a later label out of range": ({"x": X, "y": np.array([0, 0, 0, 0, 0, 9])}, "9"),
    "a missing value": ({"x": X * np.nan, "y": Y}, "batch"),
    "too few class names": (
        {"x": X, "y": Y + 2, "class_names": ["a"]},
        "1 names for labels from",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_are_named(fail, content, message, tmp_path):
    path = tmp_path / "bad.npz"
    if content is None:
        path.write_bytes(b"junk")
    else:
        np.savez(path, **content)
    assert message in fail(**{"data": path, "batch-size": 2})


def test_a_truncated_image_is_named_though_it_is_read_late(fail, tmp_path):
    for number in range(4):
        image = tf.io.encode_png(np.full((2, 2, 1), number, np.uint8)).numpy()
        path = tmp_path / "images" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image[: 30 if number == 3 else None])
    layers = [keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.save(tmp_path / "images.keras")
    line = fail(
        **{"model": tmp_path / "images.keras", "data": tmp_path / "images", "batch-size": 1}
    )
    assert "1/3.png" in line
    assert "cannot be decoded" in line


def test_an_output_folder_that_is_a_file_is_named(fail, tmp_path):
    (tmp_path / "file").write_text("")
    assert "--out must be a folder that can be written" in fail(out=tmp_path / "file")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["triage"], "Missing option '--model'. Try: deel-influence triage --help"),
        (["triag"], "No such command 'triag'"),
        (
            ["demo", "--fraction", "0"],
            "flips some labels and not all (a tenth is 0.1)",
        ),
        (["demo", "--fraction", "1"], "--fraction must be a share"),
        (["demo", "--fraction", "10"], "Received: 10."),
        (["demo", "--fraction", "nan"], "Received: nan."),
        (["demo", "--fraction", "0.0001"], "Received: 0.0001."),
        (["demo", "--epochs", "0"], "--epochs must be at least 1. Received: 0."),
    ],
)
def test_a_bad_command_is_named(run, arguments, message, tmp_path, monkeypatch):
    # Without --out, the results go to the current folder.
    monkeypatch.chdir(tmp_path)
    assert message in error_line(run(*arguments))


def test_wrong_options_are_refused_before_tensorflow_is_loaded(run, tmp_path, monkeypatch):
    def fail_to_load(*args: object) -> None:
        pytest.fail("TensorFlow is being loaded.")

    for command in ("triage", "fit", "demo"):
        monkeypatch.setattr(f"deel_influence.cli.{command}.start", fail_to_load, raising=True)
    paths = ["--model", tmp_path / "no.keras", "--data", "tfds:digits"]
    commands = [
        ["triage", *paths],
        ["triage", *paths, "--top", 0],
        ["triage", *paths, "--curvature", tmp_path / "no.npz"],
        ["fit", *paths, "--out", tmp_path / "fitted.npz"],
        ["demo", "--epochs", 0],
        ["demo", "--damping", -1],
    ]
    for arguments in commands:
        error_line(run(*arguments))


@pytest.mark.parametrize("verbose", [False, True], ids=["quiet", "verbose"])
def test_an_unexpected_error_is_one_line_with_its_traceback_where_asked_for(
    run, model_path, data_path, tmp_path, monkeypatch, caplog, verbose
):
    def fail_unexpectedly(*args: object, **kwargs: object) -> None:
        message = "a bug"
        raise RuntimeError(message)

    monkeypatch.setattr("deel_influence.cli.scoring.run_triage", fail_unexpectedly)
    asked = ["--verbose"] if verbose else []
    result = run("triage", "--model", model_path, "--data", data_path, "--out", tmp_path, *asked)
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: unexpected error RuntimeError: a bug. Run again with --verbose")
    assert ("Traceback" in caplog.text) == verbose


def test_a_warning_is_one_line_without_source(run, model_path, data_path, tmp_path, monkeypatch):
    def warn_and_fail(*args: object, **kwargs: object) -> None:
        warnings.warn("a doubt", UserWarning, stacklevel=2)
        message = "the end"
        raise DataSourceError(message)

    monkeypatch.setattr("deel_influence.cli.scoring.run_triage", warn_and_fail)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = run("triage", "--model", model_path, "--data", data_path, "--out", tmp_path)
    lines = result.stderr.splitlines()
    assert [line for line in lines if "doubt" in line] == ["Warning: a doubt"]
    assert lines[-1] == "Error: the end"


def test_verbose_logs_the_traceback_of_a_user_error(run, caplog, data_path, tmp_path):
    result = run("triage", "--model", tmp_path / "no.keras", "--data", data_path, "--verbose")
    assert result.exit_code == 2
    assert "CommandError" in caplog.text
    assert "Traceback" in caplog.text


def test_without_arguments_the_help_is_shown(run):
    result = run()
    assert result.exit_code == 0
    assert "triage" in result.stdout
    assert "demo" in result.stdout


def test_the_version_is_that_of_the_package(run):
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout == f"deel-influence {deel_influence.__version__}\n"
