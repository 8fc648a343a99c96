"""Models, losses, measurements and layers that cannot be used, each refused in one line."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.common import BaseInfluenceModel, InfluenceModel
from deel_influence.errors import (
    CoupledExamplesError,
    LabelError,
    LossShapeError,
    MissingLossError,
    NoGradientError,
    SavedCurvatureError,
    UnknownLayerError,
    UnsupportedModelError,
)
from deel_influence.influence import (
    FirstOrderInfluenceCalculator,
    NewtonStepInfluenceCalculator,
)
from deel_influence.trac_in import TracIn
from tests.errors.small import CE, D, Row, Small, batches, check_row, network, row

layers = keras.layers


def legacy() -> Any:
    """Return a stand-in for a model of Keras 2, by what tells it from one of Keras 3."""
    return type("Sequential", (tf.Module,), {"__module__": "tf_keras.src.engine.sequential"})()


def stateful() -> keras.Model:
    recurrent = layers.LSTM(2, stateful=True, name="memory")
    return network(recurrent, layers.Dense(3), inputs=keras.Input(batch_shape=(4, 5, 2)))


def of_four() -> keras.Model:
    inputs = keras.Input((D,), batch_size=4)
    model = keras.Model(inputs, keras.ops.reshape(layers.Dense(3)(inputs), (4, 3)))
    model.compile(loss=CE)
    return model


def quantised(small: Small) -> Any:
    model = network()
    calculator = FirstOrderInfluenceCalculator(InfluenceModel(model), batches(), "identity")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers without weights
        model.quantize("int8")
    return calculator.score(batches(), verbose=0)


def changed_since_the_fit(small: Small) -> Any:
    model = network()
    calculator = NewtonStepInfluenceCalculator(InfluenceModel(model), batches(), damping=0.1)
    model.layers[-1].set_weights([2 * part for part in model.layers[-1].get_weights()])
    return calculator.score(batches(), verbose=0)


def frozen() -> keras.Model:
    model = network()
    model.trainable = False
    return model


def two_outputs(loss: Any) -> InfluenceModel:
    inputs = keras.Input((D,))
    outputs = {"a": layers.Dense(3, name="a")(inputs), "b": layers.Dense(1, name="b")(inputs)}
    return InfluenceModel(keras.Model(inputs, outputs), loss_function=loss)


def losses_of_two(loss: Any, targets: Any) -> Any:
    return two_outputs(loss).per_example_losses((np.zeros((2, D), np.float32), targets))


LABELS = {"a": np.zeros(2), "b": np.zeros((2, 1))}

ROWS: dict[str, Row] = {
    "a model of Keras 2": row(
        lambda s: InfluenceModel(legacy(), loss_function="mse"), TypeError, "`model`", "tf_keras"
    ),
    "a path": row(lambda s: InfluenceModel("model.keras"), TypeError, "`model`", "load_model"),
    "a wrapped model": row(lambda s: InfluenceModel(s.model), TypeError, "wrapped already"),
    "the class of a model": row(lambda s: InfluenceModel(keras.Model), TypeError, "class itself"),
    "a function": row(lambda s: InfluenceModel(len), TypeError, "`model`", "rebuilt in Keras 3"),
    "a model that is not built": row(
        lambda s: InfluenceModel(keras.Sequential([layers.Dense(3)]), loss_function="mse"),
        UnsupportedModelError,
        "must be built",
        "Call it once",
    ),
    "a model with a state": row(
        lambda s: InfluenceModel(stateful()), UnsupportedModelError, "['memory']", "stateful=False"
    ),
    "a model of batches of four": row(
        lambda s: FirstOrderInfluenceCalculator(InfluenceModel(of_four()), batches(size=4)),
        UnsupportedModelError,
        "batches of any size",
        "batch_size",
    ),
    "a model quantised since": row(quantised, UnsupportedModelError, "quantize()", "Wrap"),
    "a model of other weights since": row(
        changed_since_the_fit, SavedCurvatureError, "must not change", "Make the calculator again"
    ),
    "a frozen model": row(lambda s: InfluenceModel(frozen()), UnsupportedModelError, "frozen"),
    "no layer with weights": row(
        lambda s: InfluenceModel(network(layers.Softmax())), UnsupportedModelError, "weights"
    ),
    "a layer that is not there": row(
        lambda s: InfluenceModel(s.keras, "head"), UnknownLayerError, "'head'", "['hidden'"
    ),
    "an index too far": row(
        lambda s: InfluenceModel(s.keras, 7), UnknownLayerError, "`start_layer`", "from -2 to 1"
    ),
    "layers in the wrong order": row(
        lambda s: InfluenceModel(s.keras, "logits", "hidden"), UnknownLayerError, "Swap them"
    ),
    "a layer that is no key": row(
        lambda s: InfluenceModel(s.keras, 1.5), UnknownLayerError, "`start_layer`", "1.5"
    ),
    "weights of another model": row(
        lambda s: BaseInfluenceModel(s.keras, network().trainable_variables),
        UnsupportedModelError,
        "`weights_to_watch`",
    ),
    "no weights": row(
        lambda s: BaseInfluenceModel(s.keras, []), UnsupportedModelError, "at least one variable"
    ),
    "no loss": row(
        lambda s: InfluenceModel(network(loss=None)), MissingLossError, "`loss_function=`"
    ),
    "a loss that is none": row(
        lambda s: InfluenceModel(s.keras, loss_function=3), ValueError, "`loss_function`", "3"
    ),
    "a loss of no such name": row(
        lambda s: InfluenceModel(s.keras, loss_function="nope"), ValueError, "'nope'"
    ),
    "a loss that is a scalar": row(
        lambda s: s.score(loss_function=lambda y, p: tf.reduce_mean(p)),
        LossShapeError,
        "`loss_function`",
        'reduction="none"',
    ),
    "a loss of each class": row(
        lambda s: s.score(loss_function=lambda y, p: tf.reduce_mean(p, axis=0)),
        LossShapeError,
        "shape (3,) for a batch",
    ),
    "a loss of half the batch": row(
        lambda s: s.score(loss_function=lambda y, p: p[::2, 0]), LossShapeError, "shape (3,)"
    ),
    "a loss of pairs": row(
        lambda s: s.score(loss_function=lambda y, p: tf.matmul(p, p, transpose_b=True)),
        CoupledExamplesError,
        "because of the loss",
    ),
    "a loss of texts": row(
        lambda s: s.score(loss_function=lambda y, p: tf.as_string(p)), LossShapeError, "string"
    ),
    "a loss without a gradient": row(
        lambda s: s.score(loss_function=lambda y, p: tf.cast(tf.argmax(p, 1), tf.float32)),
        NoGradientError,
        "argmax",
    ),
    "a loss that returns nothing": row(
        lambda s: s.score(loss_function=lambda y, p: None), LabelError, "the loss"
    ),
    "a loss of one argument": row(
        lambda s: s.score(loss_function=lambda y: y), LabelError, "takes 1 positional argument"
    ),
    "a loss for an unknown output": row(
        lambda s: losses_of_two({"a": CE, "c": "mse"}, LABELS), LabelError, "loss_function", "['c']"
    ),
    "a list of losses for a dict": row(
        lambda s: losses_of_two([CE, "mse"], LABELS), LabelError, "dict with keys"
    ),
    "a list of losses in a dict": row(
        lambda s: losses_of_two({"a": [CE], "b": ["mse"]}, LABELS), LabelError, "list", "output 'a'"
    ),
    "a dict of losses for one output": row(
        lambda s: losses_of_two({"a": {"x": CE}}, LABELS), LabelError, "dict of 1", "single output"
    ),
    "one array of labels for two outputs": row(
        lambda s: losses_of_two({"a": CE, "b": "mse"}, np.zeros(2)), LabelError, "targets"
    ),
    "no loss for any output": row(
        lambda s: losses_of_two({"a": None, "b": None}, LABELS), MissingLossError, "at least one"
    ),
    "a measurement that is a scalar": row(
        lambda s: s.measure(lambda y, p: tf.reduce_mean(p)), LossShapeError, "`measurement`"
    ),
    "a measurement of each class": row(
        lambda s: s.measure(lambda y, p: p[0]), LossShapeError, "`measurement`", "shape (3,)"
    ),
    "a measurement of texts": row(
        lambda s: s.measure(lambda y, p: tf.as_string(p)), LossShapeError, "`measurement`", "string"
    ),
    "a measurement that returns nothing": row(
        lambda s: s.measure(lambda y, p: None), LabelError, "`measurement`"
    ),
    "a measurement of one argument": row(
        lambda s: s.measure(lambda p: p), LabelError, "measurement", "2 were given"
    ),
    "a measurement of no such name": row(
        lambda s: s.measure("surprise"), ValueError, "`measurement`", "'surprise'", "'margin'"
    ),
    "a measurement without a gradient": row(
        lambda s: s.measure(lambda y, p: tf.argmax(p, 1)), NoGradientError, "measurement"
    ),
    "positions neither summed nor averaged": row(
        lambda s: InfluenceModel(s.keras, loss_over_positions="max"), ValueError, "'max'"
    ),
    "class weights in a list": row(
        lambda s: InfluenceModel(s.keras, class_weight=[1, 2, 3]), ValueError, "`class_weight`"
    ),
    "a weight decay below zero": row(
        lambda s: InfluenceModel(s.keras, weight_decay=-1), ValueError, "`weight_decay`", "-1"
    ),
    "no checkpoints": row(lambda s: TracIn([], []), ValueError, "`models`"),
}


@pytest.mark.parametrize("case", ROWS.values(), ids=ROWS)
def test_a_model_that_cannot_be_used_is_refused_in_one_line(case: Row, small: Small) -> None:
    check_row(case, small)
