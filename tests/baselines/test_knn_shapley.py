"""Shapley values of a nearest-neighbour classifier against their definition."""

from __future__ import annotations

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.baselines import KNNShapley, knn_shapley_values
from deel_influence.errors import LabelError
from deel_influence.model import BaseInfluenceModel
from tests.oracles import assert_close

layers = keras.layers
N, M = 23, 9


def by_definition(distances: np.ndarray, same: np.ndarray, k: int) -> np.ndarray:
    """Average what each point adds over all subsets of the others."""
    n = len(distances)

    def pay_off(subset: tuple) -> float:
        nearest = sorted(subset, key=lambda j: distances[j])[:k]
        return sum(same[j] for j in nearest) / k

    values = np.zeros(n)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for size in range(n):
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            for subset in itertools.combinations(others, size):
                values[i] += weight * (pay_off((*subset, i)) - pay_off(subset))
    return values


@pytest.mark.parametrize("k", [1, 3, 6, 9])
def test_values_are_shapley_values(k):
    generator = np.random.default_rng(0)
    distances, same = generator.random((2, 6)), generator.random((2, 6)) < 0.5
    expected = [by_definition(d, s, k) for d, s in zip(distances, same, strict=True)]
    assert_close(knn_shapley_values(distances, same, k), expected)


def by_recursion(distances: np.ndarray, same: np.ndarray, k: int) -> np.ndarray:
    """Go from the farthest point to the nearest, as theorem 1 of Jia et al. (2019)."""
    n = len(distances)
    order = sorted(range(n), key=lambda j: (distances[j], j))
    values = np.zeros(n)
    values[order[-1]] = same[order[-1]] / max(n, k)
    for j in range(n - 1, 0, -1):
        nearer, farther = order[j - 1], order[j]
        step = (float(same[nearer]) - float(same[farther])) / k * min(k, j) / j
        values[nearer] = values[farther] + step
    return values


def distances_of_kind(kind: str, n: int) -> np.ndarray:
    generator = np.random.default_rng(3)
    normal = np.abs(generator.normal(size=(4, n)))
    tied = np.round(normal) * np.where(normal < 0.3, -1, 1)  # -0.0 and 0.0 among them
    last_bits = 1 + generator.integers(0, 50, (4, n)) * np.finfo(float).eps
    largest = np.where(normal < 0.5, np.finfo(float).max, np.inf)
    far = np.where(generator.random((4, n)) < 0.2, largest, normal)
    kinds = {"normal": normal, "tied": tied, "last bits": last_bits, "infinite": far}
    return {**kinds, "all": np.concatenate(list(kinds.values()))}[kind]


KINDS = ["normal", "tied", "last bits", "infinite", "all"]


@pytest.mark.parametrize("n", [1, 2, 64, 301])
@pytest.mark.parametrize("kind", KINDS)
def test_values_are_those_of_the_recursion_whatever_the_distances(kind, n):
    distances = distances_of_kind(kind, n)
    same = np.random.default_rng(4).random(distances.shape) < 0.3
    expected = [by_recursion(d, s, 5) for d, s in zip(distances, same, strict=True)]
    # Sums of n numbers in float64.
    assert_close(knn_shapley_values(distances, same, 5), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["normal", "tied", "infinite"])
@pytest.mark.parametrize("max_error", [0.5, 0.03, 0.003])
def test_with_an_error_the_nearest_have_exact_differences_and_the_others_no_value(kind, max_error):
    distances = distances_of_kind(kind, 301)
    same = np.random.default_rng(4).random(distances.shape) < 0.3
    exact = knn_shapley_values(distances, same, 5)
    values = knn_shapley_values(distances, same, 5, max_error)
    count = max(5, int(np.ceil(1 / max_error)))  # 5, 34, 334: all of them
    order = np.argsort(distances, axis=1, kind="stable")
    for row, by_rank, truth in zip(values, order, exact, strict=True):
        nearest, others = by_rank[:count], by_rank[count:]
        last = truth[nearest[-1]] if len(others) else 0
        assert_close(row[nearest], truth[nearest] - last, rtol=1e-12)
        assert not np.any(row[others])
    assert np.max(np.abs(values - exact)) <= max_error


@pytest.mark.parametrize(("kind", "queries"), [("normal", 0), ("last bits", 4), ("all", 12)])
def test_only_queries_that_the_first_bits_do_not_decide_are_sorted_by_all(
    kind, queries, monkeypatch
):
    distances, rows = distances_of_kind(kind, 301), []
    plain = np.argsort
    monkeypatch.setattr(np, "argsort", lambda a, **k: rows.append(len(a)) or plain(a, **k))
    knn_shapley_values(distances, distances > 0, 5)
    assert sum(rows) == queries


def examples(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, 4)).astype("float32"), generator.integers(0, 3, n)


def batches(arrays: tuple, size: int = 8) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


