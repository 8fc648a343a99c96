"""`evaluate` on a logistic regression: influence is worth what theory says, controls little."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import minimize

from deel_influence.evaluation.evaluating import evaluate
from deel_influence.evaluation.evaluation import Evaluation
from deel_influence.evaluation.retraining import retrain
from deel_influence.evaluation.subsets import leave_groups_out, leave_one_out, random_subsets
from deel_influence.influence.first_order import FirstOrderInfluenceCalculator
from deel_influence.influence.newton_step import NewtonStepInfluenceCalculator
from deel_influence.influence.second_order import SecondOrderInfluenceCalculator
from deel_influence.model.influence_model import InfluenceModel

L2 = 0.05


@pytest.fixture(scope="module")
def logistic() -> SimpleNamespace:
    """Three classes, some labels wrong, a regularised logistic regression at its optimum."""
    generator = np.random.default_rng(1)
    centres = generator.normal(size=(3, 4)) * 3.0
    y = generator.integers(0, 3, size=70)
    x = centres[y] + generator.normal(size=(70, 4))
    wrong = np.zeros(60, bool)
    wrong[generator.choice(60, 8, replace=False)] = True
    y[:60] = np.where(wrong, (y[:60] + 1) % 3, y[:60])
    queries = (x[60:], y[60:])

    def objective(flat, positions):
        weights = flat.reshape(4, 3)
        probabilities = softmax(x[positions] @ weights)
        own = probabilities[np.arange(len(positions)), y[positions]]
        errors = probabilities - np.eye(3)[y[positions]]
        gradient = x[positions].T @ errors / len(positions) + 2 * L2 * weights
        return -np.log(own).mean() + L2 * (weights**2).sum(), gradient.ravel()

    def train(positions, seed):
        options = {"gtol": 1e-9, "ftol": 0.0, "maxiter": 500}
        found = minimize(
            objective, np.zeros(12), (positions,), "L-BFGS-B", jac=True, options=options
        )
        return found.x.reshape(4, 3)

    def measure(weights):
        return -np.log(softmax(queries[0] @ weights)[np.arange(10), queries[1]])

    layer = keras.layers.Dense(3, use_bias=False, kernel_regularizer=keras.regularizers.L2(L2))
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.set_weights([train(np.arange(60), 0)])
    as_dataset = tf.data.Dataset.from_tensor_slices
    return SimpleNamespace(
        model=InfluenceModel(model),
        train_set=as_dataset((x[:60].astype("float32"), y[:60])).batch(25),
        queries=as_dataset((queries[0].astype("float32"), queries[1])).batch(10),
        wrong=wrong,
        truth={
            "halves": retrain(train, measure, random_subsets(60, 40), verbose=0),
            "ones": retrain(train, measure, leave_one_out(60, range(30)), verbose=0),
            "groups": retrain(train, measure, leave_groups_out(60, np.arange(60) % 6), verbose=0),
        },
    )


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def judgement(logistic) -> Evaluation:
    model, train_set = logistic.model, logistic.train_set
    calculators = {
        "first order": lambda: FirstOrderInfluenceCalculator(model, train_set, "exact"),
        "second order": lambda: SecondOrderInfluenceCalculator(model, train_set, "exact"),
        "Newton step": NewtonStepInfluenceCalculator(model, train_set),
    }
    return evaluate(
        calculators,
        train_set,
        logistic.queries,
        truth=logistic.truth,
        mislabelled=logistic.wrong,
        model=model,
        num_resamples=100,
        verbose=0,
    )


def test_influence_predicts_retraining_and_random_scores_do_not(judgement):
    table = judgement.table
    assert table["halves: LDS"]["first order"] > 0.8
    assert table["halves: LDS"]["first order"] > table["halves: LDS"]["random"] + 0.5
    assert table["ones: Pearson"]["first order"] > 0.99
    # With 60 examples, some far from their class, the Hessian without one is another.
    assert table["ones: slope"]["first order"] == pytest.approx(1.0, abs=0.15)
    assert table["ones: slope"]["Newton step"] == pytest.approx(1.0, abs=0.03)


def test_groups_are_predicted_as_groups_where_the_calculator_can(judgement):
    table = judgement.table
    assert table["groups: Pearson"]["second order"] > table["groups: Pearson"]["first order"]
    first, second = table["groups: slope"][["first order", "second order"]]
    assert abs(second - 1) < abs(first - 1)


def test_wrong_labels_are_found_and_controls_are_rows(judgement):
    table = judgement.table
    assert list(table.index)[-2:] == ["loss", "random"]
    assert table["ROC AUC"]["first order"] > 0.85
    assert table["ROC AUC"]["random"] == 0.5
    assert np.isfinite(table["ROC AUC"]["loss"])


def test_only_what_was_made_here_has_a_time_to_fit(judgement):
    seconds = judgement.table["fit seconds"]
    assert seconds["first order"] > 0
    assert np.isnan(seconds["Newton step"])
    assert judgement.missing["Newton step"]["fit seconds"] == "the calculator was made before"
