"""Every kind of data source: what it yields, and how it fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from deel_influence.datasets.source import DataSource
from deel_influence.datasets.sources import load_source
from deel_influence.errors import DataSourceError, DeelInfluenceError

X = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
Y = np.arange(10) % 4


def collect(source: DataSource) -> tuple[np.ndarray, np.ndarray]:
    xs, ys = zip(*source.dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(xs), np.concatenate(ys)


def save_npz(folder: Path, **arrays: np.ndarray) -> str:
    np.savez(folder / "data.npz", **arrays)
    return str(folder / "data.npz")


def save_dataset(folder: Path, dataset: tf.data.Dataset) -> str:
    dataset.save(str(folder / "saved"))
    return str(folder / "saved")


def pairs() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X, Y))


SOURCES = {
    "npz": lambda folder: save_npz(folder, x=X, y=Y),
    "npz with training arrays": lambda folder: save_npz(
        folder, x_train=X, y_train=Y, x_test=X[:1], y_test=Y[:1]
    ),
    "saved examples": lambda folder: save_dataset(folder, pairs()),
    "saved batches": lambda folder: save_dataset(folder, pairs().batch(4)),
    "saved full batches": lambda folder: save_dataset(
        folder, pairs().batch(5, drop_remainder=True)
    ),
}


@pytest.mark.parametrize("save", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
def test_a_source_yields_every_example_once_in_order_and_again(save, batch_size, tmp_path):
    source = load_source(save(tmp_path), batch_size)
    for _ in range(2):
        x, y = collect(source)
        np.testing.assert_array_equal(x, X)
        np.testing.assert_array_equal(y, Y)
    sizes = [len(y) for _, y in source.dataset]
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert source.ids is None


def test_one_hot_labels_of_single_saved_examples_are_no_batches(tmp_path):
    one_hot = np.eye(4, dtype=np.float32)[Y]
    dataset = tf.data.Dataset.from_tensor_slices((X, one_hot))
    x, y = collect(load_source(save_dataset(tmp_path, dataset), 4))
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, one_hot)


def test_saved_sample_weights_are_passed_on(tmp_path):
    weights = np.linspace(0, 1, 10, dtype=np.float32)
    dataset = tf.data.Dataset.from_tensor_slices((X, Y, weights))
    source = load_source(save_dataset(tmp_path, dataset), 10)
    np.testing.assert_array_equal(next(iter(source.dataset))[2], weights)


def test_shards_of_a_saved_dataset_come_one_after_the_other(tmp_path):
    folder = str(tmp_path / "saved")
    # Without a fixed order of reading, the shards would be interleaved by number of threads.
    pairs().save(folder, shard_func=lambda _, y: y)
    _, y = collect(load_source(folder, 4))
    np.testing.assert_array_equal(y, np.sort(Y, kind="stable"))


@pytest.mark.parametrize("key", ["ids", "id"])
def test_ids_and_names_of_an_npz_file_are_kept(key, tmp_path):
    path = save_npz(
        tmp_path,
        x=X,
        y=Y,
        class_names=np.array(["a", "b", "c", "d"]),
        feature_names=np.array(["length", "width", "height"]),
        **{key: np.arange(10, dtype=np.int32) * 7},
    )
    source = load_source(path)
    np.testing.assert_array_equal(source.ids, np.arange(10) * 7)
    assert source.ids.dtype == np.int64
    assert source.class_names == ("a", "b", "c", "d")
    assert source.feature_names == ("length", "width", "height")


@pytest.mark.parametrize(
    ("split", "expected"),
    [("", slice(None)), (":train", slice(None)), (":train[5:9]", slice(5, 9))],
)
def test_a_tfds_source_takes_splits_and_parts_of_them(split, expected, prepared_digits):
    source = load_source(f"tfds:digits{split}", data_dir=prepared_digits)
    np.testing.assert_array_equal(collect(source)[1], load_digits().target[expected])
    assert source.class_names == tuple("0123456789")


BAD_ARRAYS = {
    "different lengths": ({"x": X, "y": Y[:7]}, r"`x` and `y`.*10 and 7 rows"),
    "no labels": ({"x": X}, r"must hold arrays `x` and `y`.*\['x'\].*np\.savez"),
    "other names": ({"a": X}, r"none of them"),
    "mixed pairs": ({"x": X, "y_train": Y}, r"\['x', 'y_train'\]"),
    "empty": ({"x": X[:0], "y": Y[:0]}, r"`x`.*at least one\. Received: shape \(0, 3\)"),
    "scalar": ({"x": X, "y": np.array(3)}, r"`y`.*Received: shape \(\)"),
    "dates": ({"x": X, "y": np.zeros(10, "M8[D]")}, r"`y`.*numbers or texts.*datetime64"),
    "another class": (
        {"x": X, "y": np.array(["a"] * 10), "class_names": ["b"]},
        r"among the class names \['b'\].*whose 'y' has \['a'\]",
    ),
    "pickles": ({"x": X, "y": np.array([None] * 10)}, r"without pickled objects.*np\.savez"),
    "repeated ids": ({"x": X, "y": Y, "ids": Y}, r"`ids`.*10 different integers.*4 different"),
    "too few ids": ({"x": X, "y": Y, "id": np.arange(9)}, r"`id`.*shape \(9,\)"),
    "too few features": ({"x": X, "y": Y, "feature_names": ["a"]}, r"1 names for.*\(10, 3\)"),
    "fractional ids": ({"x": X, "y": Y, "ids": np.arange(10.0)}, r"dtype float64"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_a_bad_npz_file_is_refused_with_a_remedy(arrays, message, tmp_path):
    path = save_npz(tmp_path, **arrays)
    with pytest.raises(DataSourceError, match=message):
        load_source(path)


@pytest.mark.parametrize("content", [b"", b"junk" * 100, None], ids=["empty", "junk", "truncated"])
def test_a_corrupt_npz_file_is_named(content, tmp_path):
    path = Path(save_npz(tmp_path, x=X, y=Y))
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    with pytest.raises(DataSourceError, match=r"readable `\.npz` archive.*data\.npz"):
        load_source(str(path))


def test_a_single_array_is_not_taken_for_an_archive(tmp_path):
    with open(tmp_path / "data.npz", "wb") as file:
        np.save(file, X)
    with pytest.raises(DataSourceError, match="must be a readable `.npz` archive of arrays"):
        load_source(str(tmp_path / "data.npz"))


def test_ids_beyond_int64_are_refused(tmp_path):
    ids = np.arange(len(X), dtype=np.uint64) + np.uint64(2**63)
    np.savez(tmp_path / "data.npz", x=X, y=np.zeros(len(X)), ids=ids)
    with pytest.raises(DataSourceError, match=f"`ids` of .* must hold ids of at most {2**63 - 1}"):
        load_source(str(tmp_path / "data.npz"))


BAD_SAVED = {
    "no pairs": (pairs().map(lambda x, y: x), r"tuples \(x, y\)"),
    "four parts": (pairs().map(lambda x, y: (x, y, y, y)), r"tuples \(x, y\)"),
    "empty": (pairs().take(0), r"at least one example"),
}


@pytest.mark.parametrize(("dataset", "message"), BAD_SAVED.values(), ids=BAD_SAVED)
def test_a_saved_dataset_of_another_form_is_refused(dataset, message, tmp_path):
    with pytest.raises(DataSourceError, match=message):
        load_source(save_dataset(tmp_path, dataset))


def test_a_corrupt_saved_dataset_is_named(tmp_path):
    folder = save_dataset(tmp_path, pairs())
    (Path(folder) / "dataset_spec.pb").write_bytes(b"junk")
    with pytest.raises(DataSourceError, match="saved dataset must be readable.*saved"):
        load_source(folder)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.npz", r"must exist\. Received: 'nowhere\.npz'"),
        ("hub:mnist", r"scheme 'hub' is unknown.*only scheme is `tfds:`"),
        ("tfds:no_such_dataset", r"name a dataset of TensorFlow Datasets.*'no_such_dataset'"),
        ("tfds:", r"name a dataset of TensorFlow Datasets. Received: ''"),
        ("tfds:digits:test", r"one that 'digits' has: \['train'\].*Received: 'test'"),
        ("tfds:digits:train[0:0]", r"at least one example"),
    ],
)
def test_an_unknown_source_is_refused_with_a_remedy(source, message, prepared_digits):
    with pytest.raises(DataSourceError, match=message):
        load_source(source, data_dir=prepared_digits)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "data.xls").write_text("1,2\n")
    with pytest.raises(DataSourceError, match=r"ending '\.xls'.*np\.savez"):
        load_source(str(tmp_path / "data.xls"))


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True])
def test_a_batch_size_below_one_is_refused(batch_size):
    with pytest.raises(ValueError, match=r"`batch_size` must be.* at least 1.*Received"):
        load_source("data.npz", batch_size)


def test_data_errors_are_library_errors():
    assert issubclass(DataSourceError, DeelInfluenceError)
    assert issubclass(DataSourceError, ValueError)
