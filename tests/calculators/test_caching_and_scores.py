from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.calculators import CACHE, Scores
from deel_influence.calculators.caching import VectorReader, save_vectors
from deel_influence.calculators.queries import query_chunks
from deel_influence.errors import DatasetOrderError, DataSourceError
from deel_influence.model import InfluenceModel
from deel_influence.trac_in import GradientDot
from deel_influence.utils import memory_limit
from deel_influence.utils.datasets import Item

ORIGIN = "what they were computed with"
VECTORS = np.arange(33.0).reshape(11, 3)


def saved(path, sizes=(4, 4, 3)):
    stops = np.cumsum(sizes)
    parts = [np.arange(stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]
    save_vectors(iter([(ids, tf.constant(VECTORS[ids])) for ids in parts]), path, ORIGIN)
    return path


@pytest.mark.parametrize("sizes", [(4, 4, 3), (11,), (5, 6), (1, 9, 1)])
def test_saved_vectors_line_up_with_batches_of_any_size(tmp_path, sizes):
    reader = VectorReader(saved(tmp_path / "vectors"), ORIGIN)
    start = 0
    for size in sizes:
        ids = np.arange(start, start + size)
        np.testing.assert_array_equal(reader.read(ids), VECTORS[ids])
        start += size


def test_vectors_of_other_examples_are_refused(tmp_path):
    reader = VectorReader(saved(tmp_path / "vectors"), ORIGIN)
    with pytest.raises(DatasetOrderError, match="same examples in the same order"):
        reader.read(np.array([0, 2]))


def test_too_few_saved_vectors_are_refused(tmp_path):
    reader = VectorReader(saved(tmp_path / "vectors"), ORIGIN)
    with pytest.raises(DatasetOrderError, match="same examples in the same order"):
        reader.read(np.arange(12))


def test_a_missing_path_is_refused(tmp_path):
    with pytest.raises(DataSourceError, match="`load_influence_vector_path`.*which has none"):
        VectorReader(tmp_path / "nothing", ORIGIN)


def test_a_directory_of_something_else_is_refused(tmp_path):
    path = saved(tmp_path / "vectors")
    (path / "00000000.npz").write_text("no vectors")
    with pytest.raises(DataSourceError, match=r"00000000.npz', which cannot be read .* again"):
        VectorReader(path, ORIGIN).read(np.arange(3))
    (path / "influence_vectors.json").write_text("no index")
    with pytest.raises(DataSourceError, match=r"vectors.json', which cannot be read .* again"):
        VectorReader(path, ORIGIN)


def test_vectors_of_another_method_or_other_weights_are_refused(tmp_path):
    path = saved(tmp_path / "vectors")
    with pytest.raises(DataSourceError, match="same weights, method and settings"):
        VectorReader(path, "another")


def data(x: np.ndarray, y: np.ndarray, size: int = 4) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


def test_vectors_of_other_data_are_refused_and_other_batches_are_not(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(loss="mse")
    calculator = GradientDot(InfluenceModel(model))
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(11, 3)).astype("float32"), generator.normal(size=(11, 2))
    calculator.compute_influence_vector(data(x, y), tmp_path / "vectors")

    def scores(train_set: tf.data.Dataset) -> np.ndarray:
        ((_, scored),) = calculator.estimate_influence_values_in_batches(
            data(x, y).take(1),
            train_set,
            influence_vector_in_cache=CACHE.DISK,
            load_influence_vector_path=tmp_path / "vectors",
        )
        return np.concatenate([values for _, values in scored], axis=1)

    expected = calculator.influence_matrix(data(x, y).take(1), data(x, y), verbose=0)
    np.testing.assert_allclose(scores(data(x, y, 3)), expected, rtol=1e-5, atol=1e-6)
    corrected, moved = y.copy(), x.copy()
    corrected[9, 1] += 1e-9
    moved[0, 0] += 1
    for others in (data(x, corrected), data(moved, y), data(x[::-1], y[::-1])):
        with pytest.raises(DatasetOrderError, match="inputs and labels. Received: .* others then"):
            scores(others)


def test_vectors_serve_a_copy_of_a_model_with_random_layers(tmp_path):
    layers = keras.layers
    model = keras.Sequential([keras.Input((3,)), layers.Dropout(0.5), layers.Dense(2)])
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for network in (model, copy):
        network.compile(loss="mse")
    x = np.random.default_rng(0).normal(size=(7, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, x[:, :2])).batch(4)
    GradientDot(InfluenceModel(model)).compute_influence_vector(data, tmp_path / "vectors")
    # Dropout in training has moved the random state of one of them.
    copy(x, training=True)
    calculator = GradientDot(InfluenceModel(copy))
    found = calculator.top_k(
        data,
        data,
        2,
        influence_vector_in_cache=CACHE.DISK,
        load_influence_vector_ds_path=tmp_path / "vectors",
    )
    assert [len(values) for _, values, _ in found] == [4, 3]


def test_more_vectors_than_examples_are_refused(tmp_path):
    reader = VectorReader(saved(tmp_path / "vectors"), ORIGIN)
    reader.read(np.arange(5))
    with pytest.raises(DatasetOrderError, match="vectors of more examples"):
        reader.finish()


@pytest.mark.parametrize("name", ["file", "folder"])
def test_what_is_there_already_is_never_deleted(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("more work")
    with pytest.raises(DataSourceError, match="holds something else"):
        saved(tmp_path / name)
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "more work"


def test_saved_vectors_are_replaced_by_newer_ones(tmp_path):
    saved(tmp_path / "vectors")
    reader = VectorReader(saved(tmp_path / "vectors", (11,)), ORIGIN)
    np.testing.assert_array_equal(reader.read(np.arange(11)), VECTORS)


def test_an_interrupted_save_leaves_the_old_vectors(tmp_path):
    path = saved(tmp_path / "vectors")

    def failing():
        yield np.arange(4), tf.constant(VECTORS[:4])
        message = "interrupted"
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="interrupted"):
        save_vectors(failing(), path, ORIGIN)
    ids = np.arange(11)
    np.testing.assert_array_equal(VectorReader(path, ORIGIN).read(ids), VECTORS)
    assert [p.name for p in tmp_path.iterdir()] == ["vectors"]


def test_chunks_of_queries_respect_the_bound_on_memory():
    items = [Item(i, np.arange(2 * i, 2 * i + 2), f"batch {i}") for i in range(5)]
    with memory_limit(400):  # of which a chunk takes a quarter
        chunks = list(query_chunks((item, tf.fill((2, 5), float(item.index))) for item in items))
    # A batch takes 2 · 5 · 4 = 40 bytes, so that two fit.
    assert [len(chunk.batches) for chunk in chunks] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([c.ids for c in chunks]), np.arange(10))
    assert [rows for _, rows in chunks[0].parts()] == [slice(0, 2), slice(2, 4)]


