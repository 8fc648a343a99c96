"""Tables in CSV and Parquet files, and texts in `.npz` files, as training sets."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

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
        (lambda t: t[["id", "label"]], Columns(), "at least one column of inputs"),
        (lambda t: t[:0], Columns(), "at least one row"),
    ],
    ids=[
        *("no labels", "other label", "other id", "other text", "id twice", "fractions as ids"),
        *("missing label", "no inputs", "empty"),
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


def test_queries_are_numbered_by_the_classes_of_the_training_set(written):
    few = table().assign(label=["spam", "spam", "spam"])
    source = load_source(written(few, index=False), class_names=("eggs", "ham", "spam"))
    assert next(iter(source.dataset))[1].numpy().tolist() == [2, 2, 2]
    with pytest.raises(DataSourceError, match=r"among the class names \['eggs'\].*'spam'"):
        load_source(written(few, index=False), class_names=["eggs"])


def test_categories_keep_their_order(tmp_path):
    kinds = pd.CategoricalDtype(["spam", "ham", "eggs"])
    table().astype({"label": kinds}).to_parquet(tmp_path / "data.parquet")
    source = load_source(tmp_path / "data.parquet")
    assert source.class_names == ("spam", "ham", "eggs")
    assert next(iter(source.dataset))[1].numpy().tolist() == [0, 1, 0]


def test_ids_and_classes_are_read_as_they_are_written(tmp_path):
    frame = table().assign(id=["0001", "0002", "0010"], label=["NA", "None", "NA"])
    frame.to_csv(tmp_path / "data.csv", index=False)
    source = load_source(tmp_path / "data.csv")
    assert source.ids.tolist() == ["0001", "0002", "0010"]
    assert source.class_names == ("NA", "None")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_and_an_index_column_are_found(tmp_path, separator):
    table().drop(columns="id").to_csv(tmp_path / "data.csv", sep=separator)
    source = load_source(tmp_path / "data.csv")
    assert source.feature_names == ("length", "caps")
    assert source.ids is None


def test_the_index_of_a_parquet_file_gives_the_ids(tmp_path):
    frame = table().drop(columns="id")
    frame.set_axis(["u", "v", "w"]).to_parquet(tmp_path / "data.parquet")
    assert load_source(tmp_path / "data.parquet").ids.tolist() == ["u", "v", "w"]
    named = frame.set_axis(pd.Index([5, 3, 4], name="id"))
    named.to_parquet(tmp_path / "named.parquet")
    assert load_source(tmp_path / "named.parquet").ids.tolist() == [5, 3, 4]


def test_missing_labels_of_any_type_are_told(tmp_path):
    for missing in (pd.array(["a", pd.NA, "b"], "string"), pd.array([1, pd.NA, 0], "Int64")):
        table().assign(label=missing).to_parquet(tmp_path / "data.parquet")
        with pytest.raises(DataSourceError, match="lacks 1 of 3, first in row 1"):
            load_source(tmp_path / "data.parquet")


def test_image_folders_and_arrays_take_the_classes_of_the_training_set(tmp_path):
    (tmp_path / "images" / "bee").mkdir(parents=True)
    pixels = tf.zeros((2, 2, 3), tf.uint8)
    (tmp_path / "images" / "bee" / "1.png").write_bytes(tf.io.encode_png(pixels).numpy())
    source = load_source(tmp_path / "images", class_names=["ant", "bee"])
    assert next(iter(source.dataset))[1].numpy().tolist() == [1]
    with pytest.raises(DataSourceError, match=r"among the classes \['ant'\]. Received.*'bee'"):
        load_source(tmp_path / "images", class_names=["ant"])
    np.savez(tmp_path / "data.npz", x=np.zeros((1, 2)), y=["bee"])
    source = load_source(tmp_path / "data.npz", class_names=["ant", "bee"])
    assert next(iter(source.dataset))[1].numpy().tolist() == [1]


def test_missing_texts_are_told(tmp_path):
    frame = table().assign(words=["a film", None, "None"])
    frame.to_csv(tmp_path / "data.csv", index=False)
    with pytest.raises(DataSourceError, match="Texts must not .*'words' lacks 1 of 3.* row 1"):
        load_source(tmp_path / "data.csv", columns=Columns(text="words"))
