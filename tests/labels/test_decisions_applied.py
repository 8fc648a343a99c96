"""Decisions change the labels that they are about in data of every form, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf

from deel_influence.datasets import DataSource
from deel_influence.errors import DatasetOrderError, DecisionsError, LabelError
from deel_influence.labels import Decisions, apply_decisions, run_digest
from deel_influence.utils.example_ids import attach_ids, ids_of
from deel_influence.utils.intake import as_dataset

N = 7
X = np.arange(3.0 * N, dtype="float32").reshape(N, 3)
Y = np.array([0, 1, 2, 0, 1, 2, 0])
AFTER, KEPT = np.array([0, 2, 2, 0, 1, 0]), np.array([0, 1, 2, 3, 4, 6])
NAMES = ("ape", "bee", "cat")
TEXTS = np.array(NAMES)[Y]
INDEX = [f"mail-{i}" for i in range(N)]
FRAME = pd.DataFrame(X, columns=list("abc"))


def decided(ids: Any = range(N), labels: Any = Y, new: str = "2") -> Decisions:
    """The second example gets another label, the sixth goes; two others stay."""
    ids = np.array(list(ids))
    run = run_digest(ids, np.asarray(labels))
    kinds = ["relabel", "drop", "keep", "skip"]
    return Decisions(ids[[1, 5, 0, 2]], kinds, [new, "", "", ""], run)


@dataclass(frozen=True)
class Form:
    """Data, the ids and the name of the new class that they need, and how to read what comes."""

    data: Callable[[], Any]
    x: Callable[[Any], Any]
    y: Callable[[Any], Any]
    ids: Any = range(N)
    new: str = "2"
    options: dict[str, Any] | None = None


def pair(x: Any, y: Any, read: Callable = np.asarray, **others: Any) -> Form:
    return Form(lambda: (x, y), lambda data: read(data[0]), lambda data: read(data[1]), **others)


def of_dataset(make: Callable[[], Any], **others: Any) -> Form:
    def part(i: int) -> Callable:
        return lambda data: np.concatenate([batch[i].numpy() for batch in as_dataset(data)])

    return Form(make, part(0), part(1), **others)


def batched(*parts: Any) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(parts or (X, Y)).batch(3)


def numbers(texts: Any) -> np.ndarray:
    return np.array([NAMES.index(np.array(text).astype(str)) for text in texts])


def text_labels(y: Any, **others: Any) -> Form:
    return Form(
        lambda: (X, y),
        lambda data: data[0],
        lambda data: numbers(list(data[1])),
        **{"new": "cat", **others},
    )


def ragged() -> tf.data.Dataset:
    rows = tf.RaggedTensor.from_row_lengths(np.arange(28), range(1, N + 1))
    return tf.data.Dataset.from_tensor_slices((rows, Y)).ragged_batch(3)


class InBatches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple:
        return X[3 * index : 3 * index + 3], Y[3 * index : 3 * index + 3]


ONE_HOT = np.eye(3, dtype="float32")
FORMS = {
    "arrays": pair(X, Y),
    "small integers": pair(X, Y.astype("int8")),
    "whole floats": pair(X, Y.astype("float32")),
    "a column": pair(X, Y[:, None]),
    "one-hot": Form(lambda: (X, ONE_HOT[Y]), lambda d: d[0], lambda d: d[1].argmax(1)),
    "names of classes": pair(X, Y, new="cat", options={"class_names": NAMES}),
    "texts": text_labels(TEXTS),
    "bytes": text_labels(TEXTS.astype("S")),
    "objects": text_labels(TEXTS.astype(object)),
    "lists": pair(X.tolist(), Y.tolist()),
    "tensors": pair(tf.constant(X), tf.constant(Y)),
    "a dict": Form(lambda: ({"a": X}, Y), lambda data: data[0]["a"], lambda data: data[1]),
    "a list of inputs": Form(lambda: ([X, X], Y), lambda data: data[0][1], lambda data: data[1]),
    "sparse": Form(
        lambda: (scipy.sparse.csr_matrix(X), Y), lambda d: d[0].toarray(), lambda d: d[1]
    ),
    "weights": Form(
        lambda: (X, Y, X[:, 0]), lambda data: data[2][:, None] + [0, 1, 2], lambda d: d[1]
    ),
    "given ids": pair(X, Y, ids=INDEX, options={"ids": INDEX}),
    "pandas": pair(FRAME, pd.Series(Y)),
    "pandas with an index": pair(
        FRAME.set_index(pd.Index(INDEX)), pd.Series(Y, index=INDEX), ids=INDEX
    ),
    "nullable integers": pair(FRAME, pd.Series(Y, dtype="Int64")),
    "categories": text_labels(pd.Series(TEXTS, dtype="category")),
    "one-hot in pandas": Form(
        lambda: (FRAME, pd.DataFrame(ONE_HOT[Y])),
        lambda data: data[0].to_numpy(),
        lambda data: data[1].to_numpy().argmax(1),
    ),
    "one frame": Form(
        lambda: FRAME.assign(label=Y, other=INDEX),
        lambda d: d[list("abc")].to_numpy(),
        lambda d: d["label"],
    ),
    "a column by name": Form(
        lambda: FRAME.assign(kind=TEXTS),
        lambda d: d[list("abc")].to_numpy(),
        lambda d: numbers(d["kind"]),
        new="cat",
        options={"label": "kind"},
    ),
    "tf.data": of_dataset(batched),
    "tf.data with ids": of_dataset(lambda: attach_ids(batched(), INDEX), ids=INDEX),
    "tf.data one-hot": Form(
        lambda: batched(X, ONE_HOT[Y]),
        lambda data: np.concatenate([x for x, _ in data]),
        lambda data: np.concatenate([y for _, y in data]).argmax(1),
    ),
    "a source": of_dataset(
        lambda: DataSource("s", batched(), np.array(INDEX), NAMES, tuple("abc"), tuple(INDEX)),
        ids=INDEX,
        new="cat",
    ),
    "PyDataset": of_dataset(InBatches),
    "a generator": of_dataset(lambda: lambda: (InBatches()[i] for i in range(3))),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_data_of_every_form_are_corrected(form: Form) -> None:
    data = form.data()
    result = apply_decisions(data, decided(form.ids, new=form.new), **form.options or {})
    assert np.asarray(form.y(result)).reshape(-1).tolist() == AFTER.tolist()
    np.testing.assert_array_equal(form.x(result), X[KEPT])
    # What was passed is as it was.
    assert np.asarray(form.y(data)).reshape(-1).tolist() == Y.tolist()
    np.testing.assert_array_equal(form.x(data), X)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_form_and_the_types_stay(form: Form) -> None:
    data = form.data()
    result = apply_decisions(data, decided(form.ids, new=form.new), **form.options or {})
    if isinstance(data, tuple):
        for one, other in zip(result, data, strict=True):
            assert type(one) is type(other)
            assert kind_of(one) == kind_of(other)
    elif isinstance(data, pd.DataFrame):
        assert result.dtypes.tolist() == data.dtypes.tolist()
    elif isinstance(data, DataSource):
        assert result.dataset.element_spec == data.dataset.element_spec
    else:
        assert result.element_spec == as_dataset(data).element_spec


def kind_of(part: Any) -> str:
    """The type of the elements, of texts without their length."""
    return getattr(getattr(part, "dtype", None), "kind", str(getattr(part, "dtype", "")))


def test_names_go_with_what_comes_of_a_source() -> None:
    source = DataSource("s", batched(), np.array(INDEX), NAMES, tuple("abc"), tuple(INDEX))
    result = apply_decisions(source, decided(INDEX, new="cat"))
    left = [INDEX[i] for i in KEPT]
    assert result.ids.tolist() == ids_of(result.dataset).tolist() == left
    assert result.file_names == tuple(left)
    assert (result.class_names, result.feature_names) == (NAMES, tuple("abc"))


def test_ids_of_a_dataset_go_with_what_comes_of_it() -> None:
    result = apply_decisions(batched(), decided())
    assert ids_of(result).tolist() == KEPT.tolist()


@pytest.mark.parametrize(
    ("options", "kept", "labels"),
    [
        ({}, KEPT, AFTER),
        ({"drop": False}, np.arange(N), [0, 2, 2, 0, 1, 2, 0]),
        ({"relabel": False}, KEPT, Y[KEPT]),
        ({"drop": False, "relabel": False}, np.arange(N), Y),
    ],
)
@pytest.mark.parametrize("make", [lambda: (X, Y), lambda: batched()], ids=["arrays", "tf.data"])
def test_each_kind_of_decision_can_be_left_out(make, options, kept, labels) -> None:
    data = apply_decisions(make(), decided(), **options)
    x, y = data if isinstance(data, tuple) else map(np.concatenate, zip(*data, strict=True))
    np.testing.assert_array_equal(x, X[kept])
    np.testing.assert_array_equal(y, labels)


def test_examples_of_varying_length_stay_as_they_are() -> None:
    result = apply_decisions(ragged(), decided())
    rows = [row.tolist() for x, _ in result for row in x.numpy()]
    expected = [row.tolist() for x, _ in ragged() for row in x.numpy()]
    assert rows == [expected[i] for i in KEPT]
    assert np.concatenate([y for _, y in result]).tolist() == AFTER.tolist()


def test_a_batch_of_which_nothing_stays_is_left_out() -> None:
    decisions = Decisions(["3", "4", "5"], ["drop"] * 3, [""] * 3, run_digest(np.arange(N), Y))
    assert [len(y) for _, y in apply_decisions(batched(), decisions)] == [3, 1]


def test_what_comes_of_a_dataset_can_be_trained_on() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(apply_decisions(batched(), decided()), shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_a_class_may_be_one_that_no_example_has() -> None:
    decisions = decided(labels=Y, new="dog")
    _, y = apply_decisions((X, Y), decisions, class_names=[*NAMES, "dog"])
    assert y[1] == 3
    _, rows = apply_decisions((X, np.eye(4)[Y]), decided(new="3"))
    assert rows[1].tolist() == [0, 0, 0, 1]


def test_labels_below_zero_are_classes_where_they_occur() -> None:
    signs = np.where(Y == 0, -1, 1)
    _, y = apply_decisions((X, signs), decided(labels=signs, new="-1"))
    assert y.tolist() == [-1, -1, 1, -1, 1, -1]
    with pytest.raises(DecisionsError, match=r"a class of the data \(-1, 1\)"):
        apply_decisions((X, signs), decided(labels=signs, new="0"))


def test_examples_with_values_can_go_and_get_no_class() -> None:
    values = Y + 0.5
    run = run_digest(np.arange(N), values)
    _, y = apply_decisions((X, values), Decisions(["5"], ["drop"], [""], run))
    assert y.tolist() == values[KEPT].tolist()
    with pytest.raises(DecisionsError, match="a class of the data"):
        apply_decisions((X, values), decided(labels=values, new="1"))


HOSTILE = ["=1+1", "\x1b[2J", "../../../etc/passwd", "a,b", 'c"d', "e\nf", "<b>"]


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_hostile_names_come_through_the_file(ending: str, tmp_path) -> None:
    names = [f"{name}?" for name in HOSTILE]
    run = run_digest(np.array(HOSTILE), np.arange(N))
    decisions = Decisions(HOSTILE, ["relabel"] * N, names[1:] + names[:1], run)
    read = Decisions.load(decisions.save(tmp_path / f"d.{ending}"))
    _, y = apply_decisions((X, np.arange(N)), read, ids=HOSTILE, class_names=names)
    assert y.tolist() == [1, 2, 3, 4, 5, 6, 0]


def changed(**columns: Any) -> Decisions:
    good = decided()
    values = {"ids": good.ids, "decisions": good.decisions, "labels": good.labels, "run": good.run}
    return Decisions(**{**values, **columns})


REFUSED = {
    "another run": ({"run": "f" * 16}, "with these labels.*of the run 'f{16}'"),
    "unknown ids": ({"ids": ["1", "99", "../1", "2"]}, r"line 2 \('99': drop\); line 3 \('\.\./1'"),
    "an unknown class": (
        {"labels": ["9", "", "", ""]},
        r"class of the data \(0, 1, 2\).*line 1 .*'9'",
    ),
    "a class by its name": ({"labels": ["cat", "", "", ""]}, "line 1 .*'cat'"),
    "half a class": ({"labels": ["1.5", "", "", ""]}, "line 1 .*'1.5'"),
    "an escape": ({"ids": ["\x1b[2J", "1", "2", "3"]}, r"'\\x1b\[2J'"),
}


@pytest.mark.parametrize(("columns", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("make", [lambda: (X, Y), lambda: batched()], ids=["arrays", "tf.data"])
def test_what_is_not_about_the_data_is_refused_whole(make, columns, message) -> None:
    with pytest.raises(DecisionsError, match=message) as error:
        apply_decisions(make(), changed(**columns))
    assert "\n" not in str(error.value)


def test_one_example_in_two_writings_is_refused() -> None:
    ids = np.array(["=a", *INDEX[1:]])
    decisions = Decisions(["=a", "'=a"], ["drop", "keep"], ["", ""], run_digest(ids, Y))
    with pytest.raises(DecisionsError, match="each example once.*line 1 .*line 2 "):
        apply_decisions((X, Y), decisions, ids=ids)


def test_decisions_fit_their_data_alone() -> None:
    for data in [(X, Y[::-1]), (X[:6], Y[:6]), (X, np.where(Y == 1, 0, Y))]:
        with pytest.raises(DecisionsError, match="Pass the data that the run was made from"):
            apply_decisions(data, decided())
    with pytest.raises(DecisionsError, match="same ids"):
        apply_decisions((X, Y), decided(), ids=INDEX)


BAD_DATA = {
    "reshuffled": (lambda: batched().unbatch().shuffle(N, seed=0).batch(N), DatasetOrderError),
    "no labels": (lambda: tf.data.Dataset.from_tensor_slices(X).batch(3), TypeError),
    "no labels in arrays": (lambda: X, TypeError),
    "no column of labels": (lambda: FRAME, LabelError),
    "more inputs": (lambda: (np.zeros((9, 3)), Y), ValueError),
    "several labels": (lambda: (X, X), LabelError),
    "labels in a dict": (lambda: (X, {"a": Y}), TypeError),
}


@pytest.mark.parametrize(("make", "error"), BAD_DATA.values(), ids=BAD_DATA)
def test_data_that_cannot_be_decided_about_are_refused(make, error) -> None:
    with pytest.raises(error):
        apply_decisions(make(), decided())
