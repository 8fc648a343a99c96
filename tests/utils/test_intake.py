"""Data in every form that `fit` takes become the same batches, with their names."""

import functools
import gc

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from deel_influence.errors import BatchError
from deel_influence.utils.example_ids import ids_of, names_of, with_names
from deel_influence.utils.intake import BATCH_SIZE, as_dataset, with_ids

N = 2 * BATCH_SIZE + 5


def arrays(n: int = N) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(n, 3)).astype("float32"), generator.integers(0, 2, n)


X, Y = arrays()
BATCHES = [(X[i : i + 50], Y[i : i + 50]) for i in range(0, N, 50)]


class InBatches(keras.utils.PyDataset):
    def __len__(self):
        return len(BATCHES)

    def __getitem__(self, index):
        return BATCHES[index]


class Sized:
    """What yields batches anew for each pass, as a loader does."""

    def __len__(self):
        return len(BATCHES)

    def __iter__(self):
        return iter(BATCHES)


def generated():
    yield from BATCHES


FORMS = {
    "arrays": (X, Y),
    "arrays and no weights": (X, Y, None),
    "tensors": (tf.constant(X), tf.constant(Y)),
    "lists of numbers": (X.tolist(), Y.tolist()),
    "data frame": (pd.DataFrame(X, columns=list("abc")), pd.Series(Y)),
    "PyDataset": InBatches(),
    "sized loader": Sized(),
    "list of batches": BATCHES,
    "generator function": generated,
    "partial": functools.partial(iter, BATCHES),
    "tf.data": tf.data.Dataset.from_tensor_slices((X, Y)).batch(50),
}


def joined(dataset):
    parts = list(dataset)
    return [np.concatenate([part[i].numpy() for part in parts]) for i in range(2)]


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_examples_in_their_order(data):
    dataset = as_dataset(data)
    for _ in range(2):
        inputs, labels = joined(dataset)
        np.testing.assert_allclose(inputs, X, rtol=1e-6)
        np.testing.assert_array_equal(labels, Y)
    assert dataset.element_spec[0].shape[1:] == (3,)


@pytest.mark.parametrize("form", ["arrays", "PyDataset", "sized loader", "list of batches"])
def test_the_number_of_batches_is_known_where_it_can_be(form):
    expected = len(BATCHES) if form != "arrays" else 3
    assert int(as_dataset(FORMS[form]).cardinality()) == expected


def test_nests_keep_their_structure():
    data = ({"a": X, "b": [Y, X[:, 0]]}, (Y, Y), np.ones(N))
    inputs, targets, weights = next(iter(as_dataset(data)))
    assert set(inputs) == {"a", "b"}
    assert [tuple(part.shape) for part in inputs["b"]] == [(BATCH_SIZE,)] * 2
    assert len(targets) == 2
    assert weights.shape == (BATCH_SIZE,)


def test_types_are_kept_as_they_are():
    data = (X.astype("float64"), Y.astype("uint8"), tf.ones(N, tf.float16))
    types = [part.dtype for part in next(iter(as_dataset(data)))]
    assert types == [tf.float64, tf.uint8, tf.float16]


def test_texts_become_strings():
    texts = np.array([f"text {i}" for i in range(N)])
    for column in (texts, texts.astype(object), pd.Series(texts), texts.tolist()):
        batch = next(iter(as_dataset((column, Y))))[0]
        assert batch.dtype == tf.string
        assert batch[7].numpy() == b"text 7"


def test_sparse_matrices_become_dense_batch_by_batch():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    inputs, _ = next(iter(as_dataset((scipy_sparse.csr_matrix(X), Y))))
    np.testing.assert_allclose(inputs, X[:BATCH_SIZE])


def model_of_columns() -> keras.Model:
    inputs = {
        "age": keras.Input((1,), name="age"),
        "job": keras.Input((), dtype="string", name="job"),
    }
    return keras.Model(inputs, keras.layers.Dense(1)(inputs["age"]))


def frame() -> pd.DataFrame:
    return pd.DataFrame({"job": ["cook", "smith", "cook"], "age": [30.0, 41.0, 52.0], "pet": 1})


def test_a_data_frame_gives_the_columns_that_the_model_names():
    inputs, _ = next(iter(as_dataset((frame(), [0, 1, 0]), model=model_of_columns())))
    assert set(inputs) == {"age", "job"}
    np.testing.assert_allclose(inputs["age"], [30, 41, 52])
    assert inputs["job"][1].numpy() == b"smith"


def test_a_data_frame_alone_gives_all_columns_by_name():
    batch = next(iter(as_dataset(frame())))
    assert set(batch) == {"age", "job", "pet"}


def test_missing_numbers_become_nan_and_types_of_pandas_numbers():
    columns = pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": [1.5, 2.5]})
    matrix, labels = next(iter(as_dataset((columns, pd.array([0, 1], "Int64")))))
    np.testing.assert_array_equal(matrix, [[1, 1.5], [np.nan, 2.5]])
    assert labels.dtype == tf.int64


@pytest.mark.parametrize(
    ("shape", "expected"), [((1,), (3, 1)), ((), (3,))], ids=["column", "vector"]
)
def test_one_column_of_texts_has_the_shape_that_the_model_takes(shape, expected):
    model = keras.Model(text := keras.Input(shape, dtype="string"), text)
    for column in (frame()["job"], frame()[["job"]]):
        assert next(iter(as_dataset((column, [0, 1, 0]), model=model)))[0].shape == expected


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (None, None),
        ([5, 3, 9], [5, 3, 9]),
        (["x", "y", "z"], ["x", "y", "z"]),
        (pd.date_range("2026-01-01", periods=3), None),
        ([("a", 1), ("a", 2), ("b", 1)], ["('a', 1)", "('a', 2)", "('b', 1)"]),
    ],
    ids=["counting", "integers", "texts", "dates", "two levels"],
)
def test_an_index_gives_the_ids_unless_it_only_counts(index, expected):
    rows = pd.DataFrame({"a": [1.0, 2, 3], "b": [4.0, 5, 6]}, index=index)
    found = ids_of(as_dataset((rows, pd.Series([0, 1, 0], index=index))))
    if isinstance(index, pd.DatetimeIndex):
        expected = [str(date) for date in index]
    assert (found if expected is None else found.tolist()) == expected


