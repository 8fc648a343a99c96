"""A digest of data changes with every example, and with nothing but examples and their order."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.utils.digests import array_digest, dataset_digest, example_digests

N = 7
RNG = np.random.default_rng(0)
PARTS = {
    "float32": RNG.normal(size=(N, 3)).astype("float32"),
    "float64": RNG.normal(size=(N, 2, 2)),
    "complex": RNG.normal(size=(N, 2)) + 1j * RNG.normal(size=(N, 2)),
    "int64": RNG.integers(2**60, 2**61, N),
    "uint8": RNG.integers(0, 255, (N, 4), dtype=np.uint8),
    "texts": np.array([f"text {i}" for i in range(N)]),
    "truths": RNG.integers(0, 2, N).astype(bool),
}


def digest(parts: dict[str, np.ndarray], size: int = 3) -> str:
    return dataset_digest(tf.data.Dataset.from_tensor_slices(parts).batch(size))["digest"]


def changed(array: np.ndarray, position: int) -> np.ndarray:
    """Return a copy of which one number of one example is another, by as little as can be."""
    copy = array.copy()
    flat = copy.reshape(N, -1)
    value = flat[position, -1]
    if array.dtype.kind == "f":
        value = np.nextafter(value, np.inf, dtype=array.dtype)
    elif array.dtype.kind == "c":
        value += 1e-12j
    elif array.dtype.kind == "U":
        value = "changed"
    else:
        value = not value if array.dtype == bool else value ^ 1
    flat[position, -1] = value
    return copy


@pytest.mark.parametrize("name", PARTS)
def test_the_least_change_of_any_example_is_seen(name: str):
    found = {digest({**PARTS, name: changed(PARTS[name], i)}) for i in range(N)}
    assert len(found | {digest(PARTS)}) == N + 1


def test_the_order_counts_and_the_batches_do_not():
    assert len({digest(PARTS, size) for size in (1, 3, 7, 9)}) == 1
    assert digest({name: part[::-1] for name, part in PARTS.items()}) != digest(PARTS)
    assert digest({name: part[:-1] for name, part in PARTS.items()}) != digest(PARTS)


def test_the_number_of_examples_is_told():
    dataset = tf.data.Dataset.from_tensor_slices(PARTS).batch(3)
    assert dataset_digest(dataset)["examples"] == N


def test_ragged_and_sparse_parts_count_whole():
    rows = tf.ragged.constant([[1, 2], [3], [4, 5, 6]])
    others = tf.ragged.constant([[1, 2], [3], [4, 5, 7]])
    pairs = [(rows, others), (rows.to_sparse(), others.to_sparse())]
    for one, other in pairs:
        same = example_digests(one) == example_digests(other)
        assert same.numpy().tolist() == [True, True, False]


def test_infinities_and_nan_have_digests():
    values = np.array([np.inf, -np.inf, np.nan, 0.0])
    assert len(set(example_digests(values).numpy().tolist())) == 4


def test_arrays_differ_by_type_shape_and_content():
    arrays = [np.zeros(4), np.zeros((2, 2)), np.zeros(4, np.float32), np.ones(4), np.zeros(0)]
    texts = [np.array(["a", "b"], object), np.array(["a", "c"], object)]
    assert len({array_digest(array) for array in [*arrays, *texts]}) == 7
