"""`deel-influence compare` tells what changed between two runs, and which model is better."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from deel_influence.labels import LabelIssues, LabelSets
from deel_influence.report import Triage
from deel_influence.report.parquet import write_columns
from tests.report.fakes import linear_model

NAMES = ("ape", "bee", "cat")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def triage(ids: list, labels: list, ranks: list) -> Triage:
    labels, ranks = np.array(labels), np.array(ranks)
    scores = -ranks.astype(float)
    return Triage(np.array(ids), labels, labels, scores**2, scores, ranks, NAMES)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    folder = tmp_path / "a"
    folder.mkdir()
    triage(["p", "q", "r", "s"], [0, 1, 2, 0], [1, 2, 3, 4]).to_parquet(folder / "scores.parquet")
    triage(["q", "r", "t", "s"], [1, 0, 2, 0], [2, 1, 4, 3]).to_parquet(tmp_path / "b.parquet")
    return folder, tmp_path / "b.parquet"


def tables(text: str) -> list[list[list[str]]]:
    """The cells of the tables, by table and row; the frame and the heads left out."""
    found: list[list[list[str]]] = []
    for line in text.splitlines():
        if line.startswith("┏"):
            found.append([])
        elif line.startswith("│"):
            found[-1].append([cell.strip() for cell in line.strip("│").split("│")])
    return found


def test_what_entered_and_left_the_top_is_told(run, runs) -> None:
    result = run("compare", *runs, "--top", 2)
    assert result.exit_code == 0, result.output
    assert (
        "3 examples in both runs, 1 of them with another label; 1 only in the first, 1 only in"
        in " ".join(result.stdout.split())
    )
    assert tables(result.stdout) == [
        [["r", "3", "1", "cat", "ape"]],
        [["p", "1", "–", "ape", "–"]],
    ]
    assert "Entered the top 2: 1" in result.stdout
    assert "Left the top 2: 1" in result.stdout


def test_the_same_run_twice_changes_nothing(run, runs) -> None:
    result = run("compare", runs[0], runs[0])
    assert tables(result.stdout) == [[], []]
    assert "Left the top 20: 0" in result.stdout


def test_what_is_held_to_be_wrong_is_compared_where_both_say_it(run, tmp_path) -> None:
    for name, issues in (("a", [True, True, False]), ("b", [False, True, True])):
        columns = {
            "id": np.array([5, 7, 9]),
            "label": np.array([0, 1, 2]),
            "suspicion": np.array([0.1, 0.9, 0.5]),
            "is_issue": np.array(issues),
        }
        write_columns(tmp_path / f"{name}.parquet", columns, None)
    result = run("compare", tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert result.exit_code == 0, result.output
    assert tables(result.stdout)[2:] == [[["9", "2", "2", "2", "2"]], [["5", "3", "3", "0", "0"]]]
    assert "Entered what is held to be wrong: 1" in result.stdout


def test_runs_of_label_issues_are_compared_by_their_issues(run, runs, tmp_path) -> None:
    for name, numbers in (("one", (0, 3)), ("two", (2,))):
        folder = tmp_path / name
        folder.mkdir()
        triage([0, 1, 2, 3], [0, 1, 2, 0], [4, 3, 2, 1]).to_parquet(folder / "scores.parquet")
        issues(numbers).to_parquet(folder / "issues.parquet")
    result = run("compare", tmp_path / "one", tmp_path / "two", "--top", 1)
    assert result.exit_code == 0, result.output
    assert tables(result.stdout) == [
        [["2", "4", "1", "bee", "bee"]],
        [["0", "1", "2", "(none)", "(none)"]],
        [["2", "4", "1", "bee", "bee"]],
        [["0", "1", "2", "(none)", "(none)"]],
    ]
    assert "Left what is held to be wrong: 2" in result.stdout
    assert "The first 1 of them" in result.stdout
    # Beside a run by another method, lists are compared and nothing else.
    write_columns(
        tmp_path / "two" / "issues.parquet",
        {"id": np.arange(4), "label": np.arange(4.0), "rank": np.arange(4)},
        None,
    )
    result = run("compare", tmp_path / "one", tmp_path / "two", "--top", 1)
    assert "4 of them with another label" in result.stdout
    assert "held to be wrong" not in result.stdout


def issues(wrong: tuple[int, ...]) -> LabelIssues:
    """Issues of four examples with sets of two classes, some of which are held to be wrong."""
    members = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], bool)
    sets, labels, _ = LabelSets.numbered(members, members, ("ape", "bee"))
    flags = np.isin(np.arange(4), wrong)
    shares = np.linspace(0.4, 0.1, 4) + 0.5 * flags
    return LabelIssues(
        *(np.arange(4), labels, labels, shares, shares, shares, flags, shares),
        duplicate_of=np.full(4, None),
        neighbours=np.zeros((4, 1), np.int64),
        signals={},
        class_names=sets,
        estimated_number=len(wrong),
        interval=(0, 4),
    )


def test_the_accuracies_of_both_models_are_told(run, runs, tmp_path) -> None:
    x = np.eye(3, dtype="float32")[[0, 0, 1, 1, 2]]
    np.savez(tmp_path / "test.npz", x=x, y=[0, 0, 1, 2, 2])
    options = ["--test", tmp_path / "test.npz"]
    # The first says 0 for all, the second what the input is.
    for name, weights in (("a", np.eye(3)[[0, 0, 0]]), ("b", np.eye(3))):
        model = linear_model(weights, LOSS).model
        model.compile(loss=LOSS)
        model.save(tmp_path / f"{name}.keras")
        options += [f"--model-{name}", tmp_path / f"{name}.keras"]
    result = run("compare", *runs, *options)
    assert result.exit_code == 0, result.output
    found = [row[1:] for row in tables(result.stdout)[-1] if row[1]]
    assert found == [["40%", "2 of 5"], ["80%", "4 of 5"]]
    assert (
        "The second is right where the first was wrong 2 times, and wrong where it was right 0"
        in (" ".join(result.stdout.split()))
    )


def test_hostile_ids_steer_nothing(run, tmp_path) -> None:
    for name in "ab":
        ids = ["\x1b[2J", f"[red]{name}"]
        triage(ids, [0, 1], [1, 2] if name == "a" else [2, 1]).to_parquet(tmp_path / name)
    result = run("compare", tmp_path / "a", tmp_path / "b", "--top", 1)
    assert "\\x1b[2J" in result.stdout
    assert "[red]b" in result.stdout
    assert result.stdout.replace("\n", "").isprintable()


BAD = {
    "a run that is missing": (["no"], "A run must be a file. Received"),
    "a folder without scores": (["empty"], "scores.parquet', which does not exist"),
    "a run that is none": (["text"], "must be a Parquet file"),
    "a run of other data": (["other"], "must have examples in common"),
    "a run with numbers as ids": (["numbers"], "must have examples in common"),
    "a run without ranks": (["no_ranks"], "a column rank or suspicion"),
    "one model": (["a", "--model-a", "text"], "Received: no --model-b and no --test"),
    "a model that is missing": (
        ["a", "--model-a", "text", "--model-b", "no", "--test", "text"],
        "--model-b must be a file",
    ),
    "a top of nothing": (["a", "--top", 0], "--top must be at least 1"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_compared_is_one_line(run, runs, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("no run")
    (tmp_path / "empty").mkdir()
    triage(["x"], [0], [1]).to_parquet(tmp_path / "other")
    triage([1], [0], [1]).to_parquet(tmp_path / "numbers")
    write_columns(tmp_path / "no_ranks", {"id": np.array(["p"]), "label": np.array([0])}, None)
    result = run("compare", runs[0], *arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert message in line
