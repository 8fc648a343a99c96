"""Threads share a Keras model: each gets what it would get alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.ihvp import EKFACIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel
from deel_influence.model.overlay import overlaid

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
THREADS = 4


@pytest.fixture
def model() -> keras.Model:
    layers = [keras.layers.Dense(6, "tanh") for _ in range(3)]
    return keras.Sequential([keras.Input((8,)), *layers, keras.layers.Dense(3)])


@pytest.fixture
def data() -> tf.data.Dataset:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(20, 8)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, generator.integers(0, 3, 20))).batch(8)


def at_once(*functions: Callable[[], np.ndarray]) -> list[np.ndarray]:
    """Run functions in threads that begin together."""
    barrier = threading.Barrier(len(functions))

    def begun(function: Callable[[], np.ndarray]) -> np.ndarray:
        barrier.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(begun, functions))


def test_calculators_over_one_model_and_predictions_beside_them_are_those_of_one_thread(
    model, data
):
    def scores() -> np.ndarray:
        wrapped = BaseInfluenceModel(model, loss_function=LOSS)
        ihvp = EKFACIHVP(wrapped, data, seed=0, damping=0.1, verbose=0)
        return FirstOrderInfluenceCalculator(wrapped, data, ihvp).score(data, verbose=0).values

    def predictions() -> np.ndarray:
        return np.concatenate([model(x) for x, _ in data for _ in range(20)])

    expected = [*[scores()] * (THREADS - 1), predictions()]
    for _ in range(2):
        found = at_once(*[scores] * (THREADS - 1), predictions)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_one_calculator_serves_several_threads(model, data):
    wrapped = BaseInfluenceModel(model, loss_function=LOSS)
    ihvp = EKFACIHVP(wrapped, data, seed=0, damping=0.1, verbose=0)
    calculator = FirstOrderInfluenceCalculator(wrapped, data, ihvp)
    found = at_once(*[lambda: calculator.score(data, verbose=0).values] * THREADS)
    expected = FirstOrderInfluenceCalculator(wrapped, data, ihvp).score(data, verbose=0).values
    for values in found:
        np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_a_layer_is_overlaid_in_one_thread(model):
    layer, inputs = model.layers[0], np.ones((1, 8), "float32")
    plain = layer(inputs).numpy()
    with overlaid(layer, "call", lambda inputs: inputs):
        np.testing.assert_array_equal(layer(inputs), inputs)
        (other,) = at_once(lambda: layer(inputs).numpy())
    np.testing.assert_array_equal(other, plain)
    np.testing.assert_array_equal(layer(inputs), plain)
