"""`deel-influence apply` writes what was decided beside the data, and touches nothing else."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from deel_influence.datasets import load_source
from deel_influence.labels import Decisions, run_digest

N = 6
X = np.arange(2.0 * N).reshape(N, 2)
Y = np.array([0, 1, 2, 0, 1, 2])
NAMES = ["ape", "bee", "cat"]
# The second example is a cat, and the last one goes.
AFTER = np.array([0, 2, 2, 0, 1])


def decide(folder: Path, ids: list, labels=Y, new: str = "cat", chosen: list | None = None) -> Path:
    chosen = [ids[1], ids[5]] if chosen is None else chosen
    run = run_digest(np.array(ids), np.asarray(labels))
    decisions = Decisions(chosen, ["relabel", "drop"], [new, ""], run)
    return decisions.save(folder / "decisions.csv")


@pytest.fixture
def apply(run: Callable, tmp_path: Path) -> Callable:
    """Run the command on data in the folder; give the result and the files that are new."""

    def apply_to(data: object, *options: object):
        before = contents(tmp_path)
        result = run("apply", "--data", data, "--decisions", tmp_path / "decisions.csv", *options)
        after = contents(tmp_path)
        assert {name: after.get(name) for name in before} == before
        return result, sorted(set(after) - set(before))

    return apply_to


def contents(folder: Path) -> dict[str, bytes]:
    """All files in a folder and beside it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def read_log(path: Path) -> list[list[str]]:
    with path.open(newline="") as stream:
        return list(csv.reader(stream))


LOG = [["id", "decision", "before", "after"], ["1", "relabel", "bee", "cat"]]


def test_arrays_are_written_beside_the_old_ones(apply, tmp_path) -> None:
    more = {"x_test": X[:3], "flags": Y > 0, "class_names": NAMES}
    np.savez(tmp_path / "d.npz", x=X, y=Y.astype("int8"), **more)
    decide(tmp_path, list(range(N)))
    result, new = apply(tmp_path / "d.npz", "--out", tmp_path / "clean.npz")
    assert result.exit_code == 0, result.output
    assert new == ["clean.npz", "clean.npz.changes.csv"]
    with np.load(tmp_path / "clean.npz") as found:
        assert found["y"].tolist() == AFTER.tolist()
        assert found["y"].dtype == np.int8
        np.testing.assert_array_equal(found["x"], X[:5])
        assert found["flags"].tolist() == (Y > 0)[:5].tolist()
        np.testing.assert_array_equal(found["x_test"], X[:3])
        # The positions before, by which later runs are compared.
        assert found["ids"].tolist() == [0, 1, 2, 3, 4]
    assert read_log(tmp_path / "clean.npz.changes.csv") == [*LOG, ["5", "drop", "cat", ""]]
    assert "Relabelled 1 and dropped 1 of 6 examples." in result.stdout
    assert "Rows were taken out of: x, y, flags, ids." in result.stdout


@pytest.mark.parametrize("labels", [np.array(NAMES)[Y], np.eye(3)[Y]], ids=["texts", "one-hot"])
def test_labels_of_arrays_keep_their_form(apply, tmp_path, labels) -> None:
    np.savez(tmp_path / "d.npz", x_train=X, y_train=labels, id=[f"m{i}" for i in range(N)])
    decide(tmp_path, [f"m{i}" for i in range(N)], new="cat" if labels.ndim == 1 else "2")
    result, _ = apply(tmp_path / "d.npz", "--out", tmp_path / "clean.npz")
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "clean.npz") as found:
        np.testing.assert_array_equal(found["y_train"], labels[[0, 2, 2, 3, 4]])
        assert found["id"].tolist() == [f"m{i}" for i in range(5)]


@pytest.mark.parametrize(
    ("options", "labels", "told"),
    [
        (["--drop"], Y[:5].tolist(), "Relabelled 0 and dropped 1"),
        (["--relabel"], [0, 2, 2, 0, 1, 2], "Relabelled 1 and dropped 0"),
        (["--drop", "--relabel"], AFTER.tolist(), "Relabelled 1 and dropped 1"),
    ],
)
def test_one_kind_of_decision_can_be_chosen(apply, tmp_path, options, labels, told) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=Y, class_names=NAMES)
    decide(tmp_path, list(range(N)))
    result, _ = apply(tmp_path / "d.npz", "--out", tmp_path / "clean.npz", *options)
    assert told in result.stdout
    with np.load(tmp_path / "clean.npz") as found:
        assert found["y"].tolist() == labels


