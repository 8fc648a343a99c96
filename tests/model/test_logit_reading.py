"""One logit is read as one, in whatever form its loss was given."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import NoGradientWarning
from deel_influence.gradients.engine import GradientEngine
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from deel_influence.model.measurements import gives_logits
from deel_influence.report.triage import run_triage

layers, losses = keras.layers, keras.losses
N = 40

OF_LOGITS = {
    "object": losses.BinaryCrossentropy(from_logits=True),
    "list": [losses.BinaryCrossentropy(from_logits=True)],
    "focal": losses.BinaryFocalCrossentropy(from_logits=True),
    "partial": partial(losses.binary_crossentropy, from_logits=True),
    "closure": lambda y, o: losses.binary_crossentropy(y, o, from_logits=True),
    "listed closure": [lambda y, o: losses.binary_crossentropy(y, o, from_logits=True)],
    "tensorflow": lambda y, o: tf.nn.sigmoid_cross_entropy_with_logits(y, o),
}
OF_PROBABILITIES = {
    "name": "binary_crossentropy",
    "object": losses.BinaryCrossentropy(),
    "list": [losses.BinaryCrossentropy()],
    "closure": lambda y, o: losses.binary_crossentropy(y, o),
}


def problem(loss: object, activation: str | None) -> tuple[keras.Model, tf.data.Dataset]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N, 5)).astype("float32")
    y = generator.integers(0, 2, (N, 1)).astype("float32")
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1, activation, name="out")])
    model.compile(loss=loss)
    return model, tf.data.Dataset.from_tensor_slices((x, y)).batch(16)


# Keras cannot write a partial down, which the library warns of where it looks for loss weights.
@pytest.mark.filterwarnings("ignore:The model is compiled with a loss")
@pytest.mark.parametrize("form", OF_LOGITS)
def test_a_logit_above_zero_predicts_one(form):
    model, data = problem(OF_LOGITS[form], None)
    wrapped = InfluenceModel(model)
    calculator = FirstOrderInfluenceCalculator(wrapped, data, "identity")
    triage = run_triage(wrapped, calculator, data, verbose=0)
    logits = model.predict(data, verbose=0)[:, 0]
    assert np.any((logits > 0) & (logits < 0.5))  # where the two thresholds differ
    np.testing.assert_array_equal(triage.predicted, logits > 0)
    assert gives_logits(wrapped)


@pytest.mark.parametrize("form", OF_PROBABILITIES)
def test_a_probability_above_a_half_predicts_one(form):
    model, data = problem(OF_PROBABILITIES[form], "sigmoid")
    wrapped = InfluenceModel(model)
    calculator = FirstOrderInfluenceCalculator(wrapped, data, "identity")
    triage = run_triage(wrapped, calculator, data, verbose=0)
    np.testing.assert_array_equal(triage.predicted, model.predict(data, verbose=0)[:, 0] > 0.5)
    assert not gives_logits(wrapped)


def test_values_are_predicted_as_they_are():
    model, data = problem(lambda y, o: tf.square(y - o), None)
    wrapped = InfluenceModel(model)
    data = data.map(lambda x, y: (x, y * 1.5))
    calculator = FirstOrderInfluenceCalculator(wrapped, data, "identity")
    triage = run_triage(wrapped, calculator, data, verbose=0)
    np.testing.assert_allclose(triage.predicted, model.predict(data, verbose=0)[:, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "outputs"), [("binary_crossentropy", 1), ("sparse_categorical_crossentropy", 3)]
)
def test_logits_in_a_loss_of_probabilities_are_said(loss, outputs):
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(20, 5)).astype("float32"), np.arange(20) % 2
    model = keras.Sequential([keras.Input((5,)), layers.Dense(outputs)])
    wrapped = BaseInfluenceModel(model, loss_function=loss)
    with pytest.warns(NoGradientWarning, match=f"{loss} takes probabilities.*from_logits=True"):
        GradientEngine(wrapped).prepare((x, y))
