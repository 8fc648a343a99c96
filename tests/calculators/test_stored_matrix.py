"""A matrix of scores on disk is the one in memory, cut off or whole, however it is indexed."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import deel_influence.calculators.parts as parts_module
import deel_influence.calculators.queries as queries_module
from deel_influence.baselines import RepresentationSimilarity
from deel_influence.calculators import InfluenceBlock, StoredMatrix
from deel_influence.errors import DataSourceError
from deel_influence.model import BaseInfluenceModel
from deel_influence.trac_in import GradientDot
from deel_influence.utils import with_ids

N, M, PART = 37, 7, 8
QUERIES_AT_ONCE, VECTOR = 4, 8


def arrays(n: int = N, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    return draws.normal(size=(n, 4)).astype("float32"), draws.integers(0, 3, n)


def batched(x: np.ndarray, y: np.ndarray, size: int = 6) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


TRAIN = batched(*arrays())
QUERIES = batched(*arrays(M, seed=2), 2)


@pytest.fixture(scope="module")
def model() -> BaseInfluenceModel:
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return BaseInfluenceModel(network, loss_function=loss)


@pytest.fixture(scope="module")
def calculator(model) -> GradientDot:
    return GradientDot(model)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Make parts of eight training examples, for four queries at a time."""
    monkeypatch.setattr(queries_module, "MAX_CHUNK_BYTES", QUERIES_AT_ONCE * VECTOR * 4)
    monkeypatch.setattr(parts_module, "PART_BYTES", QUERIES_AT_ONCE * PART * 4)


def stored(calculator, path, train=TRAIN, queries=QUERIES, **ids) -> StoredMatrix:
    return calculator.influence_matrix(queries, train, verbose=0, store=path, **ids)


def files_of(path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


KEYS = {
    "a query": np.s_[3],
    "a pair": np.s_[-1, 2],
    "an example": np.s_[:, -3],
    "a block": np.s_[2:6, 5:30:3],
    "a slice and a list": np.s_[2:5, [36, 0, 0, 17]],
    "a list": np.s_[[6, 0]],
    "a mask": np.s_[1, np.arange(N) % 5 == 2],
    "the last axis": np.s_[..., 4],
    "nothing": np.s_[3:3],
}


@pytest.fixture(scope="module")
def whole(calculator, tmp_path_factory) -> tuple[StoredMatrix, np.ndarray]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queries_module, "MAX_CHUNK_BYTES", QUERIES_AT_ONCE * VECTOR * 4)
        patch.setattr(parts_module, "PART_BYTES", QUERIES_AT_ONCE * PART * 4)
        found = stored(calculator, tmp_path_factory.mktemp("folder") / "matrix")
    assert len(found.tiles) == 2 * 5
    return found, calculator.influence_matrix(QUERIES, TRAIN, verbose=0)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_it_indexes_as_the_array_does(key, whole):
    found, expected = whole
    np.testing.assert_allclose(found[key], expected[key], rtol=1e-5, atol=1e-6)
    assert np.shape(found[key]) == expected[key].shape


def test_it_is_an_array_for_numpy_and_has_ids(whole):
    found, expected = whole
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5, atol=1e-6)
    assert (found.shape, found.dtype, len(found)) == ((M, N), expected.dtype, M)
    assert found.query_ids.tolist() == list(range(M))
    assert found.train_ids.tolist() == list(range(N))
    assert np.asarray(found, "float64").dtype == "float64"
    for key in (M, (0, N), ([0, 1], [2, 3]), (0, 0, 0)):
        with pytest.raises(IndexError):
            found[key]


def test_a_run_that_was_cut_off_goes_on_with_the_same_bytes(calculator, tmp_path, whole):
    complete = stored(calculator, tmp_path / "complete")
    computed: list[int] = []
    most: list[int] = []
    kept = GradientDot._computed

    def counted(self, data, hook, *args, **kwargs):
        for item, values in kept(self, data, hook, *args, **kwargs):
            if hook.__name__ == "_scores_of_batch":
                computed.extend(item.ids.tolist())
            if len(computed) > most[-1]:
                raise KeyboardInterrupt
            yield item, values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GradientDot, "_computed", counted)
        for limit, there in ((20, 2), (45, 5 + 2)):
            most.append(limit)
            with pytest.raises(KeyboardInterrupt):
                stored(calculator, tmp_path / "cut")
            assert len(list((tmp_path / "cut").glob("part-*"))) == there
            with pytest.raises(DataSourceError, match="is not complete"):
                StoredMatrix.load(tmp_path / "cut")
            computed.clear()
        most.append(2 * N)
        stored(calculator, tmp_path / "cut")
        assert computed == list(range(12, N))  # of the second chunk
        computed.clear()
        again = stored(calculator, tmp_path / "cut")
        assert not computed
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "complete")
    np.testing.assert_array_equal(again, complete)


