"""A file of a fitted strategy is refused in one line where it cannot serve."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import pytest

SAME_MODEL = "wrote with the same --model, --weights and --loss"


def error_line(result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.fixture(scope="module")
def files(model_path: Path, data_path: Path) -> list[object]:
    return ["--model", model_path, "--data", data_path]


@pytest.fixture
def fitted(run, files, tmp_path) -> Path:
    path = tmp_path / "fitted.npz"
    result = run("fit", *files, "--ihvp", "kfac", "--out", path)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture
def refuse(run, tmp_path):
    """Run triage from a file; give the line on stderr."""

    def run_to_fail(path: Path, *options: object) -> str:
        arguments = ["triage", "--curvature", path, "--out", tmp_path / "out", *options]
        return error_line(run(*arguments))

    return run_to_fail


def test_other_weights_are_refused(refuse, fitted, network, data_path, tmp_path):
    other = keras.models.clone_model(network)
    other.compile(loss=network.loss)
    other.save(tmp_path / "other.keras")
    line = refuse(fitted, "--model", tmp_path / "other.keras", "--data", data_path)
    assert SAME_MODEL in line
    assert "fitted with other weights" in line


def test_another_loss_is_refused(refuse, fitted, files):
    line = refuse(fitted, *files, "--loss", "sparse_categorical_crossentropy")
    assert SAME_MODEL in line
    assert "another loss" in line


def test_other_watched_layers_are_refused(refuse, fitted, files):
    line = refuse(fitted, *files, "--weights", "hidden")
    assert SAME_MODEL in line
    assert "other watched layers" in line


def test_corrupt_files_are_refused(refuse, fitted, files):
    content = fitted.read_bytes()
    middle = content.index(b'"strategy"')
    flipped = bytes(byte ^ 255 for byte in content[middle : middle + 9])
    damaged = {
        "empty": b"",
        "junk": b"x" * 99,
        "truncated": content[:middle],
        "changed": content[:middle] + flipped + content[middle + 9 :],
    }
    for name, wrong in damaged.items():
        fitted.write_bytes(wrong)
        line = refuse(fitted, *files)
        assert "cannot be read" in line, name


def test_a_file_of_something_else_is_refused(refuse, files, data_path):
    assert "this library did not write" in refuse(data_path, *files)


def test_a_missing_file_and_another_suffix_are_refused(refuse, files, tmp_path):
    assert "--curvature must be a file. Received: " in refuse(tmp_path / "no.npz", *files)
    assert "which is a folder" in refuse(tmp_path, *files)
    (tmp_path / "fitted.h5").touch()
    assert "--curvature must end in .npz." in refuse(tmp_path / "fitted.h5", *files)


@pytest.mark.parametrize(
    ("option", "value"), [("--ihvp", "exact"), ("--damping", "auto"), ("--samples", 9)]
)
def test_what_the_file_settles_cannot_be_given_again(refuse, files, option, value):
    line = refuse(Path("any.npz"), *files, option, value)
    assert f"{option} is settled in the file of --curvature" in line
    assert f"Received: {option} {value} --curvature any.npz" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ihvp", "identity"], "there is nothing to fit"),
        (["--damping", "much"], "--damping must be auto, or finite and not negative"),
        (["--ihvp", "datainf", "--damping", "0"], "above 0 with --ihvp datainf"),
        (["--ihvp", "woodbury", "--damping", "0"], "above 0 with --ihvp woodbury"),
        (["--samples", "0"], "--samples must be at least 1. Received: 0."),
        (["--batch-size", "0"], "--batch-size must be at least 1. Received: 0."),
        (["--model", "no.keras"], "--model must be a file. Received: 'no.keras'"),
    ],
)
def test_a_bad_option_of_fit_is_named(run, files, options, message, tmp_path):
    assert message in error_line(run("fit", *files, "--out", tmp_path / "a.npz", *options))


def test_an_unfit_place_for_the_file_is_named(run, files, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.npz").mkdir()
    rules = {
        "fitted": "--out must end in .npz.",
        "folder.npz": "--out must be a file.",
        "file/fitted.npz": "--out must lie in a folder that can be written.",
    }
    for name, rule in rules.items():
        assert rule in error_line(run("fit", *files, "--out", tmp_path / name)), name


COMMANDS = {
    "fit": ("--ihvp", "kfac", "--out", "a.npz"),
    "triage": ("--ihvp", "kfac", "--out", "page"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_named(run, files, tmp_path, monkeypatch, command):
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device", "the file")

    monkeypatch.setattr(os, "fsync", fail)
    *options, out = COMMANDS[command]
    line = error_line(run(command, *files, *options, tmp_path / out))
    assert "--out must be where the results can be written" in line
    assert "No space left on device: 'the file'" in line
