"""An index gives the scores of the calculator, whatever is kept, cut off, or built by others."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.baselines import KNNShapley, RepresentationSimilarity
from deel_influence.errors import DataSourceError
from deel_influence.influence import FirstOrderInfluenceCalculator, NewtonStepInfluenceCalculator
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from deel_influence.rps import RepresenterPointL2
from deel_influence.store import Index, QueryVectors, build_index
from deel_influence.trac_in import TracIn
from deel_influence.trak import TRAK
from deel_influence.utils import ORDER, with_ids

N, M = 37, 5
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SAME = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}  # 2⁻¹¹ and 2⁻⁸ for each product


def arrays(n: int = N, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    return draws.normal(size=(n, 4)).astype("float32"), draws.integers(0, 3, n)


def batched(x: np.ndarray, y: np.ndarray, size: int = 6) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


TRAIN = batched(*arrays())
QUERIES = batched(*arrays(M, seed=2))


@pytest.fixture(scope="module")
def model() -> BaseInfluenceModel:
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(6, "tanh"), keras.layers.Dense(3)]
    )
    return BaseInfluenceModel(network, loss_function=LOSS)


def last_layer(model: BaseInfluenceModel) -> BaseInfluenceModel:
    return InfluenceModel(model.model, start_layer=-1, loss_function=LOSS)


def first_order(model: BaseInfluenceModel, strategy: str = "logra", **settings):
    return FirstOrderInfluenceCalculator(model, TRAIN, strategy, seed=0, **settings)


CALCULATORS = {
    "logra": first_order,
    "ekfac": lambda model: first_order(model, "ekfac"),
    "cgd, which goes over the data": lambda model: first_order(model, "cgd"),
    "normalized": lambda model: first_order(model, normalize=True),
    "margin": lambda model: first_order(model, measurement="margin"),
    "Newton step": lambda model: NewtonStepInfluenceCalculator(last_layer(model), TRAIN),
    "TracIn": lambda model: TracIn([model, model], [0.1, 0.2]),
    "features": lambda model: RepresentationSimilarity(model, metric="dot"),
    "cosines of features": RepresentationSimilarity,
    "TRAK": lambda model: TRAK(model, TRAIN, projection_dim=8, damping="auto", verbose=0),
}


@pytest.mark.parametrize("name", CALCULATORS)
def test_scores_are_those_of_the_calculator(name, model, tmp_path):
    calculator = CALCULATORS[name](model)
    index = build_index(calculator, TRAIN, tmp_path / "index", "float32", part_size=8, verbose=0)
    expected = calculator.influence_matrix(QUERIES, TRAIN, verbose=0)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(index.scores(QUERIES).values, expected, atol=1e-5 * scale)
    found = index.top_k(QUERIES, 4)
    best = np.argsort(-expected, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(found.train_ids, best)
    if name == "TracIn":
        with pytest.raises(DataSourceError, match="has parts without scores"):
            index.self_scores()
    elif name != "TRAK":
        own = calculator.score(TRAIN, verbose=0).values
        np.testing.assert_allclose(index.self_scores().values, own, rtol=1e-5)


@pytest.mark.parametrize("dtype", SAME)
def test_small_numbers_keep_the_scores_within_their_rounding(dtype, model, tmp_path):
    calculator = first_order(model)
    index = build_index(calculator, TRAIN, tmp_path / "index", dtype, verbose=0)
    expected = calculator.influence_matrix(QUERIES, TRAIN, verbose=0)
    asked = QueryVectors.of(calculator, QUERIES, verbose=0)
    # |q · (v + e)| - |q · v| is at most |q| |v| times the rounding.
    kept = build_index(calculator, TRAIN, tmp_path / "exact", "float32", verbose=0)
    (part,) = [part for part in kept.parts if len(part)]
    lengths = part.read(kept.header)[1]["lengths"]
    bound = SAME[dtype] * np.linalg.norm(asked.vectors, axis=1)[:, None] * lengths
    assert np.all(np.abs(index.scores(asked).values - expected) <= bound)


def test_a_vector_of_zeros_and_huge_ones_are_kept(model, tmp_path):
    x, y = arrays()
    weights = np.ones(N, "float32")
    weights[3], weights[5] = 0, 1e12
    data = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(7)
    calculator = first_order(model, "identity")
    index = build_index(calculator, data, tmp_path / "index", verbose=0)
    expected = calculator.influence_matrix(QUERIES, data, verbose=0)
    found = index.scores(QUERIES).values
    assert not found[:, 3].any()
    np.testing.assert_allclose(found[:, 5], expected[:, 5], rtol=2e-3)


def test_nothing_but_the_folder_and_saved_queries_is_needed(model, tmp_path):
    calculator = first_order(model)
    build_index(calculator, TRAIN, tmp_path / "index", verbose=0)
    asked = QueryVectors.of(calculator, with_ids(QUERIES, list("abcde")), verbose=0)
    path = asked.save(tmp_path / "queries")
    index, loaded = Index(tmp_path / "index"), QueryVectors.load(path)
    found = index.top_k(loaded, 3, ORDER.ASCENDING)
    assert found.query_ids.tolist() == list("abcde")
    worst = np.argsort(index.scores(loaded).values, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(found.train_ids, worst)
    halves = [QueryVectors(asked.ids[i], asked.vectors[i], asked.origin) for i in ([3, 1], [4, 0])]
    merged = halves[0].merge(halves[1])
    assert merged.ids.tolist() == ["a", "b", "d", "e"]
    np.testing.assert_array_equal(merged.vectors, asked.vectors[[0, 1, 3, 4]])
    with pytest.raises(ValueError, match="^Argument `other`"):
        asked.merge(asked)
    with pytest.raises(TypeError, match="^Argument `queries` must be QueryVectors"):
        index.top_k(QUERIES)


@pytest.mark.parametrize("order", list(ORDER))
def test_candidates_are_ranked_by_the_calculator_that_decides(order, model, tmp_path):
    names = [f"photo {i}" for i in range(N)]
    train = with_ids(TRAIN, names)
    cheap, costly = first_order(model, "identity"), first_order(model, "ekfac")
    index = build_index(cheap, train, tmp_path / "index", verbose=0)
    expected = costly.find_top_k(QUERIES, train, 3, order, verbose=0)
    found = index.refined_top_k(QUERIES, costly, train, 3, N, order, verbose=0)
    np.testing.assert_array_equal(found.train_ids, expected.train_ids)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-5)
    proposed = np.unique(index.top_k(QUERIES, 4, order).train_ids)
    found = index.refined_top_k(QUERIES, costly, train, 3, 4, order, verbose=0)
    assert len(proposed) < N
    everything = costly.find_top_k(QUERIES, train, N, order, verbose=0)
    for row, ranked in zip(found.train_ids, everything.train_ids, strict=True):
        assert row.tolist() == [name for name in ranked if name in proposed][:3]


def test_what_cannot_be_refined_is_refused(model, tmp_path):
    calculator = first_order(model)
    index = build_index(calculator, TRAIN, tmp_path / "index", verbose=0)
    asked = QueryVectors.of(calculator, QUERIES, verbose=0)
    with pytest.raises(TypeError, match="^Argument `queries` must be data"):
        index.refined_top_k(asked, calculator, TRAIN)
    with pytest.raises(TypeError, match="^Argument `queries` must be QueryVectors"):
        Index(tmp_path / "index").refined_top_k(QUERIES, calculator, TRAIN)
    with pytest.raises(ValueError, match="^Argument `train_set` must have every example"):
        index.refined_top_k(QUERIES, calculator, TRAIN.take(2), 3, N)


def test_an_index_without_self_influence_has_the_same_vectors(model, tmp_path):
    calculator = first_order(model)
    with_them = build_index(calculator, TRAIN, tmp_path / "with", verbose=0)
    without = build_index(calculator, TRAIN, tmp_path / "without", self_scores=False, verbose=0)
    np.testing.assert_array_equal(without.scores(QUERIES).values, with_them.scores(QUERIES).values)
    with pytest.raises(DataSourceError, match="has parts without scores"):
        without.self_scores()


def test_layers_add_up_to_the_whole(model, tmp_path):
    for strategy in ("logra", "identity"):
        calculator = first_order(model, strategy)
        index = build_index(calculator, TRAIN, tmp_path / strategy, "float32", verbose=0)
        names = [name for name, *_ in index.header.layers]
        assert len(names) == 2
        parts = [index.scores(QUERIES, layers=[name]).values for name in names]
        whole = index.scores(QUERIES).values
        np.testing.assert_allclose(sum(parts), whole, atol=1e-5 * np.abs(whole).max())
        assert index.top_k(QUERIES, 2, layers=names[:1]).train_ids.shape == (M, 2)
    with pytest.raises(ValueError, match="^Argument `layers` must name some of"):
        index.scores(QUERIES, layers=["nowhere"])


def test_what_is_there_is_not_computed_again_whatever_the_batches(model, tmp_path, monkeypatch):
    calculator = first_order(model)
    build_index(calculator, TRAIN, tmp_path / "one", part_size=8, verbose=0)
    files = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert len(files) == 1 + 5
    computed = []
    kept = FirstOrderInfluenceCalculator._computed

    def counted(self, *args, **kwargs):
        for item, values in kept(self, *args, **kwargs):
            computed.extend(item.ids.tolist())
            yield item, values

    monkeypatch.setattr(FirstOrderInfluenceCalculator, "_computed", counted)
    for size, missing in ((6, range(8, 16)), (5, range(32, 37)), (40, ())):
        computed.clear()
        if missing:
            (tmp_path / "one" / f"part-00000-{missing[0]:012d}-{missing[-1] + 1:012d}.npz").unlink()
        index = build_index(calculator, batched(*arrays(), size), tmp_path / "one", verbose=0)
        assert set(missing) <= set(computed)
        assert len(computed) < len(missing) + 2 * size if missing else not computed
        assert index.check().complete
    index = build_index(calculator, TRAIN, tmp_path / "two", part_size=8, verbose=0)
    assert {p.name: p.read_bytes() for p in index.path.iterdir()} == files


def test_a_shard_that_fills_its_parts_has_an_empty_one_at_its_end(model, tmp_path):
    x, y = arrays()
    index = build_index(
        first_order(model), (x[:16], y[:16]), tmp_path / "index", part_size=8, verbose=0
    )
    assert [len(part) for part in index.parts] == [8, 8, 0]
    assert index.check().complete
    index.parts[-1].path.unlink()
    assert index.check().holes == ("shard 0: examples from 16 on",)


def test_shards_of_one_folder_are_the_whole(model, tmp_path):
    x, y = arrays()
    calculator, names = first_order(model), [f"photo {i}" for i in range(N)]
    shards = [with_ids(batched(x[i::3], y[i::3]), names[i::3]) for i in range(3)]
    for shard in (2, 0):
        index = build_index(
            calculator, shards[shard], tmp_path / "index", "float32", shard, 3, 8, verbose=0
        )
    assert index.check().holes == ("shard 1: all of it",)
    index = build_index(calculator, shards[1], tmp_path / "index", "float32", 1, 3, 8, verbose=0)
    assert index.check().complete
    whole = calculator.find_top_k(QUERIES, with_ids(TRAIN, names), 4, verbose=0)
    found = index.top_k(QUERIES, 4)
    np.testing.assert_array_equal(found.train_ids, whole.train_ids)
    np.testing.assert_allclose(found.values, whole.values, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="^Argument `id_fn` must give the examples of shards"):
        build_index(calculator, TRAIN, tmp_path / "other", num_shards=2)
    with pytest.raises(ValueError, match="^Argument `shard` must be below"):
        build_index(calculator, TRAIN, tmp_path / "other", shard=2, num_shards=2)


def test_examples_that_are_there_twice_are_told(model, tmp_path):
    calculator, names = first_order(model), [f"photo {i}" for i in range(N)]
    for shard in (0, 1):
        index = build_index(
            calculator,
            with_ids(TRAIN, names),
            tmp_path / "index",
            shard=shard,
            num_shards=2,
            verbose=0,
        )
    state = index.check()
    assert not state.complete
    assert sorted(state.duplicates) == sorted(names)


def changed_label(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x, np.where(np.arange(N) == 20, (y + 1) % 3, y)


OTHERS = {
    "a corrected label": lambda model: (first_order(model), changed_label(*arrays()), {}),
    "an input": lambda model: (first_order(model), (arrays()[0] + 1, arrays()[1]), {}),
    "fewer": lambda model: (first_order(model), tuple(a[:30] for a in arrays()), {}),
    "more": lambda model: (first_order(model), arrays(41), {}),
    "another strategy": lambda model: (first_order(model, "identity"), arrays(), {}),
    "another form": lambda model: (first_order(model), arrays(), {"dtype": "float32"}),
    "other parts": lambda model: (first_order(model), arrays(), {"part_size": 9}),
    "another number of shards": lambda model: (
        *(first_order(model), arrays()),
        {"num_shards": 2, "id_fn": "content"},
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_an_index_of_something_else_is_refused(name, model, tmp_path):
    build_index(first_order(model), TRAIN, tmp_path / "index", part_size=8, verbose=0)
    before = sorted(path.name for path in (tmp_path / "index").iterdir())
    calculator, data, settings = OTHERS[name](model)
    with pytest.raises(DataSourceError, match="^The file must hold"):
        build_index(calculator, data, tmp_path / "index", **settings, verbose=0)
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == before


def test_other_queries_and_calculators_are_refused(model, tmp_path):
    calculator = first_order(model)
    build_index(calculator, TRAIN, tmp_path / "index", verbose=0)
    other = first_order(model, "identity")
    with pytest.raises(DataSourceError, match="is of other weights, another calculator"):
        Index(tmp_path / "index", other)
    with pytest.raises(ValueError, match="^Argument `queries` must be of the calculator"):
        Index(tmp_path / "index").top_k(QueryVectors.of(other, QUERIES, verbose=0))
    distances = RepresenterPointL2(model, TRAIN, LOSS)
    for refused in (distances, RepresentationSimilarity(model, metric="euclidean")):
        with pytest.raises(ValueError, match="^Argument `calculator` must score pairs by products"):
            build_index(refused, TRAIN, tmp_path / "other", verbose=0)
    with pytest.raises(TypeError, match="Of nearest neighbours an index keeps the features"):
        build_index(KNNShapley(model), TRAIN, tmp_path / "other", verbose=0)


def test_a_stranger_a_flipped_bit_and_a_short_file_are_told(model, tmp_path):
    calculator = first_order(model)
    index = build_index(calculator, TRAIN, tmp_path / "index", part_size=16, verbose=0)
    other = build_index(
        first_order(model, "identity"), TRAIN, tmp_path / "other", part_size=16, verbose=0
    )
    one, two, three = (part.path for part in index.parts)
    one.write_bytes(other.parts[0].path.read_bytes())
    content = bytearray(two.read_bytes())
    content[len(content) // 2] ^= 1
    two.write_bytes(content)
    three.write_bytes(three.read_bytes()[:-100])
    damaged = index.check().damaged
    assert [path.name in line for path, line in zip((one, two, three), damaged)] == [True] * 3  # noqa: B905
    with pytest.raises(DataSourceError, match="is of another folder"):
        index.top_k(QUERIES)


def test_a_folder_of_something_else_is_left_alone(model, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(DataSourceError, match="^Argument `path` must be a new folder"):
        build_index(first_order(model), TRAIN, tmp_path, verbose=0)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(DataSourceError, match="is not there"):
        Index(tmp_path)
    with pytest.raises(ValueError, match="^Argument `dtype` must be one of"):
        build_index(first_order(model), TRAIN, tmp_path / "index", "int8")
