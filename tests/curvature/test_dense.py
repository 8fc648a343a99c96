"""Dense curvature against nested tapes in float64."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.curvature import dense_curvature
from deel_influence.curvature.closed_form import has_closed_form
from deel_influence.errors import NonFiniteError, UnsupportedModelError
from deel_influence.gradients import GradientEngine
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from tests.oracles import assert_close, mean_hessian

layers = keras.layers
pytestmark = pytest.mark.usefixtures("float64")
N = 23


def classifier(**last: object) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.05)),
            layers.Dense(3, activation="softmax", **last),
        ]
    )
    model.compile(loss="sparse_categorical_crossentropy")
    return model


def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(N, 4)), generator.integers(0, 3, N)


def batches(size: int = 8) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(data()).batch(size)


SELECTIONS = {
    "last-layer": {},
    "inner-layer": {"start_layer": 0},
    "all-layers": {"start_layer": 0, "last_layer": -1},
}


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize("batch_size", [8, 23, 30])
def test_the_hessian_equals_nested_tapes_whatever_the_batches(selection, batch_size):
    model = InfluenceModel(classifier(), **selection)
    curvature = dense_curvature(model, batches(batch_size), regularizer=False)
    assert curvature.num_examples == N
    assert_close(curvature.matrix, mean_hessian(model, *data()), 1e-10)


@pytest.mark.parametrize("options", [{}, {"use_bias": False}], ids=["bias", "no-bias"])
def test_one_dense_layer_has_a_closed_form_that_equals_nested_tapes(options):
    model = InfluenceModel(classifier(**options))
    engine = GradientEngine.of(model)
    engine.prepare(data())
    assert has_closed_form(engine)
    assert_close(
        dense_curvature(model, batches(), regularizer=False).matrix,
        mean_hessian(model, *data()),
        1e-10,
    )


def test_the_bias_alone_has_a_closed_form_too():
    keras_model = classifier()
    model = BaseInfluenceModel(keras_model, [keras_model.layers[-1].bias])
    assert_close(dense_curvature(model, batches()).matrix, mean_hessian(model, *data()), 1e-10)


def test_several_layers_have_no_closed_form():
    model = InfluenceModel(classifier(), 0, -1)
    engine = GradientEngine.of(model)
    engine.prepare(data())
    assert not has_closed_form(engine)


def test_the_regulariser_adds_its_own_hessian():
    model = InfluenceModel(classifier(), 0)
    difference = (
        dense_curvature(model, batches(), regularizer=True).matrix
        - dense_curvature(model, batches(), regularizer=False).matrix
    )
    expected = np.diag([2 * 0.05] * 20 + [0.0] * 5)
    # Keras keeps the factor of a regulariser in float32.
    assert_close(difference, expected, 1e-7)


def test_gauss_newton_equals_the_hessian_where_outputs_are_linear_in_the_weights():
    model = InfluenceModel(classifier())
    gauss_newton = dense_curvature(model, batches(), "gauss_newton").matrix
    assert_close(gauss_newton, mean_hessian(model, *data()), 1e-8)


def test_gauss_newton_equals_its_definition_on_a_deep_model():
    """``(1/n) Σ Jᵀ (diag(π) - ππᵀ) J`` with the Jacobian of the logits by plain autodiff."""
    keras_model = classifier()
    model = BaseInfluenceModel(keras_model)
    x, _ = data()
    values = [v.value for v in model.weights]
    expected = np.zeros((model.nb_params,) * 2)
    for row in x:
        with tf.GradientTape() as tape:
            probabilities = keras_model(row[None])[0]
            logs = tf.math.log(probabilities)
        # Up to a constant for each example, which S removes, logits are log-probabilities.
        jacobian = model.layout.flatten_rows(tape.jacobian(logs, values)).numpy()
        p = probabilities.numpy()
        expected += jacobian.T @ (np.diag(p) - np.outer(p, p)) @ jacobian
    actual = dense_curvature(model, batches(), "gauss_newton", regularizer=False).matrix
    assert_close(actual, expected / N, 1e-7)
    assert np.linalg.eigvalsh(actual)[0] > -1e-12


def test_gauss_newton_serves_layers_that_automatic_differentiation_serves():
    keras_model = keras.Sequential([keras.Input((2, 2)), layers.SimpleRNN(2), layers.Dense(1)])
    model = BaseInfluenceModel(keras_model, loss_function="mse")
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(3, 2, 2)), generator.normal(size=(3, 1))
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(2)
    expected = np.zeros((model.nb_params,) * 2)
    for row in x:
        with tf.GradientTape(persistent=True) as tape:
            output = keras_model(row[None])[0]
        jacobian = tape.jacobian(
            output, [v.value for v in model.weights], experimental_use_pfor=False
        )
        rows = model.layout.flatten_rows(jacobian).numpy()
        expected += 2 * rows.T @ rows
    assert_close(dense_curvature(model, dataset, "gauss_newton").matrix, expected / 3, 1e-8)


def test_convolutions_with_pooling_are_served():
    keras_model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(2, 3, activation="tanh"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = BaseInfluenceModel(keras_model, loss_function=loss)
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(9, 6, 6, 1)), generator.integers(0, 3, 9)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    assert_close(dense_curvature(model, dataset).matrix, mean_hessian(model, x, y), 1e-9)


def test_sample_weights_weigh_the_examples_of_the_hessian():
    model = InfluenceModel(classifier())
    x, y = data()
    weights = np.zeros(N)
    weights[:10] = 1.0
    dataset = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(8)
    expected = mean_hessian(model, x[:10], y[:10]) * 10 / N
    assert_close(dense_curvature(model, dataset).matrix, expected, 1e-10)


def test_nan_is_reported_with_the_batch_that_gave_it():
    model = InfluenceModel(classifier())
    x, y = data()
    x[17] = np.nan
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    with pytest.raises(NonFiniteError, match="NaN or infinity from batch 2 .*first for example 17"):
        dense_curvature(model, dataset)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="`curvature` must be one of.*'fisher'"):
        dense_curvature(InfluenceModel(classifier()), batches(), "fisher")


def test_gauss_newton_refuses_several_outputs():
    x = keras.Input((4,))
    keras_model = keras.Model(x, [layers.Dense(2)(x), layers.Dense(2)(x)])
    model = BaseInfluenceModel(keras_model, loss_function="mse")
    targets = (np.zeros((6, 2)), np.zeros((6, 2)))
    dataset = tf.data.Dataset.from_tensor_slices((np.zeros((6, 4)), targets)).batch(3)
    with pytest.raises(UnsupportedModelError, match="one output tensor"):
        dense_curvature(model, dataset, "gauss_newton")
