"""Each kind of target and output gives one label and one prediction per example."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import LabelError
from deel_influence.report import Triage, run_triage
from deel_influence.report.labels import probability_reader, read_labels
from tests.report.fakes import KnownScores, batches, linear_model

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
ONE_HOT = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
SINGLE = np.array([[0.7], [0.3]])

sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
binary = keras.losses.BinaryCrossentropy()
binary_logits = keras.losses.BinaryCrossentropy(from_logits=True)
binary_function = keras.losses.get("binary_crossentropy")
squares = keras.losses.MeanSquaredError()


def own_loss(targets: object, outputs: object) -> object:
    raise NotImplementedError


CLASSES = {
    "class numbers": ([2, 1], LOGITS, sparse, [2, 1], [0, 1]),
    "a column of class numbers": ([[2], [1]], LOGITS, sparse, [2, 1], [0, 1]),
    "class numbers as floats": ([2.0, 1.0], LOGITS, sparse, [2, 1], [0, 1]),
    "one-hot rows": (ONE_HOT, LOGITS, squares, [2, 1], [0, 1]),
    "smoothed rows": (0.9 * ONE_HOT + 0.1 / 3, LOGITS, sparse, [2, 1], [0, 1]),
    "a class per probability": ([0, 1], SINGLE, binary, [0, 1], [1, 0]),
    "a float class per probability": ([0.0, 1.0], SINGLE, binary, [0, 1], [1, 0]),
    "a class per logit": ([0, 1], SINGLE, binary_logits, [0, 1], [1, 1]),
    "a loss function by name": ([0, 1], SINGLE, binary_function, [0, 1], [1, 0]),
    "classes for a loss of one's own": ([False, True], SINGLE, own_loss, [0, 1], [1, 0]),
    "half precision": (tf.constant([2, 1]), tf.cast(LOGITS, tf.bfloat16), sparse, [2, 1], [0, 1]),
    "outputs without an axis of classes": ([0, 1], SINGLE[:, 0], binary, [0, 1], [1, 0]),
}  # fmt: skip

VALUES = {
    "a column of values": ([[1.5], [2.0]], SINGLE, squares),
    "values for a loss of one's own": ([1.5, 2.0], SINGLE, own_loss),
    "whole numbers under squared loss": ([3, 4], SINGLE, squares),
    "whole numbers under a loss by name": ([3, 4], SINGLE, keras.losses.get("mae")),
}

REFUSED = {
    "values for several outputs": (np.zeros((2, 3)), LOGITS, r"shape \(2, 3\) and dtype float64"),
    "positions": (np.zeros((2, 5)), np.zeros((2, 5, 3)), r"outputs of shape \(2, 5, 3\)"),
    "fractions of classes": ([0.5, 1.0], LOGITS, r"shape \(2,\) and dtype float64"),
    "outputs in a dict": ([0, 1], {"a": SINGLE, "b": SINGLE}, "outputs in a dict of 2 parts"),
}


@pytest.mark.parametrize("case", CLASSES.values(), ids=CLASSES)
def test_classes_are_read_as_integers(case: tuple) -> None:
    targets, outputs, loss, expected_labels, expected_predicted = case
    labels, predicted = read_labels(tf.convert_to_tensor(targets), outputs, loss)
    assert labels.dtype == predicted.dtype == np.int64
    assert labels.tolist() == expected_labels
    assert predicted.tolist() == expected_predicted


@pytest.mark.parametrize("case", VALUES.values(), ids=VALUES)
def test_values_are_shown_as_they_are(case: tuple) -> None:
    targets, outputs, loss = case
    labels, predicted = read_labels(np.asarray(targets), outputs, loss)
    assert labels.dtype == predicted.dtype == np.float64
    assert labels.tolist() == np.ravel(targets).tolist()
    assert predicted.tolist() == [0.7, 0.3]


def test_a_batch_of_one_keeps_its_axis() -> None:
    labels, predicted = read_labels(np.array([[1]]), LOGITS[:1], sparse)
    assert labels.shape == predicted.shape == (1,)


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_has_no_single_label_is_refused_with_another_way(case: tuple) -> None:
    targets, outputs, message = case
    targets = np.asarray(targets)
    with pytest.raises(LabelError, match=f"one label per example.*{message}.*calculator.score"):
        read_labels(targets, outputs, sparse)


SOFTMAX = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
SIGMOID = 1 / (1 + np.exp(-SINGLE))
losses = keras.losses
PROBABILITIES = {
    "logits": (LOGITS, sparse, SOFTMAX),
    "probabilities": (SOFTMAX, losses.CategoricalCrossentropy(), SOFTMAX),
    "a focal loss": (LOGITS, losses.CategoricalFocalCrossentropy(from_logits=True), SOFTMAX),
    "a name": (SOFTMAX, "sparse_categorical_crossentropy", SOFTMAX),
    "one logit": (SINGLE, binary_logits, np.hstack([1 - SIGMOID, SIGMOID])),
    "one probability": (SINGLE, binary, np.hstack([1 - SINGLE, SINGLE])),
    "several labels": (LOGITS, binary_logits, None),
    "a hinge": (LOGITS, losses.CategoricalHinge(), None),
    "squares": (SINGLE, squares, None),
    "a loss of one's own": (LOGITS, own_loss, None),
}


@pytest.mark.parametrize(("outputs", "loss", "expected"), PROBABILITIES.values(), ids=PROBABILITIES)
def test_probabilities_are_read_where_the_outputs_say_some(outputs, loss, expected) -> None:
    loss = losses.get(loss) if isinstance(loss, str) else loss
    read = probability_reader(linear_model(np.eye(outputs.shape[1]), loss))
    found = read(tf.constant(outputs, tf.float32))
    assert (found is None) == (expected is None)
    if expected is not None:
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_triage_has_the_probabilities_of_its_labels_and_keeps_them(tmp_path) -> None:
    labels = np.array([2, 1])
    weighted = linear_model(np.eye(3), sparse, class_weight={0: 1.0, 1: 9.0, 2: 1.0})
    first = KnownScores(lambda x, y: x[:, 0])
    triage = run_triage(weighted, first, batches(LOGITS.astype("float32"), labels))
    # The weights of classes scale the losses, and not what the model says.
    np.testing.assert_allclose(triage.given_probability, SOFTMAX[[0, 1], labels], rtol=1e-5)
    np.testing.assert_allclose(triage.predicted_probability, SOFTMAX.max(axis=1), rtol=1e-5)
    triage.to_parquet(tmp_path / "scores.parquet")
    again = Triage.from_parquet(tmp_path / "scores.parquet")
    np.testing.assert_array_equal(again.given_probability, triage.given_probability)
    assert again.to_pandas().columns[-2:].tolist() == ["given_probability", "predicted_probability"]
