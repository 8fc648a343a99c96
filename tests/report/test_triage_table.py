"""Triage scores each example once, ranks it, and survives the way to a file and back."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from deel_influence.errors import (
    DataSourceError,
    EmptyDatasetError,
    LabelError,
    MissingExtraError,
    NonFiniteError,
)
from deel_influence.influence.first_order import FirstOrderInfluenceCalculator
from deel_influence.report.triage import Triage, run_triage
from deel_influence.trac_in.tracin import TracIn
from deel_influence.utils.digests import array_digest
from tests.report.fakes import CountedPasses, KnownScores, batches, linear_model, make_triage

COLUMNS = ["ids", "labels", "predicted", "losses", "scores", "ranks"]
LOGITS_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
FIRST_FEATURE = KnownScores(lambda x, y: x[:, 0])


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(10, 3)).astype("float32"), generator.integers(0, 4, 10)


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(3, 4)).astype("float32")


def test_each_column_is_what_plain_numpy_gives(data, weights) -> None:
    x, y = data
    triage = run_triage(linear_model(weights, LOGITS_LOSS), FIRST_FEATURE, batches(x, y))
    logits = (x @ weights).astype(float)
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(10), y]
    np.testing.assert_array_equal(triage.ids, np.arange(10))
    np.testing.assert_array_equal(triage.labels, y)
    np.testing.assert_array_equal(triage.predicted, logits.argmax(axis=1))
    # The model computes in float32, which has seven digits.
    np.testing.assert_allclose(triage.losses, expected, rtol=1e-5)
    np.testing.assert_array_equal(triage.scores, x[:, 0])
    np.testing.assert_array_equal(triage.ranks[np.argsort(-x[:, 0])], np.arange(1, 11))


def test_the_dataset_is_read_once(data, weights) -> None:
    counted = CountedPasses(*data)
    run_triage(linear_model(weights, LOGITS_LOSS), FIRST_FEATURE, counted.dataset)
    assert counted.num_read == 3


def test_labels_are_what_the_loss_reads(data, weights) -> None:
    x, y = data
    swapped = linear_model(
        weights, LOGITS_LOSS, process_batch_for_loss_fn=lambda batch: (batch[1], batch[0], None)
    )
    calculator = KnownScores(lambda y, x: x[:, 0])
    triage = run_triage(swapped, calculator, batches(y, x))
    np.testing.assert_array_equal(triage.labels, y)


def test_equal_scores_are_ranked_by_id(data, weights) -> None:
    constant = KnownScores(lambda x, y: tf.zeros(tf.shape(y)))
    ids = np.arange(10)[::-1] * 7
    model = linear_model(weights, LOGITS_LOSS)
    triage = run_triage(model, constant, batches(*data), ids=ids)
    np.testing.assert_array_equal(triage.ids, ids)
    np.testing.assert_array_equal(triage.ranks, np.arange(10, 0, -1))


def test_the_most_suspicious_come_in_order_of_score() -> None:
    triage = make_triage(np.zeros(5, int), [0.1, 0.5, 0.3, 0.9, 0.2])
    np.testing.assert_array_equal(triage.most_suspicious(3), [3, 1, 2])
    np.testing.assert_array_equal(triage.most_suspicious(99), [3, 1, 2, 4, 0])


@pytest.mark.parametrize("k", [0, -1, 2.5, True])
def test_a_count_below_one_or_no_integer_is_refused(k: object) -> None:
    with pytest.raises(ValueError, match=r"`k` must be an integer of at least 1\. Received: k="):
        make_triage(np.zeros(2, int), [0.1, 0.2]).most_suspicious(k)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.arange(9), "9 ids for 10 examples"),
        (np.arange(10.0), "dtype float64"),
        (np.array([b"a"] * 10), "the id 'a' for 10 examples"),
        (list("abcdefghii"), "the id 'i' for 2 examples"),
        (np.arange(10).reshape(5, 2), r"shape \(5, 2\)"),
        (np.array([1, 2, 2, 3, 4, 5, 6, 7, 8, 9]), "the id 2 for 2 examples"),
    ],
    ids=["too few", "floats", "bytes", "text twice", "matrix", "twice"],
)
def test_ids_that_do_not_name_the_examples_are_refused(data, weights, ids, message) -> None:
    with pytest.raises(ValueError, match=f"Argument `ids` must .*Received: .*{message}"):
        run_triage(linear_model(weights, LOGITS_LOSS), FIRST_FEATURE, batches(*data), ids=ids)


def test_a_score_that_is_nan_is_refused_with_its_place(data, weights) -> None:
    x, y = data
    x[6, 0] = np.nan
    steady = KnownScores(lambda x, y: x[:, 0])
    with pytest.raises(NonFiniteError, match=r"nan in batch 1 \(counted from 0\), example 2"):
        run_triage(linear_model(weights, LOGITS_LOSS), steady, batches(x, y))


def test_the_scores_are_those_of_the_calculator(data, weights) -> None:
    model = linear_model(weights, LOGITS_LOSS)
    calculator = FirstOrderInfluenceCalculator(model, batches(*data), ihvp_calculator="identity")
    triage = run_triage(model, calculator, batches(*data))
    np.testing.assert_array_equal(triage.scores, calculator.score(batches(*data)).values)


def test_a_calculator_of_another_model_is_refused(data, weights) -> None:
    model, same, other = (linear_model(w, LOGITS_LOSS) for w in (weights, weights, weights + 1))
    calculator = FirstOrderInfluenceCalculator(model, batches(*data), ihvp_calculator="identity")
    assert len(run_triage(same, calculator, batches(*data)).ids) == 10
    with pytest.raises(ValueError, match="`influence_model` must be the model that `calculator`"):
        run_triage(other, calculator, batches(*data))
    # Checkpoints have weights of their own.
    assert len(run_triage(other, TracIn([model, other], 0.1), batches(*data)).ids) == 10


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (lambda x, y: (x * np.nan, y), NonFiniteError, "batch 0 .*first for example 0"),
        (lambda x, y: (x[:0], y[:0]), EmptyDatasetError, "at least one example"),
        (lambda x, y: (x, np.eye(4)[y]), LabelError, r"do not fit the loss .*shape \(\w+, 4\)"),
    ],
    ids=["nan", "empty", "labels"],
)
def test_an_error_of_the_calculator_comes_as_it_is(data, weights, spoil, kind, message) -> None:
    model = linear_model(weights, LOGITS_LOSS)
    calculator = FirstOrderInfluenceCalculator(model, batches(*data), ihvp_calculator="identity")
    with pytest.raises(kind, match=message) as caught:
        run_triage(model, calculator, batches(*spoil(*data)))
    assert "Traceback" not in str(caught.value)


def test_an_error_in_reading_the_data_stays_tensorflows(data, weights) -> None:
    broken = KnownScores(lambda x, y: tf.debugging.check_numerics(x[:, 0] / 0.0, "unreadable"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="unreadable"):
        run_triage(linear_model(weights, LOGITS_LOSS), broken, batches(*data))


def test_an_empty_dataset_is_refused(data, weights) -> None:
    with pytest.raises(EmptyDatasetError, match="`dataset` must yield at least one example"):
        run_triage(linear_model(weights, LOGITS_LOSS), FIRST_FEATURE, batches(*data).take(0))


def test_columns_of_different_lengths_are_refused() -> None:
    columns = dict.fromkeys(COLUMNS, np.zeros(3)) | {"scores": np.zeros(2)}
    with pytest.raises(ValueError, match=r"must all have one shape \(n,\)\. Received: .*\(2,\)"):
        Triage(**columns)


@pytest.mark.parametrize(
    "ids", [list("dcba"), pd.Index(["x", "é", "z", "0"])], ids=["list", "index"]
)
def test_ids_may_be_texts(weights, ids) -> None:
    x = np.ones((4, 3), np.float32)
    model = linear_model(weights, LOGITS_LOSS)
    triage = run_triage(model, FIRST_FEATURE, batches(x, np.arange(4)), ids=ids)
    assert triage.ids.dtype.kind == "U"
    assert triage.ids.tolist() == list(ids)
    # Scores are equal, so that the ids decide.
    assert triage.ids[triage.most_suspicious(4)].tolist() == sorted(ids)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["a"], "1 names for labels from 0 to 1"), ([], "0 names for labels from 0 to 1")],
)
def test_every_class_has_a_name(names: list, message: str) -> None:
    with pytest.raises(ValueError, match=f"`class_names` must name every label.*{message}"):
        replace(make_triage(np.array([0, 1]), [0.1, 0.2]), class_names=names)


def test_a_triage_takes_the_names_of_its_classes(data, weights) -> None:
    names = ["ape", "bee", "cat", "dog"]
    model = linear_model(weights, LOGITS_LOSS)
    triage = run_triage(model, FIRST_FEATURE, batches(*data), class_names=names)
    assert triage.to_pandas()["label_name"].tolist() == [names[label] for label in data[1]]


SMALL = np.array([1, 0, 1, 0])
WEAK = [
    (SMALL, SMALL, None),
    (SMALL, np.array([1, 0, 1, 1]), None),
    (SMALL, np.array([1, 0, 0, 1]), "predicts 50% of the labels .*class would give 50%"),
    # Naming the class that nearly all have is no skill.
    (np.eye(20, dtype=int)[0], np.zeros(20, int), "predicts 95% .* would give 95%"),
    (np.zeros(4, int), np.zeros(4, int), None),
    (SMALL + 0.5, SMALL + 9.0, None),
]


@pytest.mark.parametrize(("labels", "predicted", "expected"), WEAK)
def test_a_model_that_learnt_too_little_is_told(labels, predicted, expected) -> None:
    doubt = make_triage(labels, np.ones(len(labels)), predicted).doubt
    if expected is None:
        assert doubt is None
    else:
        assert re.search(expected, doubt)


@pytest.mark.parametrize(
    ("sure", "expected"),
    [
        (0.59, "Doubt the probabilities: .* 59% on average, .* 75% of the labels"),
        (0.95, "95% on average, .* train it less"),
        (0.5, "train it longer"),
        (0.65, None),
        (0.85, None),
    ],
)
def test_probabilities_that_are_off_are_told(sure: float, expected: str | None) -> None:
    triage = make_triage(SMALL, np.ones(4), np.array([1, 0, 1, 1]))
    chances = {"given_probability": np.zeros(4), "predicted_probability": np.full(4, sure)}
    doubt = replace(triage, **chances).doubt
    assert (doubt is None) if expected is None else re.search(expected, doubt)


def test_a_triage_tells_in_short_what_it_is() -> None:
    triage = replace(make_triage(np.zeros(1000, int), np.arange(1000.0)), class_names=("<ham>",))
    assert repr(triage) == "<Triage of 1000 examples: id 1999 is the most suspicious>"
    page = triage._repr_html_()
    assert page.count("<tr>") == 11
    assert page.index("<td>1999</td>") < page.index("<td>1998</td>")
    assert "&lt;ham&gt;" in page
    assert "<ham>" not in page


def test_csv_and_data_frame_hold_names_beside_numbers(tmp_path: Path) -> None:
    triage = replace(make_triage(np.array([1, 0]), [0.1, 0.5]), class_names=("ham", 'a "b", c'))
    triage.to_csv(tmp_path / "new" / "scores.csv")
    read = pd.read_csv(tmp_path / "new" / "scores.csv")
    pd.testing.assert_frame_equal(read, triage.to_pandas(), check_dtype=False)
    assert read["label_name"].tolist() == ['a "b", c', "ham"]


def test_a_file_without_names_as_earlier_versions_wrote_it_is_read(tmp_path: Path) -> None:
    triage = make_triage(np.array([1, 0]), [0.1, 0.5])
    columns = {name: triage.to_pandas()[name].to_numpy() for name in triage.to_pandas()}
    metadata = {"deel_influence.sha256": array_digest(*columns.values())}
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "old.parquet")
    again = Triage.from_parquet(tmp_path / "old.parquet")
    np.testing.assert_array_equal(again.ids, triage.ids)
    assert again.class_names is None


@pytest.mark.parametrize("column", ["label_name", "id"])
def test_a_text_that_was_changed_is_noticed(tmp_path: Path, column: str) -> None:
    triage = replace(make_triage(np.array([1, 0]), [0.1, 0.5]), class_names=("ham", "spam"))
    replace(triage, ids=np.array(["a", "b"])).to_parquet(tmp_path / "scores.parquet")
    table = pq.read_table(tmp_path / "scores.parquet")
    changed = table.set_column(table.column_names.index(column), column, [["ham", "ham"]])
    pq.write_table(changed, tmp_path / "scores.parquet")
    with pytest.raises(DataSourceError, match="whose checksum is another"):
        Triage.from_parquet(tmp_path / "scores.parquet")


@pytest.mark.parametrize("names", [None, ("ham", "b", "c", "d")])
@pytest.mark.parametrize("ids", [None, np.array(["a", "bc", "d"], "U99")])
@pytest.mark.parametrize("labels", [np.array([3, 1, 2]), np.array([0.5, -1.5, 2.0])])
def test_a_file_gives_back_the_same_triage(tmp_path: Path, labels, ids, names) -> None:
    triage = make_triage(labels, [0.1, 0.5, 0.3])
    triage = triage if ids is None else replace(triage, ids=ids)
    triage = replace(triage, class_names=None if labels.dtype.kind == "f" else names)
    triage.to_parquet(tmp_path / "new folder" / "scores.parquet")
    again = Triage.from_parquet(tmp_path / "new folder" / "scores.parquet")
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(again, name), getattr(triage, name))
        assert getattr(again, name).dtype.kind == getattr(triage, name).dtype.kind
    assert again.class_names == triage.class_names


def test_the_file_has_the_columns_of_the_data_frame(tmp_path: Path) -> None:
    triage = make_triage(np.array([1, 0]), [0.1, 0.5])
    triage.to_parquet(tmp_path / "scores.parquet")
    names = ["id", "label", "predicted", "loss", "score", "rank"]
    assert pq.read_schema(tmp_path / "scores.parquet").names == names
    assert list(triage.to_pandas().columns) == names
    assert triage.to_pandas()["score"].tolist() == [0.1, 0.5]


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path: Path, monkeypatch) -> None:
    triage = make_triage(np.array([1, 0]), [0.1, 0.5])
    triage.to_parquet(tmp_path / "scores.parquet")
    before = (tmp_path / "scores.parquet").read_bytes()

    def write_half(table: pa.Table, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", write_half)
    with pytest.raises(OSError, match="No space left"):
        triage.to_parquet(tmp_path / "scores.parquet")
    assert (tmp_path / "scores.parquet").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["scores.parquet"]


def test_a_file_that_is_no_triage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corrupt.parquet").write_bytes(b"no parquet")
    pq.write_table(pa.table({"id": [1], "score": [0.5]}), tmp_path / "other.parquet")
    for name, message in [
        ("missing.parquet", r"missing\.parquet' \(.*No such file"),
        ("corrupt.parquet", r"corrupt\.parquet' \(Parquet magic bytes"),
        ("other.parquet", r"other\.parquet' without label, loss, predicted, rank"),
    ]:
        with pytest.raises(DataSourceError, match=message):
            Triage.from_parquet(tmp_path / name)


def test_no_flipped_bit_of_a_file_changes_anything_in_silence(tmp_path: Path) -> None:
    triage = make_triage(np.array([3, 1, 2]), [0.1, 0.5, 0.3])
    triage = replace(triage, ids=np.array(["a", "bc", "d"]), class_names=("a", "b", "c", "d"))
    path = tmp_path / "scores.parquet"
    triage.to_parquet(path)
    content, draw, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(300):
        changed = bytearray(content)
        changed[draw.integers(len(changed))] ^= 1 << int(draw.integers(8))
        path.write_bytes(bytes(changed))
        try:
            again = Triage.from_parquet(path)
        except DataSourceError:
            refused += 1
            continue
        for name in COLUMNS:
            np.testing.assert_array_equal(getattr(again, name), getattr(triage, name))
        assert again.class_names == triage.class_names
    assert refused > 0


def test_a_missing_pandas_is_named_with_the_extra_that_installs_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        MissingExtraError, match=r"'pandas'.*pip install \"deel-influence\[report\]\""
    ):
        make_triage(np.array([1]), [0.1]).to_pandas()