def unequal_index(*, one_counts: bool = False):
    rows = pd.DataFrame({"a": [1.0, 2, 3]}, index=[1, 2, 3])
    return rows, pd.Series([0, 1, 0], index=None if one_counts else [3, 2, 1])


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (3, TypeError, "must be a batched tf.data.Dataset, arrays.* Received: int"),
        ("train.csv", TypeError, "Received: str"),
        (generated(), TypeError, "Received: generator, which ends with the first pass. Pass the f"),
        ((X, Y[:7]), ValueError, r"as many labels as inputs. Received: shapes \(261, 3\), \(7,\)"),
        ((X, np.float32(1)), ValueError, r"Received: shapes \(261, 3\), \(\)"),
        (
            ([[1.0], [2.0, 3.0]], [0, 1]),
            ValueError,
            r"an array of objects \(lists of different lengths\)",
        ),
        ((np.array([{}, None]), [0, 1]), ValueError, r"an array of objects \(NoneType, dict\)"),
        (unequal_index(), ValueError, "pandas objects with the same index"),
        (unequal_index(one_counts=True), ValueError, "pandas objects with the same index"),
        (
            (pd.DataFrame({"a": [1.0, 2.0]}, index=[4, 4]), [0, 1]),
            ValueError,
            "or its index, `index` must give every example an id of its own. Received: the id 4 fo",
        ),
    ],
    ids=[
        *("number", "path", "generator", "lengths", "scalar", "ragged lists", "objects"),
        *("two orders", "one order", "index twice"),
    ],
)
def test_what_is_none_of_them_is_refused(data, error, message):
    with pytest.raises(error, match=message) as raised:
        as_dataset(data, "data")
    assert str(raised.value).startswith("Argument `data")


def test_texts_make_no_matrix_for_a_model_and_columns_where_none_is_known():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"texts or categories in \['job'\]. Encode"):
        as_dataset((frame(), [0, 1, 0]), model=model)
    inputs, _ = next(iter(as_dataset((frame(), [0, 1, 0]))))
    assert set(inputs) == {"age", "job", "pet"}


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match=r"without \['age'\], with the columns \['job', 'pet'\]"):
        as_dataset((frame()[["job", "pet"]], [0, 1, 0]), model=model_of_columns())


def test_lengths_that_vary_from_batch_to_batch_are_known_to():
    lengths = [(np.zeros((2, k)), np.zeros(2)) for k in (3, 5, 3)]
    assert as_dataset(lengths).element_spec[0].shape[1] is None
    late = [(np.zeros((2, k)), np.zeros(2)) for k in (3, 3, 5)]
    with pytest.raises(BatchError, match=r"batch 2 \(counting from 0\) of \(2, 5\)"):
        list(as_dataset(late, "data"))


def test_batches_of_other_parts_are_refused():
    with pytest.raises(BatchError, match=r"batch 1 \(counting from 0\) of \(50, 3\) float32"):
        as_dataset([BATCHES[0], (BATCHES[1][0],)])


def test_errors_of_a_generator_come_as_they_are():
    def failing():
        yield from BATCHES[:2]
        message = "no disk"
        raise OSError(message)

    with pytest.raises(OSError, match="no disk"):
        list(as_dataset(failing))


@pytest.mark.parametrize("columns", [["x"], ["a", "b"]], ids=["one input", "several"])
def test_hugging_face_datasets_are_read_by_their_own_means(columns):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({name: X[:, :2].tolist() for name in columns} | {"label": Y})
    inputs, labels = next(iter(as_dataset(data)))
    found = inputs if columns == ["x"] else inputs["a"]
    np.testing.assert_allclose(found, X[:BATCH_SIZE, :2], rtol=1e-6)
    np.testing.assert_array_equal(labels, Y[:BATCH_SIZE])
    with pytest.raises(ValueError, match="must have a column of labels"):
        as_dataset(data.remove_columns("label"))


def test_a_hugging_face_dataset_is_left_as_it_is():
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"x": X.tolist(), "label": Y}).with_format("numpy")
    list(as_dataset(data))
    gc.collect()
    assert data.column_names == ["x", "label"]
    with pytest.raises(TypeError, match=r"must be one split. Received: \['train'\]"):
        as_dataset(datasets.DatasetDict(train=data))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    wide = datasets.Dataset.from_dict({"x": [1.0], "z": [2.0], "label": [0]})
    with pytest.raises(ValueError, match=r"one input. Received: \['x', 'z'\]"):
        as_dataset(wide, model=model)


def test_ids_do_not_come_to_be_on_the_dataset_that_was_given():
    plain = with_names(as_dataset((X[:3], Y[:3])), class_names=("no", "yes"))
    named = with_ids(plain, ["a", "b", "c"])
    assert ids_of(plain) is None
    assert ids_of(named).tolist() == ["a", "b", "c"]
    assert names_of(named).class_names == ("no", "yes")
    assert named.cardinality() == plain.cardinality()


def test_ids_go_with_arrays_too():
    dataset = with_ids((X[:3], Y[:3]), ["a", "b", "c"])
    assert ids_of(dataset).tolist() == ["a", "b", "c"]
