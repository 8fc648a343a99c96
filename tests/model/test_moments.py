"""Second derivatives of normalisation layers, which TensorFlow's own moments get wrong."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.curvature import HessianOperator
from deel_influence.model import BaseInfluenceModel
from deel_influence.model.moments import exact_moments
from tests.oracles import assert_close

layers = keras.layers
STEP = 1e-5


@pytest.mark.parametrize("layer", [layers.LayerNormalization, lambda: layers.GroupNormalization(2)])
@pytest.mark.parametrize("mode", ["reverse_over_reverse", "forward_over_reverse"])
def test_products_with_the_hessian_are_differences_of_gradients(layer, mode, float64) -> None:
    generator = np.random.default_rng(0)
    x, y, vector = (generator.normal(size=size) for size in ((20, 5), (20, 2), 42))
    net = keras.Sequential([keras.Input((5,)), layers.Dense(4, "tanh"), layer(), layers.Dense(2)])
    model = BaseInfluenceModel(net, loss_function="mse")
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(20)
    product = HessianOperator(model, data, mode=mode).apply(vector[None])[0]
    start, gradients = net.get_weights(), []
    for sign in (1, -1):
        steps = model.layout.unflatten(tf.constant(sign * STEP * vector))
        for variable, value, step in zip(model.weights, start, steps, strict=True):
            variable.assign(value + step)
        gradients.append(model.batch_gradient_tensor((x, y)).numpy() / len(x))
    assert_close(product, (gradients[0] - gradients[1]) / (2 * STEP), rtol=1e-5)


def test_the_second_derivative_of_a_variance_goes_through_the_mean() -> None:
    x = tf.constant(np.random.default_rng(0).normal(size=5))
    with exact_moments(), tf.GradientTape(persistent=True) as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            variance = tf.nn.moments(x, [0])[1]
        slope = inner.gradient(variance, x)
    hessian = outer.jacobian(slope, x, experimental_use_pfor=False)
    assert_close(hessian, 2 / 5 * (np.eye(5) - 1 / 5))


def test_moments_are_those_of_tensorflow() -> None:
    x = tf.constant(np.random.default_rng(0).normal(size=(3, 4, 5)))
    for axes, keepdims in (([0], False), ([1, 2], True), ([-1], True)):
        expected = tf.nn.moments(x, axes, keepdims=keepdims)
        with exact_moments():
            found = tf.nn.moments(x, axes, keepdims=keepdims)
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.shape == theirs.shape
            assert_close(mine, theirs)