@pytest.fixture
def model() -> BaseInfluenceModel:
    """Two layers with a skip between them."""
    inputs = keras.Input((4,))
    hidden = layers.Dense(5, activation="tanh", name="hidden")(inputs)
    outputs = layers.Dense(3, name="head")(layers.Concatenate()([hidden, inputs]))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return BaseInfluenceModel(keras.Model(inputs, outputs), loss_function=loss)


def features(model: BaseInfluenceModel, x: np.ndarray) -> np.ndarray:
    return np.concatenate([model.model.get_layer("hidden")(x).numpy(), x], axis=1)


TRAIN, QUERIES = examples(N, 0), examples(M, 1)


def expected_values(model: BaseInfluenceModel, k: int) -> np.ndarray:
    points, rows = features(model, TRAIN[0]), features(model, QUERIES[0])
    distances = np.linalg.norm(rows[:, None] - points[None], axis=2)
    return knn_shapley_values(distances, QUERIES[1][:, None] == TRAIN[1], k)


def test_the_matrix_compares_what_the_last_layer_sees(model):
    matrix = KNNShapley(model, k=4).influence_matrix(batches(QUERIES, 4), batches(TRAIN))
    assert_close(matrix, expected_values(model, 4), 1e-6)


def test_the_values_of_a_query_add_up_to_the_share_of_its_neighbours_with_its_label(model):
    matrix = KNNShapley(model, k=1, layer="hidden").influence_matrix(
        batches(QUERIES, 4), batches(TRAIN)
    )
    nearest = np.linalg.norm(QUERIES[0][:, None] - TRAIN[0], axis=2).argmin(axis=1)
    assert_close(matrix.sum(axis=1), QUERIES[1] == TRAIN[1][nearest], 1e-5)


def test_scores_are_minus_the_mean_value_for_the_reference_set(model):
    calculator = KNNShapley(model, k=4, reference_set=batches(QUERIES, 4))
    assert_close(calculator.score(batches(TRAIN)), -expected_values(model, 4).mean(axis=0), 1e-6)


@pytest.mark.parametrize("max_error", [0.0, 0.1])
def test_without_a_reference_set_no_example_is_its_own_neighbour(model, max_error):
    scores = KNNShapley(model, k=3, max_error=max_error).score(batches(TRAIN, 5))
    expected = np.zeros(N)
    points = features(model, TRAIN[0])
    for j in range(N):
        others = np.arange(N) != j
        distances = np.linalg.norm(points[others] - points[j], axis=1)
        same = TRAIN[1][others] == TRAIN[1][j]
        values = knn_shapley_values(distances[None], same[None], 3, max_error)[0]
        expected[others] -= values / (N - 1)
    assert_close(scores, expected, 1e-5)


def test_values_do_not_depend_on_how_many_queries_are_sorted_at_once(model, monkeypatch):
    calculators = [KNNShapley(model, k=3), KNNShapley(model, k=3, reference_set=batches(QUERIES))]
    whole = [calculator.score(batches(TRAIN)).values for calculator in calculators]
    monkeypatch.setattr("deel_influence.baselines.knn_shapley.MAX_PAIRS", 3 * N)
    for calculator, expected in zip(calculators, whole, strict=True):
        assert_close(calculator.score(batches(TRAIN)), expected, 1e-6)


def test_one_hot_labels_score_as_their_indices(model):
    x, y = TRAIN
    one_hot = batches((x, np.eye(3)[y].astype("float32")))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    encoded = KNNShapley(BaseInfluenceModel(model.model, loss_function=loss)).score(one_hot)
    assert_close(encoded, KNNShapley(model).score(batches(TRAIN)))


def test_wrong_labels_come_first(model):
    generator = np.random.default_rng(0)
    y = np.repeat([0, 1], 30)
    x = (generator.normal(size=(60, 4)) + 6 * y[:, None]).astype("float32")
    y[[4, 40]] = 1 - y[[4, 40]]
    scores = KNNShapley(model, k=5).score(batches((x, y)))
    assert set(scores.top_k(2).ids) == {4, 40}


def test_what_cannot_be_valued_is_refused(model):
    with pytest.raises(ValueError, match="`k` must be a whole number >= 1"):
        KNNShapley(model, k=0)
    with pytest.raises(ValueError, match="`max_error` must be a number from 0"):
        KNNShapley(model, max_error=2)
    with pytest.raises(ValueError, match="`distances` must hold numbers >= 0"):
        knn_shapley_values(np.array([[1.0, -1.0]]), np.array([[True, False]]), 1)
    unlabelled = BaseInfluenceModel(model.model, loss_function=lambda _, y: tf.reduce_sum(y, -1))
    with pytest.raises(LabelError, match="one class for each example"):
        KNNShapley(unlabelled).score(batches((TRAIN[0], np.zeros((N, 2, 2)))))
