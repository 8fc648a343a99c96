"""A lazy dataset is one of TensorFlow's, but for the errors of its generator."""

from __future__ import annotations

import gc
import traceback
import weakref
from collections.abc import Iterator

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import NonFiniteError
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import InfluenceModel
from deel_influence.utils.lazy import lazy_dataset

SPEC = (tf.TensorSpec((None, 3)), tf.TensorSpec((None, 1)))


def failing() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield np.ones((2, 3), np.float32), np.ones((2, 1), np.float32)
    message = "what was wrong"
    raise NonFiniteError(message) from KeyError("the cause")


def whole() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for i in range(3):
        yield np.full((2, 3), i, np.float32), np.ones((2, 1), np.float32)


@pytest.mark.parametrize("numpy", [False, True])
def test_an_error_of_the_generator_comes_out_as_it_is(numpy: bool):
    dataset = lazy_dataset(failing, SPEC)
    for _ in range(2):  # and again in the next pass
        seen = []
        with pytest.raises(NonFiniteError, match=r"^what was wrong$") as caught:
            seen.extend(dataset.as_numpy_iterator() if numpy else dataset)
        assert isinstance(caught.value.__cause__, KeyError)
        text = "".join(traceback.format_exception(caught.value))
        assert "tensorflow.python.framework.errors_impl" not in text


def test_it_serves_keras_and_graphs_as_any_dataset_does():
    dataset = lazy_dataset(whole, SPEC)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert np.isfinite(
        model.fit(dataset, shuffle=False, steps_per_epoch=3, verbose=0).history["loss"]
    ).all()

    @tf.function
    def total() -> tf.Tensor:
        return dataset.reduce(0.0, lambda sum_, batch: sum_ + tf.reduce_sum(batch[0]))

    assert float(total()) == 18.0
    assert len(list(dataset.unbatch())) == 6
    assert dataset.element_spec == SPEC


def test_two_passes_at_once_are_each_whole():
    dataset = lazy_dataset(whole, SPEC)
    pairs = zip(dataset, dataset, strict=True)
    assert [(float(a[0][0, 0]), float(b[0][0, 0])) for a, b in pairs] == [(0, 0), (1, 1), (2, 2)]


def test_what_is_handed_to_tensorflow_after_some_steps_goes_on_from_there():
    iterator = iter(lazy_dataset(whole, SPEC))
    assert float(next(iterator)[0][0, 0]) == 0.0
    step = tf.function(lambda source: next(source)[0][0, 0])
    assert [float(step(iterator)) for _ in range(2)] == [1.0, 2.0]
    with pytest.raises(StopIteration):
        next(iterator)
    assert iterator.element_spec == SPEC


@pytest.mark.parametrize("size", [None, 3])
def test_the_number_of_elements_is_told_where_it_is_known(size: int | None):
    dataset = lazy_dataset(whole, SPEC, size)
    assert len(list(dataset)) == len(list(dataset.as_numpy_iterator())) == 3
    assert dataset.cardinality() == (size or tf.data.UNKNOWN_CARDINALITY)
    if size:
        assert len(dataset) == size
        return
    with pytest.raises(TypeError, match="must have a known size"):
        len(dataset)


def data(x: np.ndarray) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((x, np.zeros((len(x), 1), "float32"))).batch(4)


def calculator() -> FirstOrderInfluenceCalculator:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    good = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    return FirstOrderInfluenceCalculator(InfluenceModel(model), data(good), "identity")


def test_nan_in_the_data_of_a_lazy_result_is_the_librarys_error():
    x = np.ones((8, 3), "float32")
    x[5] = np.nan
    influence = calculator()
    lazy = {
        "values": influence.compute_influence_values(data(x)),
        "vectors": influence.compute_influence_vector(data(x)),
        "top": influence.top_k(data(x[:4]), data(x), k=2),
    }
    for dataset in lazy.values():
        with pytest.raises(NonFiniteError, match="from batch 1"):
            list(dataset)
    pairs = influence.estimate_influence_values_in_batches(data(x[:4]), data(x))
    ((_, scores),) = list(pairs)
    with pytest.raises(NonFiniteError, match="from batch 1"):
        list(scores)


def ids_of(batch: tuple) -> tf.Tensor:
    return tf.cast(batch[0][:, 0], tf.int64)


def test_lazy_results_cost_no_dataset_of_tensorflows_until_one_is_asked_for(monkeypatch):
    made = []
    plain = tf.data.Dataset.from_generator
    monkeypatch.setattr(
        tf.data.Dataset, "from_generator", lambda *a, **k: made.append(a) or plain(*a, **k)
    )
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    x[:, 0] = np.arange(1, 9)
    influence, good = calculator(), data(x)
    results = [
        influence.compute_influence_values(good),
        influence.compute_influence_vector(good),
        influence.top_k(good, good, k=2, return_ids=True, id_fn=ids_of),
        *(scores for _, scores in influence.estimate_influence_values_in_batches(good, good)),
    ]
    straight = [list(result) for result in results]
    assert not made
    for result, expected in zip(results, straight, strict=True):
        for one, other in zip(result.prefetch(1), expected, strict=True):
            tf.nest.map_structure(np.testing.assert_array_equal, one, other)
    assert len(made) == len(results)


def test_nothing_keeps_a_calculator_alive_once_its_lazy_results_are_gone():
    influence = calculator()
    good = data(np.ones((8, 3), "float32"))
    results = [influence.compute_influence_values(good), influence.top_k(good, good, k=2)]
    for result in results:
        list(result)
    alive = [weakref.ref(influence), weakref.ref(influence.model.model)]
    del influence, results, result
    gc.collect()
    assert [reference() for reference in alive] == [None, None]
