from __future__ import annotations

import keras
import numpy as np
import pytest

from deel_influence.errors import UnknownLayerError, UnsupportedModelError
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from tests.cases import nested, subclassed

layers = keras.layers


@pytest.fixture
def model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.Dense(3, name="last"),
            layers.Softmax(name="softmax"),
        ]
    )


def watched(model: keras.Model, *selection: object) -> list[str]:
    wrapped = InfluenceModel(model, *selection, loss_function="mse")
    return [v.path.split("/", 1)[-1] for v in wrapped.weights]


def test_the_last_layer_with_weights_is_the_default(model):
    assert watched(model) == ["last/kernel", "last/bias"]


def test_a_range_takes_trainable_weights_only(model):
    names = ["first/kernel", "first/bias", "norm/gamma", "norm/beta", "last/kernel", "last/bias"]
    assert watched(model, "first", "last") == names
    assert watched(model, 0, -1) == names
    assert watched(model, "norm") == names[2:4]


def test_layers_of_nested_models_are_found_by_name():
    inner = nested().get_layer("inner").layers[0].name
    assert inner
    keras_model = nested()
    name = keras_model.get_layer("inner").layers[0].name
    wrapped = InfluenceModel(keras_model, name, loss_function="mse")
    assert [v.name for v in wrapped.weights] == ["kernel", "bias"]


def test_subclassed_models_can_be_watched():
    assert InfluenceModel(subclassed(), loss_function="mse").nb_params == 10


def test_shared_layers_are_watched_once():
    shared = layers.Dense(4, name="shared")
    x = keras.Input((4,))
    model = keras.Model(x, shared(shared(x)))
    assert InfluenceModel(model, loss_function="mse").nb_params == 20


def test_weights_may_be_keras_or_tensorflow_variables_in_any_nest(model):
    first, last = model.get_layer("first"), model.get_layer("last")
    nest = [[first.kernel], {"bias": last.bias.value}]
    wrapped = BaseInfluenceModel(model, nest, loss_function="mse")
    assert [v is w for v, w in zip(wrapped.weights, [first.kernel, last.bias], strict=True)]
    assert wrapped.nb_params == 4 * 8 + 3


def test_flat_vectors_go_back_to_the_variables_shapes(model):
    wrapped = BaseInfluenceModel(model, loss_function="mse")
    vector = wrapped.layout.flatten([v.value for v in wrapped.weights])
    for tensor, variable in zip(wrapped.layout.unflatten(vector), wrapped.weights, strict=True):
        np.testing.assert_array_equal(tensor, variable.numpy())


def test_batch_statistics_cannot_be_watched(model):
    statistics = model.get_layer("norm").moving_mean
    with pytest.raises(UnsupportedModelError, match="batch statistics.*moving_mean"):
        BaseInfluenceModel(model, [statistics], loss_function="mse")


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (("no_such",), "`start_layer` must name a layer.*'no_such'.*'first', 'norm', 'last'"),
        ((9,), "`start_layer` must be an index from -5 to 4, or a name. Received: 9"),
        ((1.5,), "`start_layer` must be a layer's name or index, or None. Received: 1.5"),
        (("last", "first"), "`last_layer` must not come before `start_layer`"),
        (("first", "no_such"), "`last_layer` must name a layer of the model"),
    ],
)
def test_an_unknown_layer_is_refused(model, selection, message):
    with pytest.raises(UnknownLayerError, match=message):
        InfluenceModel(model, *selection, loss_function="mse")


def test_a_layer_without_weights_is_refused_and_others_are_named(model):
    with pytest.raises(UnsupportedModelError, match="trainable weights.*relu.*'first'"):
        InfluenceModel(model, "relu", loss_function="mse")


def test_a_frozen_model_is_refused(model):
    model.trainable = False
    with pytest.raises(UnsupportedModelError, match="frozen"):
        InfluenceModel(model, loss_function="mse")


def test_an_unbuilt_model_is_refused():
    with pytest.raises(UnsupportedModelError, match="must be built"):
        InfluenceModel(keras.Sequential([layers.Dense(2)]), loss_function="mse")


def test_what_is_no_keras_model_is_refused():
    with pytest.raises(TypeError, match="must be a keras.Model. Received: str"):
        InfluenceModel("model.keras")
