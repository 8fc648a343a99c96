"""Tables in CSV and Parquet files, and texts in `.npz` files, as training sets."""

import keras
import numpy as np
import pandas as pd
import pytest

from deel_influence.datasets import load_source
from deel_influence.datasets.table import Columns
from deel_influence.errors import DataSourceError


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": ["m-3", "m-1", "m-7"],
            "length": [1.0, 2.0, 3.0],
            "label": ["spam", "ham", "spam"],
            "caps": [7, 8, 9],
        }
    )


@pytest.fixture(params=[".csv", ".parquet"])
def written(request, tmp_path):
    def write(frame, **options):
        path = tmp_path / f"data{request.param}"
        writer = frame.to_csv if request.param == ".csv" else frame.to_parquet
        writer(path, **options)
        return path

    return write


def test_labels_ids_and_names_are_found(written):
    source = load_source(written(table(), index=False), batch_size=2)
    batches = list(source.dataset)
    assert [len(labels) for _, labels in batches] == [2, 1]
    np.testing.assert_array_equal(batches[0][0], [[1, 7], [2, 8]])
    assert np.concatenate([labels for _, labels in batches]).tolist() == [1, 0, 1]
    assert source.class_names == ("ham", "spam")
    assert source.feature_names == ("length", "caps")
    assert source.ids.tolist() == ["m-3", "m-1", "m-7"]


def test_columns_may_have_other_names(written):
    renamed = table().rename(columns={"label": "kind", "id": "key"})
    source = load_source(written(renamed, index=False), columns=Columns("kind", "key"))
    assert source.ids.tolist() == ["m-3", "m-1", "m-7"]
    assert source.class_names == ("ham", "spam")
    assert source.feature_names == ("length", "caps")


def test_without_ids_positions_are(written):
    source = load_source(written(table().drop(columns="id"), index=False))
    assert source.ids is None


def test_a_column_of_texts_may_be_the_only_input(written):
    texts = keras.Input((), dtype="string")
    model = keras.Model(texts, texts)
    columns = Columns(label="caps", text="label")
    source = load_source(written(table(), index=False), columns=columns, model=model)
    ((inputs, labels),) = source.dataset
    assert inputs.numpy().tolist() == [b"spam", b"ham", b"spam"]
    assert labels.numpy().tolist() == [7, 8, 9]
    assert source.class_names is None
    assert source.feature_names is None


def test_columns_go_to_the_inputs_of_their_names(written):
    caps, length = (keras.Input((1,), name=name) for name in ("caps", "length"))
    model = keras.Model([caps, length], keras.layers.Add()([caps, length]))
    ((inputs, _),) = load_source(written(table(), index=False), model=model).dataset
    assert {name: part.numpy().tolist() for name, part in inputs.items()} == {
        "caps": [7, 8, 9],
        "length": [1, 2, 3],
    }


def test_truth_values_are_two_classes(written):
    source = load_source(written(table().assign(label=[True, False, True]), index=False))
    assert source.class_names == ("False", "True")
    assert next(iter(source.dataset))[1].numpy().tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("change", "columns", "message"),
    [
        (lambda t: t.drop(columns="label"), Columns(), r"label or labels.*--label COLUMN"),
        (lambda t: t, Columns(label="kind"), r"--label .*'kind'.*\['id', 'length', 'label'"),
        (lambda t: t, Columns(id="key"), "--id .*'key'"),
        (lambda t: t, Columns(text="words"), "--text .*'words'"),
        (lambda t: t.assign(id=["a", "b", "a"]), Columns(), r"id of data.*the id 'a' for 2"),
        (lambda t: t.assign(id=[1.5, 2, 3]), Columns(), "an integer or a text.*float64"),
        (lambda t: t.assign(label=["a", None, "b"]), Columns(), "lacks 1 of 3, first in row 1"),
        (lambda t: t.assign(caps=["x", "y", "z"]), Columns(), r"texts or categories in \['caps'\]"),
        (lambda t: t[["id", "label"]], Columns(), "at least one column of inputs"),
        (lambda t: t[:0], Columns(), "at least one row"),
    ],
    ids=[
        *("no labels", "other label", "other id", "other text", "id twice", "fractions as ids"),
        *("missing label", "texts", "no inputs", "empty"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(written, change, columns, message):
    with pytest.raises(DataSourceError, match=message):
        load_source(written(change(table()), index=False), columns=columns)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_damaged_files_are_named(tmp_path, suffix):
    path = tmp_path / f"data{suffix}"
    path.write_bytes(b'\xff\x00"PAR1\n\xfe,,,\n"')
    with pytest.raises(DataSourceError, match=f"readable CSV or Parquet table.*data{suffix}"):
        load_source(path)


def test_texts_in_npz_files_are_inputs_labels_and_ids(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=["one", "two", "three"], y=["b", "a", "b"], ids=["i", "j", "k"])
    source = load_source(path)
    ((inputs, labels),) = source.dataset
    assert inputs.numpy().tolist() == [b"one", b"two", b"three"]
    assert labels.numpy().tolist() == [1, 0, 1]
    assert source.class_names == ("a", "b")
    assert source.ids.tolist() == ["i", "j", "k"]


def test_class_names_in_npz_files_say_the_order(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.zeros((3, 2)), y=["b", "a", "b"], class_names=["b", "a"])
    source = load_source(path)
    assert next(iter(source.dataset))[1].numpy().tolist() == [0, 1, 0]
    assert source.class_names == ("b", "a")
