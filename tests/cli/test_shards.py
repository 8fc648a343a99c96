"""Shards that commands compute one by one merge to what one command computes of the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deel_influence.calculators import Scores
from deel_influence.store import Index
from tests.cli.conftest import NUM_EXAMPLES

BATCH = ("--batch-size", 4)


@pytest.fixture(scope="module")
def inputs(model_path: Path, data_path: Path) -> list[object]:
    return ["--model", model_path, "--data", data_path, *BATCH]


@pytest.fixture
def done(run):
    def done(*arguments: object) -> str:
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    return done


def error_line(result) -> str:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def shard(number: int, total: int = 2) -> list[object]:
    return ["--shard", number, "--num-shards", total]


def test_scores_of_shards_merge_to_those_of_the_whole(run, done, inputs, tmp_path):
    parts, merged = tmp_path / "parts", ("--out", tmp_path / "scores.npz")
    options = ["score", *inputs, "--ihvp", "identity"]
    assert "of shard 1 of 2" in done(*options, *shard(1), "--out", parts)
    line = error_line(run("merge", parts, *merged))
    assert "1 of 2 missing, shard 0 the first of them" in line
    done(*options, *shard(0), "--out", parts)
    assert "Scores of 30 examples" in done("merge", parts, *merged)
    done(*options, "--out", tmp_path / "whole")
    (whole,) = (tmp_path / "whole").iterdir()
    found, expected = Scores.load(tmp_path / "scores.npz"), Scores.load(whole)
    assert found.values.tobytes() == expected.values.tobytes()
    assert found.ids.tolist() == list(range(1000, 1000 + NUM_EXAMPLES))
    # Of other settings, into the same folder: a shard is there twice.
    done("score", *inputs, "--method", "loss", *shard(1), "--out", parts)
    line = error_line(run("merge", parts, *merged))
    assert "shard 1 twice, from other data, weights or settings" in line


@pytest.mark.parametrize(("ihvp", "stages"), [("exact", 1), ("ekfac", 2)])
def test_a_fit_of_shards_is_that_of_the_whole(ihvp, stages, run, done, inputs, tmp_path):
    fit = ["fit", *inputs, "--ihvp", ihvp, "--damping", "0.1"]
    merged: list[object] = []
    for stage in range(stages):
        if stage:
            line = error_line(run(*fit, *merged, "--out", tmp_path / "early.npz"))
            assert "--sums must name the merged sums of every stage" in line
        for number in range(2):
            done(*fit, *merged, *shard(number), "--out", tmp_path / f"{stage}")
        done("merge", tmp_path / f"{stage}", "--out", tmp_path / f"{stage}.npz")
        merged += ["--sums", tmp_path / f"{stage}.npz"]
    done(*fit, *merged, "--out", tmp_path / "parts.npz")
    done(*fit, "--out", tmp_path / "whole.npz")
    line = error_line(run(*fit, *merged, *shard(0), "--out", tmp_path / "more"))
    assert "--sums must name" in line
    arrays = [dict(np.load(tmp_path / name)) for name in ("parts.npz", "whole.npz")]
    assert arrays[0].keys() == arrays[1].keys()
    values = [key for key in arrays[0] if "values" in key]
    assert values != []
    for key in values:
        np.testing.assert_allclose(arrays[0][key], arrays[1][key], rtol=1e-4, atol=1e-6)


def test_shards_of_an_index_are_built_into_one_folder(run, done, inputs, tmp_path):
    for number in (1, 0):
        done("index", *inputs, *shard(number), "--dtype", "float32", "--out", tmp_path / "index")
    index = Index(tmp_path / "index")
    assert index.check().complete
    assert sorted(index.ids.tolist()) == list(range(1000, 1000 + NUM_EXAMPLES))
    done("index", *inputs, "--dtype", "float32", "--out", tmp_path / "whole")
    np.testing.assert_array_equal(
        index.self_scores().values, Index(tmp_path / "whole").self_scores().values
    )
    line = error_line(run("index", *inputs, "--method", "loss", "--out", tmp_path / "other"))
    assert "--method must be one whose scores are products. Received: loss" in line


LINES = {
    "one of the two": (["score", "--shard", 1], "--shard and --num-shards tell together"),
    "the other": (["index", "--num-shards", 3], "Received: --num-shards alone"),
    "beyond": (["score", *shard(2)], "--shard must count from 0 and be below --num-shards"),
    "none": (["score", *shard(0, 0)], "--num-shards must be at least 1"),
    "more than batches": (
        ["score", *shard(0, 9)], "--num-shards and --batch-size must fit the data"),
    "scores of the whole": (
        ["score", *shard(0), "--method", "knn-shapley"],
        "--shard is for methods that score each example on its own"),
    "no sums": (
        ["fit", *shard(0), "--ihvp", "cgd"],
        "--shard and --sums are for strategies that add up over all examples"),
    "a file that is missing": (["fit", "--sums", "missing.npz"], "--sums must be a file"),
}  # fmt: skip


@pytest.mark.parametrize("case", LINES.values(), ids=LINES)
def test_what_cannot_be_is_told_in_a_line(case, run, inputs, tmp_path):
    (command, *options), words = case
    line = error_line(run(command, *inputs, *options, "--out", tmp_path / "out.npz"))
    assert words in line


def test_what_is_no_part_is_told_in_a_line(run, data_path, model_path, tmp_path):
    out = ("--out", tmp_path / "out.npz")
    assert "must name files. Received" in error_line(run("merge", tmp_path, *out))
    assert "must be an .npz file of this library" in error_line(run("merge", data_path, *out))
    assert "must be an .npz file of this library" in error_line(run("merge", model_path, *out))
    Scores(np.arange(2), np.ones(2)).save(tmp_path / "one")
    line = error_line(run("merge", tmp_path / "one.npz", tmp_path / "one.npz", data_path, *out))
    assert "train.npz" in line
    Scores(np.arange(1, 3), np.ones(2)).save(tmp_path / "two")
    both = (tmp_path / "one.npz", tmp_path / "two.npz")
    assert "ids that are in both" in error_line(run("merge", *both, *out))
