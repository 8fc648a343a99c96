"""Losses without curvature: no strategy answers with zeros, and what is left over is said."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import CurvatureWarning, NoCurvatureError
from deel_influence.ihvp import IHVPCalculator, NystromIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator, NewtonStepInfluenceCalculator
from deel_influence.model import BaseInfluenceModel
from tests.oracles import assert_close

layers = keras.layers
N, D = 20, 4


def quantile(y: tf.Tensor, o: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.maximum(0.9 * (y - o), -0.1 * (y - o)), axis=-1)


LOSSES = {
    "absolute error": "mae",
    "quantile": quantile,
    "hinge": keras.losses.Hinge(),
    # All residuals lie beyond the bend.
    "huber": keras.losses.Huber(delta=1e-6),
}
INVERTING = ("exact", "kfac", "ekfac", "nystrom", "woodbury", "arnoldi", "cgd", "lissa", "astra")


def problem(loss: object, penalty: object = None) -> tuple[BaseInfluenceModel, tf.data.Dataset]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N, D)).astype("float32")
    y = np.sign(generator.normal(size=(N, 1))).astype("float32")
    dense = layers.Dense(1, kernel_regularizer=penalty)
    model = keras.Sequential([keras.Input((D,)), dense])
    wrapped = BaseInfluenceModel(model, loss_function=loss)
    return wrapped, tf.data.Dataset.from_tensor_slices((x, y)).batch(8)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("strategy", INVERTING)
def test_a_loss_without_curvature_is_refused_where_nothing_else_curves(strategy, loss):
    model, data = problem(LOSSES[loss])
    with pytest.raises(NoCurvatureError, match="without curvature.*'identity'"):
        FirstOrderInfluenceCalculator(model, data, strategy).score(data)


@pytest.mark.parametrize("strategy", ["identity", "datainf"])
def test_strategies_of_the_gradients_answer_without_curvature(strategy):
    model, data = problem("mae")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.all(FirstOrderInfluenceCalculator(model, data, strategy).score(data).values > 0)


def test_the_newton_step_needs_curvature_too():
    model, data = problem("mae")
    with pytest.raises(NoCurvatureError, match="NewtonStep"):
        NewtonStepInfluenceCalculator(model, data)


@pytest.mark.parametrize("strategy", ["exact", "nystrom", "woodbury"])
def test_where_a_regulariser_curves_it_alone_is_inverted_with_a_warning(strategy):
    model, data = problem("mae", keras.regularizers.L2(0.5))
    model = model.rewrapped(weights=[model.weights[0]])
    options = {"damping": 0.0} if strategy == "exact" else {}
    kind = IHVPCalculator.from_string(strategy).value
    with pytest.warns(CurvatureWarning, match="damping, or the regulariser, alone"):
        ihvp = kind(model, train_dataset=data, **options)
    scores = FirstOrderInfluenceCalculator(model, data, ihvp).score(data).values
    by_gradient = FirstOrderInfluenceCalculator(model, data, "identity").score(data).values
    # R'' = 2 · 0.5 · I, and what "auto" adds is a tenth of the mean eigenvalue at most.
    assert_close(scores / scores[0], by_gradient / by_gradient[0], 1e-4)


def test_a_sketch_that_leaves_curvature_behind_says_so():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 12)).astype("float32")
    model = keras.Sequential([keras.Input((12,)), layers.Dense(1)])
    wrapped = BaseInfluenceModel(model, loss_function="mse")
    data = tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(20)
    with pytest.warns(CurvatureWarning, match="rank 3 leaves curvature behind.*`rank`"):
        NystromIHVP(wrapped, data, rank=3, damping=1e-3, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NystromIHVP(wrapped, data, rank=3, damping=10.0, seed=0)
        NystromIHVP(wrapped, data, rank=13, damping=1e-3, seed=0)
