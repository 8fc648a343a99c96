"""Triage scores each example once, ranks it, and survives the way to a file and back."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
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
        (np.arange(10).reshape(5, 2), r"shape \(5, 2\)"),
        (np.array([1, 2, 2, 3, 4, 5, 6, 7, 8, 9]), "the id 2 for 2 examples"),
    ],
    ids=["too few", "floats", "matrix", "twice"],
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


@pytest.mark.parametrize("labels", [np.array([3, 1, 2]), np.array([0.5, -1.5, 2.0])])
def test_a_file_gives_back_the_same_triage(tmp_path: Path, labels: np.ndarray) -> None:
    triage = make_triage(labels, [0.1, 0.5, 0.3])
    triage.to_parquet(tmp_path / "new folder" / "scores.parquet")
    again = Triage.from_parquet(tmp_path / "new folder" / "scores.parquet")
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(again, name), getattr(triage, name))
        assert getattr(again, name).dtype == getattr(triage, name).dtype


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
    assert refused > 0


def test_a_missing_pandas_is_named_with_the_extra_that_installs_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        MissingExtraError, match=r"'pandas'.*pip install \"deel-influence\[report\]\""
    ):
        make_triage(np.array([1]), [0.1]).to_pandas()