def test_a_batch_of_queries_larger_than_the_bound_is_a_chunk_of_its_own(monkeypatch):
    monkeypatch.setattr("deel_influence.calculators.queries.MAX_CHUNK_BYTES", 1)
    items = [Item(i, np.arange(2), "") for i in range(3)]
    chunks = query_chunks((item, tf.zeros((2, 5))) for item in items)
    assert [len(chunk.batches) for chunk in chunks] == [1, 1, 1]


def scores() -> Scores:
    return Scores(np.array([4, 7, 9, 11]), np.array([0.5, 2.0, 2.0, -1.0]))


def test_scores_open_in_numpy_and_pandas():
    assert np.mean(scores()) == pytest.approx(0.875)
    assert len(scores()) == 4
    series = scores().to_pandas()
    assert series.loc[7] == 2.0
    assert series.index.name == "id"


def test_top_scores_break_ties_by_id():
    best = scores().top_k(3)
    np.testing.assert_array_equal(best.ids, [7, 9, 4])
    np.testing.assert_array_equal(best.values, [2.0, 2.0, 0.5])


def test_shards_of_scores_merge_in_any_order():
    other = Scores(np.array([1, 8]), np.array([3.0, 4.0]))
    for merged in (scores().merge(other), other.merge(scores())):
        np.testing.assert_array_equal(merged.ids, [1, 4, 7, 8, 9, 11])
        np.testing.assert_array_equal(merged.values, [3.0, 0.5, 2.0, 4.0, 2.0, -1.0])


def test_scores_survive_saving(tmp_path):
    path = scores().save(tmp_path / "scores")
    loaded = Scores.load(path)
    np.testing.assert_array_equal(loaded.ids, scores().ids)
    np.testing.assert_array_equal(loaded.values, scores().values)
    assert [p.name for p in tmp_path.iterdir()] == ["scores.npz"]


def test_shards_that_share_an_id_are_not_merged():
    with pytest.raises(ValueError, match=r"1 ids that are in both, such as \[7\]"):
        scores().merge(Scores(np.array([5, 7]), np.zeros(2)))


def test_scores_have_a_value_for_each_id():
    with pytest.raises(ValueError, match=r"shape \(2,\), and ids of shape \(3,\)"):
        Scores(np.arange(3), np.ones(2))


def test_files_that_hold_no_scores_are_refused(tmp_path):
    path = scores().save(tmp_path / "scores")
    np.testing.assert_array_equal(Scores.load(path).ids, scores().ids)
    path.write_bytes(path.read_bytes()[:60])
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    for name in ("scores", "other", "missing"):
        with pytest.raises(DataSourceError, match=f"a file of scores. Received: .*{name}.npz"):
            Scores.load(tmp_path / name)
