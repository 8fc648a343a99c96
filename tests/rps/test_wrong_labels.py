"""Wrong labels stand out by their representer values, on features of any scale and sign.

The oracle minimises the regularised loss by L-BFGS in float64, over nothing but NumPy.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from deel_influence.rps import RepresenterPointL2, RepresenterPointLJE
from tests.oracles import assert_close
from tests.rps.problems import batches, features_and_logits, problem, sigmoid, softmax

PENALTY = 0.003  # the default, which is the authors'
LEAST_AREA = 0.9
"""What an area under the curve has to reach; a ranking without the labels has 0.5 at the most."""


def fitted(f: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Return the W that minimises the mean cross-entropy plus ``λ ‖W‖²``, shape ``(r, c)``."""

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(f.shape[1], y.shape[1])
        logits = f @ weights
        value = -np.mean(np.sum(y * log_softmax(logits, axis=1), axis=1))
        gradient = f.T @ (softmax(logits) - y) / len(f) + 2 * penalty * weights
        return value + penalty * np.sum(weights**2), gradient.ravel()

    start = np.zeros(f.shape[1] * y.shape[1])
    options = {"gtol": 1e-9, "ftol": 1e-15, "maxiter": 5000, "maxfun": 10000}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(f.shape[1], y.shape[1])


class Flipped:
    """Digits as they come, pixels from 0 to 16, with a tenth of the labels replaced."""

    def __init__(self, num_classes: int = 10, factor: float = 1.0, n: int = 300) -> None:
        generator = np.random.default_rng(0)
        x, y = load_digits(n_class=num_classes, return_X_y=True)
        chosen = generator.permutation(len(y))[:n]
        self.wrong = np.arange(n) < n // 10
        others = (y[chosen] + generator.integers(1, num_classes, n)) % num_classes
        self.x = (factor * x[chosen]).astype("float32")
        self.y = np.where(self.wrong, others, y[chosen])
        self.one_hot = np.eye(num_classes)[self.y]
        self.features = np.concatenate([self.x, np.ones((n, 1))], axis=1)

    @property
    def train(self) -> tf.data.Dataset:
        return batches((self.x, self.y), 128)

    def area(self, scores: np.ndarray) -> float:
        return roc_auc_score(self.wrong, scores)

    def own_values(self) -> np.ndarray:
        """Return ``|α_i|`` for the label's class of the head that learnt the labels."""
        p = softmax(self.features @ fitted(self.features, self.one_hot, PENALTY))
        return (1 - p[np.arange(len(p)), self.y]) / (2 * PENALTY * len(p))

    def model(self) -> keras.Model:
        """Return a softmax regression that learnt the labels, the wrong ones too."""
        weights = fitted(self.features, self.one_hot, 10 * PENALTY)
        dense = keras.layers.Dense(weights.shape[1])
        model = keras.Sequential([keras.Input((self.x.shape[1],)), dense])
        dense.set_weights([weights[:-1], weights[-1]])
        model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model


@pytest.mark.parametrize("factor", [1.0, 1 / 16], ids=["from 0 to 16", "from 0 to 1"])
def test_with_nothing_set_wrong_labels_are_found_on_raw_pixels(factor):
    data = Flipped(factor=factor)
    scores = RepresenterPointL2(data.model(), data.train).score(data.train).values
    assert data.area(scores) >= LEAST_AREA
    # float32 features; the oracle's gradient of 1e-9 leaves errors of 1e-7 in W.
    assert_close(scores, data.own_values(), 1e-4)


def test_neither_targets_nor_the_class_of_the_label_change_the_score_of_an_example():
    data = Flipped(factor=1 / 16)
    model, expected = data.model(), data.own_values()
    for settings in (
        {"targets": "labels"},
        {"targets": "labels", "query_class": "label"},
        {"targets": "model", "query_class": "label"},
    ):
        scores = RepresenterPointL2(model, data.train, **settings).score(data.train)
        assert_close(scores, expected, 1e-4)


def test_the_values_of_a_head_that_learnt_predictions_do_not_find_wrong_labels():
    """That is why scores are not theirs: the labels have no part in them."""
    data = Flipped(factor=1 / 16)
    calculator = RepresenterPointL2(data.model(), data.train)
    values = calculator.representer_values(data.train)
    own = np.abs(values[np.arange(len(values)), data.y])
    assert data.area(own) < 0.5


def test_wrong_labels_of_one_logit_are_found_on_raw_pixels():
    data = Flipped(num_classes=2)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(1)])
    model.layers[0].set_weights([np.zeros((64, 1)), np.zeros(1)])
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    train = batches((data.x, data.y[:, None].astype("float32")), 128)
    scores = RepresenterPointL2(model, train).score(train).values
    assert data.area(scores) >= LEAST_AREA
    # Two logits ± v / 2 are one logit v, with half of its penalty.
    weights = fitted(data.features, data.one_hot, 2 * PENALTY)
    logits = data.features @ (weights[:, 1] - weights[:, 0])
    errors = np.abs(sigmoid(logits) - data.y)
    assert_close(scores, errors / (2 * PENALTY * len(errors)), 1e-4)


@pytest.mark.usefixtures("float64")
def test_of_several_outputs_the_largest_value_counts():
    """Ridge regression, in closed form."""
    case = problem("two-outputs")
    model = case.compiled()
    f, _ = features_and_logits(model, case.train[0])
    y, (n, c) = case.train[1], case.train[1].shape
    gram = f.T @ f / (n * c) + PENALTY * np.eye(f.shape[1])
    residuals = y - f @ np.linalg.solve(gram, f.T @ y / (n * c))
    expected = np.abs(residuals).max(axis=1) / (n * c * PENALTY)
    calculator = RepresenterPointL2(model, batches(case.train))
    assert_close(calculator.score(batches(case.train)), expected, 1e-8)
    assert_close(values_of(calculator, batches(case.train)), expected, 1e-8)


def values_of(calculator: RepresenterPointL2, train: tf.data.Dataset) -> np.ndarray:
    """Return the scores of the lazy dataset, which is read in a thread of its own."""
    return np.concatenate([v.numpy() for _, v in calculator.compute_influence_values(train)])


@pytest.mark.parametrize("query_class", ["predicted", "label"])
def test_local_jacobian_expansion_finds_wrong_labels_on_raw_pixels(query_class):
    """The labels are in its gradients, whatever class is looked at."""
    data = Flipped()
    calculator = RepresenterPointLJE(
        data.model(), data.train, "ekfac", query_class=query_class, seed=0
    )
    assert data.area(calculator.score(data.train).values) >= LEAST_AREA
