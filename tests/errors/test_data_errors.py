"""Data that cannot be used, each refused in one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from deel_influence.errors import (
    BatchError,
    DatasetOrderError,
    DataSourceError,
    EmptyDatasetError,
    InfiniteDatasetError,
    LabelError,
    NonFiniteError,
    NotBatchedError,
)
from tests.errors.small import D, N, Row, Small, X, Y, batches, check_row, row

RAGGED = tf.ragged.constant([[1.0], [2.0, 3.0]] * (N // 2))
TEXTS = np.full((N, D), "a")


def ragged_labels() -> tf.data.Dataset:
    return batches(X, tf.ragged.constant([[0], [1, 2]] * (N // 2)))


def ragged_weights() -> tf.data.Dataset:
    return batches(X, Y, RAGGED)


def generated(function: Any) -> tf.data.Dataset:
    spec = (tf.TensorSpec((None, D)), tf.TensorSpec((None,), tf.int64))
    return tf.data.Dataset.from_generator(function, output_signature=spec)


def uneven() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield X[:4], Y[:8]


def broken() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield X[:4], Y[:4]
    message = "the disk is gone"
    raise RuntimeError(message)


def with_hook(function: Any) -> Any:
    return lambda s: s.score(process_batch_for_loss_fn=function)


HOOK = "`process_batch_for_loss_fn`"

ROWS: dict[str, Row] = {
    "a number": row(lambda s: s.score(3), TypeError, "`train_set`", "int"),
    "sparse tensors for a dense input": row(
        lambda s: s.score(batches(tf.sparse.from_dense(X), Y)),
        BatchError,
        "sparse=True",
        "to_dense",
    ),
    "single examples": row(
        lambda s: s.score(batches().unbatch()), NotBatchedError, "Add .batch(128)"
    ),
    "a table with its labels": row(
        lambda s: s.score(pd.DataFrame(X, columns=list("abcd")).assign(label=Y)),
        LabelError,
        "['a', 'b', 'c', 'd', 'label'] alone",
        "(features, labels) as a tuple",
    ),
    "single examples, one-hot": row(
        lambda s: s.score(batches(X, np.eye(3)[Y]).unbatch()), NotBatchedError, ".batch(128)"
    ),
    "16 inputs with 8 labels": row(
        lambda s: s.score(tf.data.Dataset.from_tensors((X[:8], Y[:4]))), LabelError, "as inputs"
    ),
    "fewer labels, not known before": row(
        lambda s: s.score(generated(uneven)), LabelError, "`train_set`", "(4, 4), (8,)"
    ),
    "fewer weights": row(
        lambda s: s.score(process_batch_for_loss_fn=lambda b: (*b, tf.ones(2))),
        LabelError,
        "2 sample weights",
    ),
    "without end": row(
        lambda s: s.score(s.data.repeat()), InfiniteDatasetError, "Remove .repeat()"
    ),
    "nothing": row(lambda s: s.score(s.data.take(0)), EmptyDatasetError, "`train_set`"),
    "another order each time": row(
        lambda s: s.calculator.influence_matrix(s.data.unbatch().shuffle(N).batch(6), s.data),
        DatasetOrderError,
        "reshuffle_each_iteration=False",
    ),
    "ragged inputs": row(lambda s: s.score(batches(RAGGED, Y)), LabelError, "ragged", "to_tensor"),
    "ragged labels": row(lambda s: s.score(ragged_labels()), LabelError, "labels", "ragged"),
    "ragged weights": row(lambda s: s.score(ragged_weights()), LabelError, "weights", "ragged"),
    "ragged, in a fit": row(
        lambda s: type(s.calculator)(s.model, batches(RAGGED, Y)), LabelError, "ragged"
    ),
    "ragged, for queries": row(
        lambda s: s.calculator.influence_matrix(batches(RAGGED, Y), s.data), LabelError, "ragged"
    ),
    "texts as inputs": row(lambda s: s.score(batches(TEXTS, Y)), BatchError, "string"),
    "texts as labels": row(lambda s: s.score(batches(X, TEXTS[:, 0])), LabelError, "StringLookup"),
    "texts as weights": row(
        lambda s: s.score(batches(X, Y, TEXTS[:, 0])), LabelError, "weights", "to_number"
    ),
    "another width": row(lambda s: s.score(batches(X[:, :3], Y)), BatchError, "(6, 3)"),
    "another rank": row(lambda s: s.score(batches(X[:, None], Y)), BatchError, "(None, 4)"),
    "another width of queries": row(
        lambda s: s.calculator.influence_matrix(batches(X[:, :3], Y), s.data), BatchError, "inputs"
    ),
    "another width in a fit": row(
        lambda s: type(s.calculator)(s.model, batches(X[:, :3], Y)), BatchError, "inputs"
    ),
    "inputs in a dict": row(lambda s: s.score(batches({"a": X}, Y)), BatchError, "structure"),
    "inputs alone": row(
        lambda s: s.score(tf.data.Dataset.from_tensor_slices(X).batch(6)),
        BatchError,
        "process_batch_for_loss_fn",
    ),
    "four parts": row(lambda s: s.score(batches(X, Y, Y, Y)), BatchError, "a tuple of 4 parts"),
    "a dict": row(
        lambda s: s.score(tf.data.Dataset.from_tensor_slices({"x": X, "y": Y}).batch(6)),
        BatchError,
        "a dict of 2 parts",
    ),
    "one-hot rows for indices": row(
        lambda s: s.score(batches(X, np.eye(3, dtype=np.float32)[Y])), LabelError, "class indices"
    ),
    "a class too many": row(lambda s: s.score(batches(X, Y + 1)), BatchError, "label value of 3"),
    "a class below zero": row(lambda s: s.score(batches(X, Y - 1)), BatchError, "-1"),
    "a class below zero in the first data that a model sees": row(
        lambda s: s.score(batches(X, Y - 1), start_layer=-1), LabelError, "-1"
    ),
    "a class too many, later": row(
        lambda s: s.score(batches(X, np.where(np.arange(N) < N - 1, Y, 9))), BatchError, "batch 1"
    ),
    "weights in two columns": row(
        lambda s: s.score(batches(X, Y, X[:, :2])), LabelError, "Sample weights"
    ),
    "weights in a dict": row(
        lambda s: s.score(batches(X, Y, {"a": X[:, 0]})), LabelError, "sample_weight", "['a']"
    ),
    "not a number": row(
        lambda s: s.score(batches(X * np.nan, Y)), NonFiniteError, "batch 0", "example 0"
    ),
    "infinity, later": row(
        lambda s: s.score(batches(np.where(np.arange(N)[:, None] == 8, np.inf, X), Y)),
        NonFiniteError,
        "example 8",
    ),
    "not a number as weight": row(
        lambda s: s.score(batches(X, Y, X[:, 0] * np.nan)), NonFiniteError, "batch 0"
    ),
    "a generator that fails": row(
        lambda s: s.score(generated(broken)), DataSourceError, "`train_set`", "the disk is gone"
    ),
    "a file that is missing": row(
        lambda s: s.score(tf.data.TFRecordDataset("no.tfrecord").map(lambda _: (X[0], 0)).batch(2)),
        DataSourceError,
        "no.tfrecord",
    ),
    "a function that fails": row(
        lambda s: s.score(s.data.map(lambda x, y: (tf.debugging.check_numerics(x / 0, "oh"), y))),
        DataSourceError,
        "oh",
    ),
    "a hook that is none": row(with_hook(3), TypeError, HOOK, "int"),
    "a hook that returns a pair": row(
        with_hook(lambda b: b), BatchError, HOOK, "2 parts", "(x, y, None)"
    ),
    "a hook that returns nothing": row(with_hook(lambda b: None), BatchError, HOOK, "NoneType"),
    "a hook that returns a dict": row(
        with_hook(lambda b: {"x": b[0], "y": b[1], "w": None}), BatchError, HOOK, "a dict of 3"
    ),
    "a hook that returns the inputs": row(with_hook(lambda b: b[0]), BatchError, HOOK, "Tensor"),
    "ids that are floats": row(
        lambda s: s.calculator.score(s.data, id_fn=lambda b: b[0][:, 0]), ValueError, "`id_fn`"
    ),
    "ids of another number": row(
        lambda s: s.calculator.score(s.data, id_fn=lambda b: b[1][:1]), ValueError, "`id_fn`"
    ),
    "one id for two": row(
        lambda s: s.calculator.compute_top_k_from_training_dataset(s.data, 9, id_fn=lambda b: b[1]),
        ValueError,
        "`id_fn`",
        "an id of its own",
    ),
    "class weights beside weights": row(
        lambda s: s.score(batches(X, Y, X[:, 0]), class_weight={0: 2.0}), LabelError, "Multiply"
    ),
}


@pytest.mark.parametrize("case", ROWS.values(), ids=ROWS)
def test_data_that_cannot_be_used_are_refused_in_one_line(case: Row, small: Small) -> None:
    check_row(case, small)
