"""What is measured on queries: the numbers of the loss and the margin, compiled once a model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from deel_influence.errors import NonFiniteError
from deel_influence.evaluation import QueryOutputs, retrain

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(7, 3)).astype("float32")
LABELS = np.array([0, 1, 2, 3, 0, 1, 2])


def make_model() -> keras.Model:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def logits_of(model: keras.Model) -> np.ndarray:
    kernel, bias = model.get_weights()
    return INPUTS.astype(np.float64) @ kernel + bias


def test_losses_are_those_of_each_query() -> None:
    model = make_model()
    expected = -log_softmax(logits_of(model), axis=1)[np.arange(7), LABELS]
    outputs = QueryOutputs(INPUTS, LABELS, batch_size=3)(model)
    assert outputs.dtype == np.float64
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)


def test_margins_are_log_odds() -> None:
    model = make_model()
    logits = logits_of(model)
    own = np.eye(4, dtype=bool)[LABELS]
    expected = logits[own] - logsumexp(np.where(own, -np.inf, logits), axis=1)
    measure = QueryOutputs(INPUTS, LABELS, "margin")
    np.testing.assert_allclose(measure(model), expected, rtol=1e-4, atol=1e-6)


def test_only_margins_and_logits_are_known_to_be_better_when_higher() -> None:
    names = ("loss", "margin", "logit", None, abs)
    found = [QueryOutputs(INPUTS, LABELS, name).higher_is_better for name in names]
    assert found == [False, True, True, False, None]


def test_weights_that_change_and_other_models_are_measured_as_they_are() -> None:
    measure, model, other = QueryOutputs(INPUTS, LABELS), make_model(), make_model()
    before = measure(model)
    model.set_weights(other.get_weights())
    after = measure(model)
    assert np.abs(after - before).max() > 0.01
    np.testing.assert_array_equal(after, measure(other))


def test_another_loss_can_be_given() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    outputs = QueryOutputs(INPUTS, LABELS, loss="mse")(model)
    expected = (logits_of(model)[:, 0] - LABELS) ** 2
    np.testing.assert_allclose(outputs, expected, rtol=1e-4)


def test_models_of_several_inputs_are_measured() -> None:
    one, other = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([one, other], keras.layers.Dense(1)(keras.layers.Add()([one, other])))
    outputs = QueryOutputs((INPUTS, 2 * INPUTS), LABELS, loss="mse", batch_size=4)(model)
    expected = (3 * logits_of(model)[:, 0] - LABELS) ** 2
    np.testing.assert_allclose(outputs, expected, rtol=1e-4)


def test_models_that_diverged_are_refused() -> None:
    model = make_model()
    model.set_weights([np.full((3, 4), np.nan), np.zeros(4)])
    with pytest.raises(NonFiniteError, match="7 of 7 that are NaN or infinite.*query 0"):
        QueryOutputs(INPUTS, LABELS)(model)


@pytest.mark.parametrize(("inputs", "labels"), [(INPUTS, LABELS[:3]), (INPUTS[:0], LABELS[:0])])
def test_each_query_needs_a_label(inputs: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"`inputs` and `labels` must have one row for each"):
        QueryOutputs(inputs, labels)


def test_diverged_models_are_named_in_a_retraining() -> None:
    def train(positions: np.ndarray, seed: int) -> keras.Model:
        model = make_model()
        model.set_weights([np.full((3, 4), np.nan), np.zeros(4)])
        return model

    with pytest.raises(NonFiniteError, match="query 0.*after training on all examples, seed 5"):
        retrain(train, QueryOutputs(INPUTS, LABELS), np.eye(2, dtype=bool), seeds=(5,), verbose=0)