OTHERS = {
    "a label": lambda model: (GradientDot(model), (arrays()[0], 2 - arrays()[1]), arrays(M, 2)),
    "other ids": lambda model: (
        *(GradientDot(model), with_ids(TRAIN.unbatch().batch(6), range(N)[::-1])),
        arrays(M, 2),
    ),
    "fewer examples": lambda model: (GradientDot(model), arrays(36), arrays(M, 2)),
    "queries": lambda model: (GradientDot(model), arrays(), arrays(M, 3)),
    "another method": lambda model: (RepresentationSimilarity(model), arrays(), arrays(M, 2)),
    "another number": lambda model: (GradientDot(model, measurement="margin"), arrays(), None),
}


@pytest.mark.parametrize("name", OTHERS)
def test_scores_of_something_else_are_refused(name, model, calculator, tmp_path):
    stored(calculator, tmp_path / "matrix")
    before = files_of(tmp_path / "matrix")
    other, train, queries = OTHERS[name](model)
    with pytest.raises(DataSourceError, match="^The file must hold a"):
        stored(other, tmp_path / "matrix", train, queries or QUERIES)
    assert files_of(tmp_path / "matrix") == before


def test_a_folder_of_something_else_is_left_alone(calculator, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(DataSourceError, match="^Argument `store` must be a new folder"):
        stored(calculator, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_folder_with_what_another_writer_has_begun_is_as_good_as_new(calculator, tmp_path):
    begun = tmp_path / f".matrix.json.{'0' * 32}.tmp"
    begun.mkdir()
    assert stored(calculator, tmp_path).shape == (M, N)


def test_scores_of_shards_and_of_other_queries_merge_without_being_read(calculator, tmp_path):
    x, y = arrays()
    names = [f"photo {i}" for i in range(N)]
    questions = arrays(M, seed=2)
    matrices = {}
    for shard in (1, 0):
        train = with_ids(batched(x[shard::2], y[shard::2]), names[shard::2])
        for half in (1, 0):
            rows = slice(4 * half, 4 * half + 4)
            queries = with_ids(batched(*(a[rows] for a in questions), 2), list("hgfedcb")[rows])
            path = tmp_path / f"{shard} {half}"
            matrices[shard, half] = stored(calculator, path, train, queries)
    merged = matrices[1, 0].merge(matrices[0, 0]).merge(matrices[0, 1].merge(matrices[1, 1]))
    blocks = {
        place: InfluenceBlock(one.query_ids, one.train_ids, np.asarray(one))
        for place, one in matrices.items()
    }
    expected = blocks[0, 0].merge(blocks[1, 0]).merge(blocks[0, 1].merge(blocks[1, 1]))
    assert merged.query_ids.tolist() == list("bcdefgh")
    np.testing.assert_array_equal(merged.train_ids, expected.train_ids)
    np.testing.assert_array_equal(merged, expected.values)
    np.testing.assert_array_equal(merged[5, 3:9], expected.values[5, 3:9])
    with pytest.raises(ValueError, match="^Argument `other` must have the same queries"):
        merged.merge(matrices[0, 0])


def test_a_damaged_and_a_missing_part_are_told(calculator, tmp_path):
    found = stored(calculator, tmp_path / "matrix")
    one, two = found.tiles[0].part.path, found.tiles[3].part.path
    content = one.read_bytes()
    one.write_bytes(content[:-100])
    with pytest.raises(DataSourceError, match="cannot be read"):
        StoredMatrix.load(tmp_path / "matrix")
    one.write_bytes(content)
    two.unlink()
    with pytest.raises(DataSourceError, match="lacks shard 0: examples 24 to 31"):
        StoredMatrix.load(tmp_path / "matrix")
