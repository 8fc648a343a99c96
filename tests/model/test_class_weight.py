"""Class weights as `fit` takes them: against training again, and against sample weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.influence import (
    FirstOrderInfluenceCalculator,
    NewtonStepInfluenceCalculator,
)
from deel_influence.model import InfluenceModel
from tests.oracles import assert_close

layers, optimizers = keras.layers, keras.optimizers


def logistic(class_weight: dict[int, float], left_out: int | None = None) -> keras.Model:
    """Train a softmax classifier in Keras to its minimum, with weight decay and class weights."""
    x, y = blobs()
    kept = np.delete(np.arange(len(x)), [] if left_out is None else left_out)
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, kernel_initializer="zeros")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers.SGD(1.0, weight_decay=0.1), loss, jit_compile=False)
    parts = tf.constant(x[kept]), tf.constant(y[kept])
    for _ in range(150):
        model.train_on_batch(*parts, class_weight=class_weight)
    return model


def blobs() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    y = np.arange(18) % 3
    return generator.normal(size=(18, 2)) + np.array([[1, 0], [-1, 0], [0, 1.5]])[y], y


@pytest.mark.usefixtures("float64")
def test_class_weights_of_fit_are_an_argument():
    """Against training again in Keras; the loss of a query has no class weight."""
    class_weight = {0: 3.0, 2: 0.5}
    x, y = blobs()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(7)
    model = logistic(class_weight)
    wrapped = InfluenceModel(model, class_weight=class_weight)
    calculator = NewtonStepInfluenceCalculator(wrapped, data)
    chosen = [0, 4, 11]
    predicted = calculator.predict_loss_change(data, data, verbose=0)[:, chosen]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    actual = np.stack(
        [loss.call(y, logistic(class_weight, i)(x)) - loss.call(y, model(x)) for i in chosen], 1
    )
    # A Newton step leaves out third order, which is a few percent for one of 18 examples.
    assert_close(predicted, actual, 0.08)
    ignored = NewtonStepInfluenceCalculator(InfluenceModel(model), data)
    other = ignored.predict_loss_change(data, data, verbose=0)[:, chosen]
    assert np.linalg.norm(other - actual) > 0.3 * np.linalg.norm(actual)


@pytest.mark.parametrize("form", ["indices", "columns", "one-hot"])
def test_class_weights_are_sample_weights_by_class_for_training_examples(form):
    x, y = blobs()
    targets = {"indices": y, "columns": y[:, None], "one-hot": np.eye(3)[y]}[form]
    kind = keras.losses.CategoricalCrossentropy if form == "one-hot" else None
    loss = (kind or keras.losses.SparseCategoricalCrossentropy)(from_logits=True)
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3)])
    weights = np.array([2.0, 1.0, 0.25])[y].astype("float32")
    plain = tf.data.Dataset.from_tensor_slices((x, targets)).batch(7)
    weighted = tf.data.Dataset.from_tensor_slices((x, targets, weights)).batch(7)
    one = InfluenceModel(model, loss_function=loss, class_weight={0: 2.0, 2: 0.25})
    other = InfluenceModel(model, loss_function=loss)
    for strategy in ("identity", "ekfac"):
        actual, expected = (
            FirstOrderInfluenceCalculator(m, data, strategy, seed=0).influence_matrix(
                plain, data, verbose=0
            )
            for m, data in ((one, plain), (other, weighted))
        )
        assert_close(actual, expected, 1e-5)
    matrix = FirstOrderInfluenceCalculator(one, plain, "identity")
    scores = matrix.score(plain, verbose=0).values
    assert_close(scores, np.diag(matrix.influence_matrix(plain, plain, verbose=0)), 1e-5)


@pytest.mark.parametrize(
    ("class_weight", "batch", "said"),
    [
        ([1.0, 2.0], None, "must be a dict from class indices"),
        ({}, None, "must be a dict"),
        ({"cat": 1.0}, None, "Received: {'cat': 1.0}"),
        ({0: -1.0}, None, "finite factors >= 0"),
        ({0: float("nan")}, None, "finite factors >= 0"),
        ({0: 1.0}, (np.zeros((2, 2)), [0, 1], [1.0, 1.0]), "must be None for data with sample"),
        ({0: 1.0}, (np.zeros((2, 2)), {"a": [0, 1]}), "one output"),
        ({0: 1.0}, (np.zeros((2, 2)), np.zeros((2, 3, 1))), "one label for each example"),
    ],
    ids=["list", "empty", "name", "negative", "nan", "weights", "outputs", "positions"],
)
def test_class_weights_that_fit_would_not_take_are_refused(class_weight, batch, said):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=said):
        InfluenceModel(
            model, loss_function="sparse_categorical_crossentropy", class_weight=class_weight
        ).per_example_losses(batch)
