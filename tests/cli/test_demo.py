"""`deel-influence demo`: the flipped labels of real digits are found, and counted honestly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner, Result

from deel_influence.cli.app import app
from deel_influence.datasets.label_noise import flip_labels

ORDERS = ("label-issues", "loss", "random", "best possible")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """The demonstration as it is by default; its result and its folder."""
    out = tmp_path_factory.mktemp("demo")
    result = CliRunner().invoke(app, ["demo", "--out", str(out)], env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    return result, out


def flipped_in(out: Path) -> np.ndarray:
    return np.load(out / "digits.npz")["y"] != load_digits().target


def share_found(scores: pd.DataFrame, flipped: np.ndarray, part: float) -> float:
    first = np.argsort(-scores["score"].to_numpy())[: int(part * len(scores))]
    return flipped[first].sum() / flipped.sum()


def test_nearly_all_flipped_labels_stand_in_the_first_part_of_the_list(demo):
    _, out = demo
    scores, flipped = pd.read_parquet(out / "scores.parquet"), flipped_in(out)
    assert flipped.sum() == 180
    assert share_found(scores, flipped, 0.10) >= 0.88
    assert share_found(scores, flipped, 0.20) >= 0.97
    assert roc_auc_score(flipped, scores["score"]) >= 0.99


def test_the_labels_are_flipped_by_the_seed(demo):
    _, out = demo
    expected, _ = flip_labels(load_digits().target, 0.1, num_classes=10, seed=0)
    np.testing.assert_array_equal(pd.read_parquet(out / "scores.parquet")["label"], expected)


def test_what_is_printed_is_what_the_scores_say(demo):
    result, out = demo
    scores, flipped = pd.read_parquet(out / "scores.parquet"), flipped_in(out)
    row = next(line for line in result.stdout.splitlines() if line.startswith("│ label-issues"))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    shares = [share_found(scores, flipped, part) for part in (0.05, 0.10, 0.20, 0.30)]
    assert cells[1:5] == [f"{share:.1%}" for share in shares]
    assert cells[5] == f"{roc_auc_score(flipped, scores['score']):.4f}"


def test_the_order_by_loss_and_chance_are_shown_beside_label_issues(demo):
    result, out = demo
    page = (out / "report" / "index.html").read_text(encoding="utf-8")
    for order in ORDERS:
        assert f"│ {order}" in result.stdout
        assert order in page
    assert "180 of 1,797 labels were flipped" in page
    assert "Scored by label-issues, because the labels are classes" in result.stdout
    assert "labels are wrong, by estimate" in page
    assert page.count('aria-label="nearest"') == 20


def test_triage_repeats_the_demo_from_the_files_it_leaves(demo, run, tmp_path):
    _, out = demo
    files = ["--model", out / "model.keras", "--data", out / "digits.npz"]
    result = run("triage", *files, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "scores.parquet"), pd.read_parquet(out / "scores.parquet")
    )


def test_another_share_can_be_flipped_and_the_same_seed_repeats_the_run(run, tmp_path):
    options = ["--fraction", "0.3", "--epochs", "1", "--ihvp", "identity", "--seed", "5"]
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        assert run("demo", "--out", folder, *options).exit_code == 0
        assert flipped_in(folder).sum() == 539
    first, second = (pd.read_parquet(folder / "scores.parquet") for folder in folders)
    pd.testing.assert_frame_equal(first, second, rtol=1e-4)
