"""The last layer of a network, at its minimum and trained again, against the whole network."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import DatasetOrderError, DataSourceError, UnsupportedModelError
from deel_influence.evaluation import ConvexTraining, LastLayer, QueryOutputs, retrain
from deel_influence.evaluation.subsets import leave_one_out

N, M, L2 = 30, 4, 0.05
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(sequential: bool) -> keras.Model:
    keras.utils.set_random_seed(2)
    inputs = keras.Input((4,))
    layers = [keras.layers.Dense(5, activation="tanh"), keras.layers.Dense(3, name="logits")]
    if sequential:
        model = keras.Sequential([inputs, *layers])
    else:
        model = keras.Model(inputs, layers[1](layers[0](inputs)))
    model.compile(loss=LOSS)
    return model


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(5)
    x = generator.normal(size=(N + M, 4)).astype("float32")
    return x, generator.integers(0, 3, N + M)


def made(model: keras.Model, data: tuple[np.ndarray, np.ndarray], **options) -> LastLayer:
    x, y = data
    return LastLayer(model, (x[:N], y[:N]), (x[N:], y[N:]), **options)


@pytest.mark.parametrize("sequential", [True, False])
def test_the_layer_is_at_the_minimum_of_its_regularised_loss(data, sequential):
    model = network(sequential)
    before = model.layers[-2].get_weights()
    last_layer = made(model, data, l2=L2)
    x, y = data
    kernel, bias = (tf.Variable(w) for w in model.get_layer("logits").get_weights())
    features = model.layers[-2](x[:N])
    with tf.GradientTape() as tape:
        value = LOSS(y[:N], features @ kernel + bias) + L2 * tf.reduce_sum(kernel**2)
    for gradient in tape.gradient(value, [kernel, bias]):
        np.testing.assert_allclose(gradient, 0, atol=1e-6)
    np.testing.assert_array_equal(model.layers[-2].get_weights()[0], before[0])
    assert [w.path for w in last_layer.model.weights] == [
        w.path for w in model.get_layer("logits").weights
    ]


def test_retraining_equals_that_of_the_whole_network_whose_other_layers_are_frozen(data):
    model = network(sequential=True)
    last_layer = made(model, data, l2=L2)
    positions = last_layer.candidates(6)
    assert len(set(positions)) == 6
    kept = leave_one_out(N, positions)
    found = last_layer.retrain(kept, verbose=0)
    x, y = data
    whole = network(sequential=True)
    whole.layers[0].trainable = False
    whole.layers[1].kernel_regularizer = keras.regularizers.L2(L2)
    whole.layers[1].kernel.regularizer = whole.layers[1].kernel_regularizer
    training = ConvexTraining(whole, x[:N], y[:N], loss=LOSS)
    expected = retrain(training, QueryOutputs(x[N:], y[N:], loss=LOSS), kept, verbose=0)
    np.testing.assert_allclose(found.changes, expected.changes, rtol=1e-3, atol=1e-8)


def test_a_folder_is_gone_on_with_and_refused_for_another_penalty(data, tmp_path):
    first = network(sequential=True)
    made(first, data, l2=L2, folder=tmp_path)
    again = network(sequential=True)
    made(again, data, l2=L2, folder=tmp_path)
    np.testing.assert_array_equal(first.get_weights()[2], again.get_weights()[2])
    with pytest.raises(DataSourceError, match="whose retrainings have another model"):
        made(network(sequential=True), data, l2=2 * L2, folder=tmp_path)


def test_data_that_no_position_names_are_refused(data):
    x, y = (part[:N] for part in data)
    shuffled = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(N).batch(8)
    with pytest.raises(DatasetOrderError, match="`train_set`"):
        LastLayer(network(True), shuffled, (x, y))
    with pytest.raises(ValueError, match=r"`queries` must yield batches \(x, y\)"):
        LastLayer(network(True), (x, y), (x, y, np.ones(N)))


def test_a_penalty_beside_the_layers_own_is_refused(data):
    model = network(sequential=True)
    made(model, data, l2=L2)
    with pytest.raises(UnsupportedModelError, match="`l2` is for layers without a regulariser"):
        made(model, data, l2=L2)