CSV = """\ufeffcode,kind,note,price
007,ape,"a, b",1.10
008,bee,NA,2.00
009,cat,"two
lines",3
010,ape,,1e5

011,bee,=1+1,x
012,cat,last,0
"""


def test_of_a_csv_file_nothing_changes_but_the_labels(apply, tmp_path) -> None:
    (tmp_path / "d.csv").write_bytes(CSV.encode())
    decide(tmp_path, [f"{i:03d}" for i in range(7, 13)])
    options = ("--label", "kind", "--id", "code", "--log", tmp_path / "log.csv")
    result, new = apply(tmp_path / "d.csv", "--out", tmp_path / "sub" / "clean.csv", *options)
    assert result.exit_code == 0, result.output
    assert new == ["log.csv", "sub/clean.csv"]
    expected = CSV.lstrip("\ufeff").replace("008,bee", "008,cat").replace("\n\n", "\n")
    assert (tmp_path / "sub" / "clean.csv").read_text() == expected.replace("012,cat,last,0\n", "")


@pytest.mark.parametrize(
    ("kind", "labels", "new"),
    [
        (pa.int8(), Y.tolist(), "2"),
        (pa.float32(), Y.astype(float).tolist(), "2"),
        (pa.string(), [NAMES[i] for i in Y], "cat"),
        (pa.dictionary(pa.int8(), pa.string()), [NAMES[i] for i in Y], "cat"),
    ],
    ids=str,
)
def test_a_parquet_file_keeps_its_types(apply, tmp_path, kind, labels, new) -> None:
    columns = {
        "label": pa.array(labels, kind),
        "id": [f"m{i}" for i in range(N)],
        "a": [{"b": 1}] * N,
    }
    table = pa.table(columns).replace_schema_metadata({"made by": "me"})
    pq.write_table(table, tmp_path / "d.parquet")
    decide(tmp_path, columns["id"], new=new)
    result, _ = apply(tmp_path / "d.parquet", "--out", tmp_path / "clean.parquet")
    assert result.exit_code == 0, result.output
    found = pq.read_table(tmp_path / "clean.parquet")
    assert found.schema.equals(table.schema, check_metadata=True)
    assert found["label"].to_pylist() == [labels[i] for i in (0, 2, 2, 3, 4)]
    assert found["id"].to_pylist() == columns["id"][:5]


def test_truth_values_stay_truth_values(apply, tmp_path) -> None:
    pd.DataFrame({"label": Y > 0, "a": Y}).to_csv(tmp_path / "d.csv", index=False)
    decide(tmp_path, list(range(N)), labels=Y > 0, new="False")
    result, _ = apply(tmp_path / "d.csv", "--out", tmp_path / "clean.csv")
    assert result.exit_code == 0, result.output
    labels = pd.read_csv(tmp_path / "clean.csv")["label"]
    assert labels.tolist() == [False, False, True, False, True]


def image_folder(folder: Path) -> list[str]:
    names = ["ape/0.png", "ape/1.png", "bee/0.png", "bee/sub/1.png", "cat/0.png", "cat/2.png"]
    for number, name in enumerate(names):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_png(np.full((2, 2, 1), number, np.uint8)).numpy())
    return names


