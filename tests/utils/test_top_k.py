from __future__ import annotations

import numpy as np
import pytest

from deel_influence.utils.top_k import ORDER, BatchSort


def full_sort(values: np.ndarray, ids: np.ndarray, k: int, order: ORDER) -> tuple:
    keys = -values if order is ORDER.DESCENDING else values
    best = [np.lexsort((ids, row))[:k] for row in keys]
    return np.stack([v[b] for v, b in zip(values, best, strict=True)]), ids[np.stack(best)]


@pytest.mark.parametrize("order", list(ORDER))
@pytest.mark.parametrize("k", [1, 4, 30, 31])
@pytest.mark.parametrize("ties", [False, True])
def test_streamed_top_k_equals_the_full_sort(order, k, ties):
    generator = np.random.default_rng(0)
    values = generator.normal(size=(3, 30))
    values = np.round(values) if ties else values
    ids = generator.permutation(100)[:30]
    sort = BatchSort(3, k, order)
    for start, stop in ((0, 7), (7, 20), (20, 20), (20, 30)):
        sort.add(values[:, start:stop], ids[start:stop])
    expected = full_sort(values, ids, k, order)
    np.testing.assert_array_equal(sort.get()[0], expected[0])
    np.testing.assert_array_equal(sort.get()[1], expected[1])


def test_shards_merge_in_any_order_into_the_same_answer():
    values = np.round(np.random.default_rng(0).normal(size=(2, 40)))
    ids = np.arange(40)
    shards = []
    for part in np.array_split(np.arange(40), 3):
        shard = BatchSort(2, 5)
        shard.add(values[:, part], ids[part])
        shards.append(shard.get())
    results = []
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        merged = BatchSort(2, 5)
        for index in order:
            merged.add(*shards[index])
        results.append(merged.get())
    whole = BatchSort(2, 5)
    whole.add(values, ids)
    for result in results:
        np.testing.assert_array_equal(result[0], whole.get()[0])
        np.testing.assert_array_equal(result[1], whole.get()[1])


def test_ascending_is_the_reverse_of_descending_without_ties():
    values, ids = np.random.default_rng(0).normal(size=(1, 20)), np.arange(20)
    both = []
    for order in ORDER:
        sort = BatchSort(1, 20, order)
        sort.add(values, ids)
        both.append(sort.get()[1][0])
    np.testing.assert_array_equal(both[0], both[1][::-1])


@pytest.mark.parametrize("k", [0, -1, 1.5, True, None])
def test_k_below_one_is_refused(k):
    with pytest.raises(ValueError, match="`k` must be an integer of at least 1. Received: k="):
        BatchSort(1, k)


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="`order` must be ORDER.DESCENDING or ORDER.ASCENDING"):
        BatchSort(1, 3, "sideways")
