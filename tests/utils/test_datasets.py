from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import (
    DatasetOrderError,
    EmptyDatasetError,
    InfiniteDatasetError,
    NotBatchedError,
)
from deel_influence.utils.datasets import (
    array_to_dataset,
    check_dataset,
    count_examples,
    numbered_batches,
    sample_examples,
)
from deel_influence.utils.order import check_fixed_order


def examples(n: int = 10) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((np.arange(n * 4.0).reshape(n, 4), np.arange(n)))


def test_ids_beyond_int64_are_refused_and_do_not_turn_negative():
    largest = 2**63 - 1
    for first, is_fine in ((largest - 3, True), (largest - 2, False)):
        ids = np.arange(first, first + 4, dtype=np.uint64)
        batches = numbered_batches(examples().take(4).batch(4), lambda _, ids=ids: ids)
        if is_fine:
            ((_, found),) = batches
            assert found.tolist() == [largest - 3, largest - 2, largest - 1, largest]
        else:
            with pytest.raises(ValueError, match=f"`id_fn` must give ids of at most {largest}"):
                list(batches)


@pytest.mark.parametrize(
    "dataset",
    [
        examples().batch(4),
        examples().batch(4).prefetch(2).map(lambda x, y: (x, y)),
        examples().batch(4).unbatch().batch(3),
        examples().filter(lambda x, y: y >= 0).batch(4),
        examples().batch(5, drop_remainder=True),
    ],
    ids=["plain", "prefetched-mapped", "rebatched", "unknown-cardinality", "no-remainder"],
)
def test_examples_are_counted_and_numbered_whatever_the_pipeline(dataset):
    check_dataset(dataset)
    assert count_examples(dataset) == 10
    ids = np.concatenate([ids for _, ids in numbered_batches(dataset)])
    np.testing.assert_array_equal(ids, np.arange(10))
    assert ids.dtype == np.int64


def test_ids_may_come_from_the_batch():
    dataset = examples().batch(4)
    ids = [ids for _, ids in numbered_batches(dataset, lambda batch: 100 + batch[1])]
    np.testing.assert_array_equal(np.concatenate(ids), 100 + np.arange(10))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda b: b[0], r"an integer or a text for each example, shape \(n,\)"),
        (lambda b: b[1][:1], "an id for each example, 4 of them. Received: 1 ids"),
        (lambda b: b[1] / 2, "Received: shape \\(4,\\), dtype float64"),
        (lambda b: np.array(["a", 1, "b", "c"], object), "dtype object"),
    ],
)
def test_ids_that_are_neither_integers_nor_texts_are_refused(bad, message):
    with pytest.raises(ValueError, match=f"`id_fn` must give .*{message}"):
        list(numbered_batches(examples().batch(4), bad))


@pytest.mark.parametrize(
    "dataset",
    [
        examples(),
        tf.data.Dataset.from_tensor_slices((np.zeros((9, 28, 28)), np.zeros((9, 10)))),
        tf.data.Dataset.from_tensor_slices({"x": np.zeros((9, 3)), "y": np.zeros(9)}),
    ],
    ids=["scalar-labels", "one-hot-labels", "dict"],
)
def test_unbatched_data_is_refused_with_the_remedy(dataset):
    with pytest.raises(NotBatchedError, match=r"must yield batches.*Add \.batch\(128\)"):
        check_dataset(dataset, "train_set")


def test_unbatched_data_is_known_by_the_rank_of_the_models_inputs():
    dataset = tf.data.Dataset.from_tensor_slices((np.zeros((9, 3)), np.zeros((9, 3))))
    check_dataset(dataset)
    with pytest.raises(NotBatchedError, match="must yield batches"):
        check_dataset(dataset, input_rank=2)


def test_infinite_data_is_refused_with_the_remedy():
    with pytest.raises(InfiniteDatasetError, match=r"Remove \.repeat\(\)"):
        check_dataset(examples().repeat().batch(4))


def test_arrays_are_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"from_tensor_slices\(\(x, y\)\)\.batch\(128\)"):
        check_dataset((np.zeros((3, 2)), np.zeros(3)))


def test_reshuffled_data_is_refused_with_the_remedy():
    check_fixed_order(examples(50).shuffle(50, seed=1, reshuffle_each_iteration=False).batch(9))
    with pytest.raises(DatasetOrderError, match="reshuffle_each_iteration=False"):
        check_fixed_order(examples(50).shuffle(50).batch(9), "train_set")


@pytest.mark.parametrize("dataset", [examples().batch(4).take(0), examples(0).batch(4)])
def test_empty_data_is_refused(dataset):
    with pytest.raises(EmptyDatasetError, match="must yield at least one example"):
        list(numbered_batches(dataset))


def test_samples_are_distinct_and_the_same_on_every_pass_for_a_seed():
    draws = [
        np.concatenate([y for _, y in sample_examples(examples(40).batch(8), 13, seed)])
        for seed in (3, 3, 4)
    ]
    assert len(set(draws[0].tolist())) == 13
    np.testing.assert_array_equal(draws[0], draws[1])
    assert draws[0].tolist() != draws[2].tolist()


def test_more_samples_than_examples_give_all_of_them():
    dataset = sample_examples(examples(5).batch(2), 99, seed=0)
    assert count_examples(dataset) == 5


def test_arrays_become_a_dataset_in_their_order_or_a_fixed_other_one():
    dataset = array_to_dataset((np.arange(5), np.arange(5)), batch_size=2)
    assert [len(x) for x, _ in dataset] == [2, 2, 1]
    assert [len(x) for x in array_to_dataset(np.arange(5)).batch(3)] == [3, 2]
    shuffled = array_to_dataset(array=np.arange(99), shuffle=True, buffer_size=99)
    one, two = ([int(x) for x in shuffled] for _ in range(2))
    assert one == two != sorted(one) == list(range(99))
