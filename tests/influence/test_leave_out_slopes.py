"""Predicted changes of loss against retraining to the minimum, for examples and groups of ten."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.datasets import load_iris

from deel_influence.errors import ConvergenceError
from deel_influence.ihvp import ExactIHVP
from deel_influence.influence import (
    FirstOrderInfluenceCalculator,
    NewtonStepInfluenceCalculator,
    SecondOrderInfluenceCalculator,
)
from deel_influence.model import InfluenceModel
from tests.influence.test_first_order import LogisticRegression
from tests.influence.test_newton_step import C, batches

layers = keras.layers
pytestmark = pytest.mark.usefixtures("float64")


def wrapped(problem: LogisticRegression) -> InfluenceModel:
    regularizer = keras.regularizers.L2(problem.penalty / 2)
    dense = layers.Dense(1, use_bias=False, kernel_regularizer=regularizer)
    network = keras.Sequential([keras.Input((30,)), dense])
    dense.kernel.assign(problem.start[:, None])
    return InfluenceModel(network, loss_function=keras.losses.BinaryCrossentropy(True))


def slope(predicted: np.ndarray, actual: np.ndarray) -> float:
    return np.polyfit(actual.ravel(), predicted.ravel(), 1)[0]


def test_predicted_changes_agree_with_retraining_without_examples_and_groups_of_ten():
    problem = LogisticRegression(0.01)
    order = np.random.default_rng(0).permutation(len(problem.y))
    removed = order[:30]
    actual = problem.actual_changes(removed)
    data = [
        batches((problem.xq, problem.yq.astype(float)), 50),
        batches((problem.x[removed], problem.y[removed].astype(float)), 15),
    ]
    train = batches((problem.x, problem.y.astype(float)), 100)
    model = wrapped(problem)
    calculator = NewtonStepInfluenceCalculator(model, train)
    predicted = calculator.predict_loss_change(*data)
    assert abs(slope(predicted, actual) - 1) <= 0.05
    assert np.corrcoef(actual.ravel(), predicted.ravel())[0, 1] >= 0.998
    first = FirstOrderInfluenceCalculator(model, train).predict_loss_change(*data)
    errors = [np.linalg.norm(values - actual) for values in (predicted, first)]
    assert errors[0] < 0.3 * errors[1]
    groups = np.full(len(order), -1)
    groups[order[:200]] = np.repeat(np.arange(20), 10)
    before = problem.query_losses(problem.start)
    without = [problem.query_losses(problem.fit(groups != j)) - before for j in range(20)]
    of_groups = calculator.predict_loss_change(data[0], train, groups)
    assert abs(slope(of_groups, np.stack(without, axis=1)) - 1) <= 0.05


def test_predicted_changes_agree_with_retraining_the_head_of_a_network():
    """Iris, three classes: the leverage is a matrix of c×c, and the head is at its minimum."""
    x, y = load_iris(return_X_y=True)
    penalty = float(np.float32(0.005))  # Keras keeps the factor in float32
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    keras.utils.set_random_seed(0)
    regularizer = keras.regularizers.L2(0.005)
    # Without a bias, whose common part no data pin down.
    dense = layers.Dense(C, "softmax", use_bias=False, kernel_regularizer=regularizer)
    network = keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), dense])
    features = network.layers[0](x).numpy()

    def fit(keep: np.ndarray, start: np.ndarray) -> np.ndarray:
        def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
            kernel = w.reshape(5, C)
            found = softmax(features[keep] @ kernel, axis=1)
            value = -np.log(found[np.arange(len(found)), y[keep]]).mean()
            slopes = features[keep].T @ (found - np.eye(C)[y[keep]]) / len(found)
            slopes += 2 * penalty * kernel
            return value + penalty * np.sum(kernel**2), slopes.ravel()

        options = {"maxiter": 10000, "ftol": 1e-15, "gtol": 1e-10}
        return minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x

    def losses(w: np.ndarray) -> np.ndarray:
        return -np.log(softmax(features @ w.reshape(5, C), axis=1)[np.arange(len(y)), y])

    whole = fit(np.ones(len(y), bool), np.zeros(5 * C))
    dense.set_weights([whole.reshape(5, C)])
    model = InfluenceModel(network, loss_function=keras.losses.SparseCategoricalCrossentropy())
    data = batches((x, y), 40)
    order = np.random.default_rng(0).permutation(len(y))
    single, groups = (np.full(len(y), -1) for _ in range(2))
    single[order[:30]] = np.arange(30)
    groups[order[:100]] = np.repeat(np.arange(10), 10)
    one_by_one = NewtonStepInfluenceCalculator(model, data)
    # Ten are 7 % of the training set, where members count for each other.
    at_once = SecondOrderInfluenceCalculator(model, data, step="newton")
    for labels, calculator in ((single, one_by_one), (groups, at_once)):
        changed = [fit(labels != j, whole) for j in range(labels.max() + 1)]
        actual = np.stack([losses(w) for w in changed], axis=1) - losses(whole)[:, None]
        predicted = calculator.predict_loss_change(data, data, labels)
        assert abs(slope(predicted, actual) - 1) <= 0.05


def test_a_group_that_decides_alone_is_refused_with_the_remedy():
    """Each example is alone in its feature."""
    x, y = np.diag([1.0, 2.0, 3.0]), np.ones((3, 1))
    network = keras.Sequential([keras.Input((3,)), layers.Dense(1, use_bias=False)])
    model = InfluenceModel(network, loss_function="mse")
    data = batches((x, y), 2)
    exact = ExactIHVP(model, data, damping=0.0)
    calculator = SecondOrderInfluenceCalculator(model, data, exact, step="newton")
    with pytest.raises(ConvergenceError, match=r"without group 0.*larger `damping`"):
        calculator.influence_matrix(data, data)