LABELS = np.array([0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize("chosen", [["bee/0.png", "ape/0.png"], ["bee/sub/1.png", "cat/2.png"]])
def test_images_are_copied_into_the_folder_of_their_class(apply, tmp_path, chosen) -> None:
    names = image_folder(tmp_path)
    decide(tmp_path, names, LABELS, "cat", chosen)
    result, new = apply(tmp_path / "images", "--out", tmp_path / "clean")
    assert result.exit_code == 0, result.output
    # The name cat/0.png is taken.
    moved = {"bee/0.png": "cat/0-2.png", "bee/sub/1.png": "cat/sub/1.png"}[chosen[0]]
    expected = {moved if name == chosen[0] else name: name for name in names if name != chosen[1]}
    assert new == sorted([*(f"clean/{name}" for name in expected), "clean.changes.csv"])
    for name, origin in expected.items():
        read = (tmp_path / "images" / origin).read_bytes()
        assert (tmp_path / "clean" / name).read_bytes() == read


def test_moves_are_listed_in_place_of_copies(apply, tmp_path) -> None:
    decide(tmp_path, image_folder(tmp_path), LABELS, "cat", ["bee/0.png", "ape/0.png"])
    result, new = apply(tmp_path / "images", "--moves", tmp_path / "moves.json")
    assert result.exit_code == 0, result.output
    assert new == ["moves.json", "moves.json.changes.csv"]
    assert json.loads((tmp_path / "moves.json").read_text()) == [
        {"from": "ape/0.png", "to": None},
        {"from": "bee/0.png", "to": "cat/0-2.png"},
    ]


def test_a_class_without_examples_keeps_its_folder(apply, tmp_path) -> None:
    names = image_folder(tmp_path)
    run = run_digest(np.array(names), LABELS)
    Decisions(names[2:4], ["drop"] * 2, ["", ""], run).save(tmp_path / "decisions.csv")
    result, _ = apply(tmp_path / "images", "--out", tmp_path / "clean")
    assert "No example of the class bee is left." in result.stdout
    source = load_source(tmp_path / "clean")
    assert source.class_names == tuple(NAMES)
    assert [y for _, labels in source.dataset for y in labels.numpy().tolist()] == [0, 0, 2, 2]


@pytest.mark.parametrize("in_batches", [True, False], ids=["batches", "examples"])
def test_a_saved_dataset_is_saved_as_it_was(apply, tmp_path, in_batches) -> None:
    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    dataset = dataset.batch(4) if in_batches else dataset
    dataset.save(str(tmp_path / "saved"))
    decide(tmp_path, list(range(N)), new="2")
    result, _ = apply(tmp_path / "saved", "--out", tmp_path / "clean")
    assert result.exit_code == 0, result.output
    found = tf.data.Dataset.load(str(tmp_path / "clean"))
    assert found.element_spec[1].shape.rank == int(in_batches)
    read = load_source(tmp_path / "clean").dataset
    assert [y for _, labels in read for y in labels.numpy().tolist()] == AFTER.tolist()
    np.testing.assert_array_equal(np.concatenate([x for x, _ in read]), X[:5])


def test_a_dataset_of_tensorflow_datasets_is_saved(apply, tmp_path) -> None:
    labels = np.concatenate([y for _, y in load_source("tfds:digits").dataset])
    ids = list(range(len(labels)))
    new = str((labels[1] + 1) % 10)
    decide(tmp_path, ids, labels, new)
    result, _ = apply("tfds:digits", "--out", tmp_path / "clean")
    assert result.exit_code == 0, result.output
    found = np.concatenate([y for _, y in load_source(tmp_path / "clean").dataset])
    assert len(found) == len(labels) - 1
    assert np.flatnonzero(found != np.delete(labels, 5)).tolist() == [1]


HOSTILE = ["../../up.png", "/etc/passwd", "ape/../../up.png", "ape/0.png\x00", "=ape/0.png", "."]


@pytest.mark.parametrize("name", HOSTILE)
def test_ids_that_lead_elsewhere_are_refused(apply, tmp_path, name) -> None:
    names = image_folder(tmp_path)
    decide(tmp_path, names, LABELS, "cat", ["ape/1.png", name])
    result, new = apply(tmp_path / "images", "--out", tmp_path / "clean")
    assert (result.exit_code, new) == (2, [])
    assert "must name examples of the data" in result.stderr
    assert "line 4" in result.stderr
    assert result.stderr.strip().isprintable()


@pytest.mark.parametrize("label", ["../up", "/etc", "ape/..", "=cat", "\x1b[2J", "2"])
def test_classes_that_lead_elsewhere_are_refused(apply, tmp_path, label) -> None:
    names = image_folder(tmp_path)
    decide(tmp_path, names, LABELS, label)
    result, new = apply(tmp_path / "images", "--out", tmp_path / "clean")
    assert (result.exit_code, new) == (2, [])
    assert "must relabel to a class of the data (ape, bee, cat)" in result.stderr


def test_hostile_names_are_harmless_in_log_and_terminal(apply, tmp_path) -> None:
    kinds = ["=ape()", "\x1b[2J", "cat"]
    np.savez(
        tmp_path / "d.npz", x=X, y=Y, ids=["=1", "+1", "\x1b[3J", "a", "b", "c"], class_names=kinds
    )
    ids = ["=1", "+1", "\x1b[3J", "a", "b", "c"]
    run = run_digest(np.array(ids), Y)
    Decisions(ids[:3], ["relabel", "drop", "relabel"], [kinds[1], "", kinds[0]], run).save(
        tmp_path / "decisions.csv"
    )
    result, _ = apply(tmp_path / "d.npz", "--out", tmp_path / "clean.npz")
    assert result.exit_code == 0, result.output
    assert read_log(tmp_path / "clean.npz.changes.csv")[1:] == [
        ["'=1", "relabel", "'=ape()", "\\x1b[2J"],
        ["'+1", "drop", "\\x1b[2J", ""],
        ["\\x1b[3J", "relabel", "cat", "'=ape()"],
    ]
    assert result.stdout.replace("\n", "").isprintable()


def test_decisions_of_another_run_write_nothing(apply, tmp_path) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=Y[::-1], class_names=NAMES)
    decide(tmp_path, list(range(N)))
    result, new = apply(tmp_path / "d.npz", "--out", tmp_path / "clean.npz")
    assert (result.exit_code, new) == (2, [])
    assert "Pass the data that the run was made from" in result.stderr


PLACES = {
    "over the data": ({"out": "d.npz"}, "--out must lie apart from --data"),
    "over the decisions": ({"out": "decisions.csv"}, "--out must lie apart from --decisions"),
    "around the data": ({"out": "."}, "--out must lie apart"),
    "in another way": ({"out": "sub/../d.npz"}, "--out must lie apart from --data"),
    "through a link": ({"out": "link.npz"}, "--out must lie apart from --data"),
    "of another form": ({"out": "clean.csv"}, "--out must end in .npz"),
    "nowhere": ({}, "Received: neither"),
    "twice": ({"out": "clean.npz", "moves": "moves.json"}, "Received: both"),
    "moves of arrays": ({"moves": "moves.json"}, "--moves lists the files of a folder of images"),
    "a log over the data": ({"out": "clean.npz", "log": "d.npz"}, "--log must lie apart from"),
    "a log over the results": ({"out": "c.npz", "log": "c.npz"}, "apart from the results"),
    "a log of another form": ({"out": "c.npz", "log": "c.txt"}, "--log must end in .csv"),
    "without decisions": ({"out": "c.npz", "decisions": "no.csv"}, "--decisions must be a file"),
    "no decisions": ({"out": "c.npz", "decisions": "other.csv"}, "with the columns id, decision"),
    "images over others": ({"data": "images", "out": "full"}, "must be a new or empty folder"),
    "images within": ({"data": "images", "out": "images/clean"}, "--out must lie apart from"),
    "images in a file": ({"data": "images", "out": "other.csv"}, "--out must be a folder"),
    "moves in another form": ({"data": "images", "moves": "m.csv"}, "--moves must end in .json"),
}


@pytest.mark.parametrize(("options", "message"), PLACES.values(), ids=PLACES)
def test_what_is_there_is_never_written_over(run, tmp_path, options, message) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=Y, class_names=NAMES)
    decide(tmp_path, list(range(N)))
    image_folder(tmp_path)
    (tmp_path / "link.npz").symlink_to(tmp_path / "d.npz")
    (tmp_path / "other.csv").write_text("a,b\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    before = contents(tmp_path)
    given = {"data": "d.npz", "decisions": "decisions.csv", **options}
    result = run("apply", *(p for k, v in given.items() for p in (f"--{k}", tmp_path / v)))
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert message in line
    assert contents(tmp_path) == before


def test_an_empty_folder_is_filled(apply, tmp_path) -> None:
    decide(tmp_path, image_folder(tmp_path), LABELS)
    (tmp_path / "clean").mkdir()
    result, _ = apply(tmp_path / "images", "--out", tmp_path / "clean")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "clean" / "cat" / "1.png").is_file()


def test_wrong_options_are_refused_before_tensorflow_is_loaded(run, tmp_path, monkeypatch) -> None:
    def fail_to_load(*args: object) -> None:
        pytest.fail("TensorFlow is being loaded.")

    for command in ("apply", "compare"):
        monkeypatch.setattr(f"deel_influence.cli.{command}.start", fail_to_load)
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    missing = tmp_path / "no.csv"
    for arguments in (
        ["apply", "--data", tmp_path / "d.npz", "--decisions", missing, "--out", "c.npz"],
        ["apply", "--data", tmp_path / "d.npz", "--decisions", tmp_path / "d.npz"],
        ["compare", missing, missing],
        ["compare", tmp_path / "d.npz", tmp_path / "d.npz", "--test", "d.npz"],
    ):
        assert run(*arguments).exit_code == 2
