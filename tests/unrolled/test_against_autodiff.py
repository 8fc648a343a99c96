"""Recorded runs are those of Keras, and their derivatives those of one tape around them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.unrolled import UnrolledInfluenceCalculator, record_fit, retrain
from tests.oracles import assert_close
from tests.unrolled.runs import (
    BATCH,
    EPOCHS,
    RECIPES,
    M,
    N,
    Recipe,
    arrays,
    compiled,
    influence_on_tape,
    recorded,
    trained_on_tape,
)

pytestmark = pytest.mark.usefixtures("float64")
STEP = 1e-4


def losses(model: keras.Model) -> np.ndarray:
    x, y = arrays(M, 9)
    outputs = model(x, training=False)
    return np.array(keras.losses.sparse_categorical_crossentropy(y, outputs, from_logits=True))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_run_is_that_of_fit_and_its_influence_the_derivative_through_all_of_it(
    recipe: Recipe,
) -> None:
    run, model = recorded(recipe, checkpoint_every=5), compiled(recipe)
    x, y = arrays(N, 0)
    for epoch in range(EPOCHS):
        rows = run.order.of_epoch(epoch)
        model.fit(x[rows], y[rows], batch_size=BATCH, shuffle=False, verbose=0)
    if recipe.eps_root:  # which `fit` has not got
        theta, _ = trained_on_tape(recipe, run, tf.ones(N, tf.float64))
        expected = [weight.numpy() for weight in theta]
    else:
        expected = model.get_weights()
    for mine, theirs in zip(run.model.model.get_weights(), expected, strict=True):
        assert_close(mine, theirs, rtol=1e-10)
    values = UnrolledInfluenceCalculator(run, queries_at_once=2).influence_matrix(
        arrays(M, 9), verbose=0
    )
    assert_close(values, influence_on_tape(recipe, run), rtol=1e-8)


@pytest.mark.parametrize(
    ("name", "from_step"), [("statistics and dropout", 0), ("AdamW, clipped", 4)]
)
def test_retraining_with_one_weight_moved_agrees(name: str, from_step: int) -> None:
    run = recorded(RECIPES[name])
    calculator = UnrolledInfluenceCalculator(run, from_step=from_step)
    predicted = calculator.predict_loss_change(arrays(M, 9), verbose=0)
    moved = [np.ones(N) + sign * STEP * np.eye(N)[4] for sign in (1, -1)]
    above, below = (losses(retrain(run, weights, from_step)) for weights in moved)
    assert_close(predicted[:, 4], -(above - below) / (2 * STEP), rtol=1e-5)


def test_at_the_minimum_of_a_convex_objective_it_is_the_influence_value() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, N, 4))
    y, penalty = y[:, :1], keras.regularizers.L2(0.1)
    layer = keras.layers.Dense(1, use_bias=False, kernel_regularizer=penalty)
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    run = record_fit(model, (x, y), epochs=300, batch_size=N, verbose=0)
    values = UnrolledInfluenceCalculator(run).influence_matrix((x, y), verbose=0)
    gradients = 2 * x * (x @ layer.kernel.numpy() - y)
    hessian = 2 / N * x.T @ x + 0.2 * np.eye(4)
    assert_close(values, gradients @ np.linalg.solve(hessian, gradients.T), rtol=1e-6)
