"""What every calculator keeps to, whatever its method: one law each, over the table."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.calculators import (
    CACHE,
    BaseInfluenceCalculator,
    SelfInfluenceCalculator,
)
from deel_influence.errors import (
    DatasetOrderError,
    EmptyDatasetError,
    InfiniteDatasetError,
    NonFiniteError,
    NotBatchedError,
)
from deel_influence.model import BaseInfluenceModel
from deel_influence.utils import ORDER
from tests.calculators.table import CALCULATORS, SELF_CALCULATORS, CalculatorCase, SelfCase
from tests.oracles import assert_close

layers = keras.layers
N, M = 23, 9  # unequal on purpose, and neither a multiple of a batch
# The models are float32, and the same products are taken in another order.
RTOL = 2e-4


def arrays(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, 4)).astype("float32"), generator.integers(0, 3, n)


def examples(n: int = N, seed: int = 0) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(arrays(n, seed))


TRAIN, QUERIES = examples().batch(8), examples(M, seed=1).batch(4)


@pytest.fixture(scope="module")
def calculators() -> dict:
    return {}


def fresh(case: CalculatorCase | SelfCase) -> SelfInfluenceCalculator:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, activation="tanh"), layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return case.make(BaseInfluenceModel(model, loss_function=loss), TRAIN)


def made_once(case: CalculatorCase | SelfCase, calculators: dict) -> SelfInfluenceCalculator:
    if case.id not in calculators:
        calculators[case.id] = fresh(case)
    return calculators[case.id]


@pytest.fixture(params=CALCULATORS, ids=lambda case: case.id)
def calculator(request, calculators):
    return made_once(request.param, calculators)


@pytest.fixture(params=CALCULATORS + SELF_CALCULATORS, ids=lambda case: case.id)
def any_calculator(request, calculators):
    return made_once(request.param, calculators)


# Streaming, sorting, caching, ids and checks are the base classes' business. A row for each way in
# which a subclass has a part in them: plain, with checks of its own before a pass, over several
# checkpoints, from a record, over all data at once, outside of compiled functions.
EVERY_WAY = (
    "exact",
    "newton-step",
    "trak",
    "representer-l2",
    "representer-lje",
    "two-hooks",
    "tracin",
)
EVERY_SELF_WAY = ("aum", "el2n", "knn-shapley", "sample-boundary", "two-lines")
PAIR_WAYS = [case for case in CALCULATORS if case.id in EVERY_WAY]
ANY_WAYS = PAIR_WAYS + [case for case in SELF_CALCULATORS if case.id in EVERY_SELF_WAY]


@pytest.fixture(params=PAIR_WAYS, ids=lambda case: case.id)
def pair_way(request, calculators):
    return made_once(request.param, calculators)


@pytest.fixture(params=ANY_WAYS, ids=lambda case: case.id)
def any_way(request, calculators):
    return made_once(request.param, calculators)


def each_once(rows: list, ways: list, values: list, of_each: object) -> list:
    """Return all pairs of ways and values, and one value for each of the other rows."""
    return [
        pytest.param(row, value, id=f"{row.id}-{getattr(value, 'name', value)}")
        for row in rows
        for value in (values if row in ways else [of_each])
    ]


def test_a_row_stands_for_each_way_of_the_base_classes():
    assert {case.id for case in ANY_WAYS} == {*EVERY_WAY, *EVERY_SELF_WAY}


def num_traces(calculator: SelfInfluenceCalculator) -> dict:
    return {name: kernel.num_traces for name, kernel in calculator._kernels.items()}


@pytest.mark.parametrize("case", CALCULATORS, ids=lambda case: case.id)
def test_no_kernel_is_traced_twice_over_partial_batches(case, calculators):
    calculator = made_once(case, calculators)

    def work(queries: tf.data.Dataset, train: tf.data.Dataset) -> dict:
        calculator.score(train)
        calculator.influence_matrix(queries, train)
        list(calculator.compute_influence_vector(train))
        list(calculator.top_k(queries, train, 3, influence_vector_in_cache=CACHE.MEMORY))
        return num_traces(calculator)

    traces = work(QUERIES, TRAIN)
    assert len(traces) > 1
    assert work(examples(3).batch(2), examples(N + 4).batch(5)) == traces


@pytest.mark.parametrize("case", SELF_CALCULATORS, ids=lambda case: case.id)
def test_scoring_is_traced_once_over_partial_batches(case):
    calculator = fresh(case)
    for train in (TRAIN, TRAIN.skip(2), TRAIN.take(1)):
        calculator.score(train)
    # A hook that runs as plain Python is never traced.
    assert sum(num_traces(calculator).values()) <= 1


def test_the_matrix_has_a_row_for_each_query_and_a_column_for_each_training_example(calculator):
    matrix, query_ids, train_ids = calculator.influence_matrix(QUERIES, TRAIN, return_ids=True)
    assert matrix.shape == (M, N)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(query_ids, np.arange(M))
    np.testing.assert_array_equal(train_ids, np.arange(N))
    assert np.abs(matrix).max() > 0


FORMS = {
    "one-batch": lambda d: d.batch(N),
    "fives": lambda d: d.batch(5),
    "prefetched": lambda d: d.batch(7).prefetch(2),
    "mapped": lambda d: d.batch(8).map(lambda x, y: (x, y), num_parallel_calls=2),
    "rebatched": lambda d: d.batch(6).unbatch().batch(9),
    "unknown-size": lambda d: d.filter(lambda x, y: y > -1).batch(8),
    "cached": lambda d: d.batch(8).cache(),
    "fives-of-unknown-size": lambda d: d.filter(lambda x, y: y > -1).batch(5),
}


# Cutting into batches is the base classes' business: all forms for some methods, one for each.
EVERY_FORM = ("exact", "two-hooks", "two-lines")


def rows_and_forms(rows: list) -> list:
    return [
        pytest.param(row, form, id=f"{row.id}-{form}")
        for row in rows
        for form in (FORMS if row.id in EVERY_FORM else ["fives-of-unknown-size"])
    ]


@pytest.mark.parametrize(("case", "form"), rows_and_forms(CALCULATORS))
def test_the_matrix_does_not_depend_on_how_the_data_are_cut_into_batches(case, form, calculators):
    calculator = made_once(case, calculators)
    train, queries = FORMS[form](examples()), FORMS[form](examples(M, seed=1))
    assert_close(
        calculator.influence_matrix(queries, train),
        calculator.influence_matrix(QUERIES, TRAIN),
        RTOL,
    )


@pytest.mark.parametrize(("case", "form"), rows_and_forms(CALCULATORS + SELF_CALCULATORS))
def test_scores_do_not_depend_on_how_the_data_are_cut_into_batches(case, form, calculators):
    calculator = made_once(case, calculators)
    assert_close(calculator.score(FORMS[form](examples())), calculator.score(TRAIN), RTOL)


@pytest.mark.parametrize(
    "case", [case for case in CALCULATORS if case.is_diagonal], ids=lambda case: case.id
)
def test_self_influence_is_the_diagonal_of_the_matrix(case, calculators):
    calculator = made_once(case, calculators)
    matrix = calculator.influence_matrix(TRAIN, TRAIN)
    assert_close(calculator.score(TRAIN), np.diag(matrix), RTOL)


def test_the_scored_dataset_holds_the_batches_and_their_scores(any_way):
    scored = list(any_way.compute_influence_values(TRAIN))
    assert [len(scores) for _, scores in scored] == [8, 8, 7]
    assert scored[0][1].dtype == tf.float32
    for ((x, y), _), (expected_x, expected_y) in zip(scored, TRAIN, strict=True):
        np.testing.assert_array_equal(x, expected_x)
        np.testing.assert_array_equal(y, expected_y)
    values = np.concatenate([scores for _, scores in scored])
    assert_close(values, any_way.score(TRAIN), 1e-6)


def test_eager_and_compiled_scores_are_the_same(any_calculator):
    batch = next(iter(TRAIN))
    compiled = any_calculator.score(TRAIN.take(1))
    assert_close(any_calculator._self_scores(batch), compiled, RTOL)


@pytest.mark.parametrize("case", CALCULATORS, ids=lambda case: case.id)
def test_influence_vectors_give_the_scores_of_the_matrix(case, calculators):
    calculator = made_once(case, calculators)
    vectors = np.concatenate([v for _, v in calculator.compute_influence_vector(TRAIN)])
    queries = np.concatenate([calculator._query_vectors(batch) for batch in QUERIES])
    assert vectors.shape == (N, case.width or calculator.model.nb_params)
    products = queries @ vectors.T
    if not case.has_inner_product:
        products = calculator._pairwise(tf.constant(queries), tf.constant(vectors))
    assert_close(products, calculator.influence_matrix(QUERIES, TRAIN), RTOL)


@pytest.mark.parametrize(
    ("case", "cache"), each_once(CALCULATORS, PAIR_WAYS, list(CACHE), CACHE.DISK)
)
def test_values_in_batches_equal_the_matrix_for_every_cache(case, cache, calculators, tmp_path):
    calculator = made_once(case, calculators)
    path = None
    if cache is CACHE.DISK:
        path = tmp_path / "vectors"
        calculator.compute_influence_vector(TRAIN, path)
    rows = []
    for batch, scored in calculator.estimate_influence_values_in_batches(
        QUERIES, TRAIN, cache, load_influence_vector_path=path
    ):
        parts = list(scored)
        rows.append(np.concatenate([values for _, values in parts], axis=1))
        assert len(batch[0]) == len(rows[-1])
        for i, expected in enumerate(arrays(N, 0)):
            found = np.concatenate([train_batch[i] for train_batch, _ in parts])
            np.testing.assert_array_equal(found, expected)
    assert_close(np.concatenate(rows), calculator.influence_matrix(QUERIES, TRAIN), RTOL)


@pytest.mark.parametrize("order", list(ORDER))
@pytest.mark.parametrize(("case", "k"), each_once(CALCULATORS, PAIR_WAYS, [1, 3, N + 5], 3))
def test_top_k_per_query_equals_the_full_sort(case, k, order, calculators):
    calculator = made_once(case, calculators)
    matrix = calculator.influence_matrix(QUERIES, TRAIN)
    keys = -matrix if order is ORDER.DESCENDING else matrix
    expected = np.argsort(keys, axis=1, kind="stable")[:, :k]
    found = list(calculator.top_k(QUERIES, TRAIN, k, order=order, return_ids=True))
    assert [len(values) for _, values, _, _ in found] == [4, 4, 1]
    ids = np.concatenate([i for *_, i in found])
    np.testing.assert_array_equal(ids, expected)
    values = np.concatenate([v for _, v, _, _ in found])
    assert_close(values, np.take_along_axis(matrix, expected, axis=1), 1e-6)
    samples = np.concatenate([s for _, _, s, _ in found])
    np.testing.assert_array_equal(samples, arrays(N, 0)[0][expected])


@pytest.mark.parametrize("cache", [CACHE.MEMORY, CACHE.DISK])
def test_top_k_from_cached_vectors_finds_the_same(pair_way, cache, tmp_path):
    path = tmp_path / "vectors"
    cached = pair_way.top_k(
        QUERIES,
        TRAIN,
        3,
        influence_vector_in_cache=cache,
        save_influence_vector_ds_path=path,
        load_influence_vector_ds_path=path if cache is CACHE.DISK else None,
        return_ids=True,
    )
    streamed = pair_way.top_k(QUERIES, TRAIN, 3, return_ids=True)
    for (*_, found), (*_, expected) in zip(cached, streamed, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("case", "k"), each_once(CALCULATORS + SELF_CALCULATORS, ANY_WAYS, [4, N + 1], 4)
)
def test_top_k_of_the_training_set_equals_the_full_sort(case, k, calculators):
    calculator = made_once(case, calculators)
    scores = calculator.score(TRAIN).values
    expected = np.argsort(-scores, kind="stable")[:k]
    samples, values, ids = calculator.compute_top_k_from_training_dataset(TRAIN, k, return_ids=True)
    np.testing.assert_array_equal(ids, expected)
    assert_close(values, scores[expected], 1e-6)
    np.testing.assert_array_equal(samples, arrays(N, 0)[0][expected])
    pair = calculator.compute_top_k_from_training_dataset(TRAIN, k)
    assert len(pair) == 2


def test_ascending_is_descending_reversed(any_way):
    (_, low, low_ids), (_, high, high_ids) = (
        any_way.compute_top_k_from_training_dataset(TRAIN, N, order, return_ids=True)
        for order in (ORDER.ASCENDING, ORDER.DESCENDING)
    )
    np.testing.assert_array_equal(low, high[::-1])
    # Equal scores come by id in either order.
    differ = np.diff(low, prepend=np.nan, append=np.nan) != 0
    alone = differ[1:] & differ[:-1]
    np.testing.assert_array_equal(low_ids[alone], high_ids[::-1][alone])


def test_ids_come_from_the_user_where_given(any_way):
    x, y = arrays(N, 0)
    ids = 1000 + 3 * np.arange(N)
    known = {row.tobytes(): i for row, i in zip(x, ids, strict=True)}

    def id_fn(batch):
        return np.array([known[row.tobytes()] for row in batch[0].numpy()])

    shuffled = examples().shuffle(N).batch(8)
    scores = any_way.score(shuffled, id_fn=id_fn).to_pandas().sort_index()
    np.testing.assert_array_equal(scores.index, ids)
    assert_close(scores.to_numpy(), any_way.score(TRAIN), RTOL)
    _, _, best = any_way.compute_top_k_from_training_dataset(
        shuffled, 3, return_ids=True, id_fn=id_fn
    )
    np.testing.assert_array_equal(best, any_way.score(TRAIN).top_k(3).ids * 3 + 1000)


def test_scores_can_be_computed_on_another_device(any_calculator):
    assert_close(any_calculator.score(TRAIN, device="/CPU:1"), any_calculator.score(TRAIN), 1e-5)
    with pytest.raises(ValueError, match="`device` must be None or one of"):
        any_calculator.score(TRAIN, device="/GPU:3")


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        (examples(), NotBatchedError, r"`train_set` must yield batches.*\.batch\(128\)"),
        (examples().repeat().batch(8), InfiniteDatasetError, "`train_set` must end"),
        (examples(200).shuffle(200).batch(50), DatasetOrderError, "reshuffle_each_iteration"),
        (examples().batch(8).take(0), EmptyDatasetError, "at least one example"),
        (3, TypeError, "must be a batched tf.data.Dataset, arrays"),
    ],
    ids=["unbatched", "infinite", "reshuffled", "empty", "arrays"],
)
def test_data_that_cannot_be_scored_are_refused(any_way, dataset, error, message):
    with pytest.raises(error, match=message):
        any_way.score(dataset)
    if isinstance(any_way, BaseInfluenceCalculator):
        with pytest.raises(error, match=message):
            any_way.influence_matrix(QUERIES, dataset)


def test_a_reshuffle_that_begins_later_is_noticed_at_the_next_pass(any_way):
    """The first two openings may agree; every pass is compared with the first."""
    order = tf.Variable(0)
    x, y = arrays(N, 0)
    index = tf.data.Dataset.range(N).map(lambda i: (i + tf.cast(order, tf.int64)) % N)
    dataset = index.map(lambda i: (tf.gather(x, i), tf.gather(y, i))).batch(8)
    any_way.score(dataset)
    order.assign(1)
    with pytest.raises(DatasetOrderError, match="first batch changed"):
        any_way.score(dataset)


def test_nan_is_reported_with_the_batch_and_the_example(any_calculator):
    x, y = arrays(N, 0)
    x[18, 2] = np.nan
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    message = r"NaN or infinity from batch 2 .*first for example 18"
    with pytest.raises(NonFiniteError, match=message):
        any_calculator.score(dataset)
    if isinstance(any_calculator, BaseInfluenceCalculator):
        with pytest.raises(NonFiniteError, match=message):
            any_calculator.influence_matrix(QUERIES, dataset)
        with pytest.raises(NonFiniteError, match=message):
            any_calculator.influence_matrix(dataset, TRAIN)


@pytest.mark.parametrize("k", [0, -3, 2.0])
def test_k_below_one_is_refused(any_way, k):
    with pytest.raises(ValueError, match="`k` must be an integer of at least 1"):
        any_way.compute_top_k_from_training_dataset(TRAIN, k)
    if isinstance(any_way, BaseInfluenceCalculator):
        with pytest.raises(ValueError, match="`k` must be an integer of at least 1"):
            any_way.top_k(QUERIES, TRAIN, k)
