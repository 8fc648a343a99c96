from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import DefaultLayerWarning, UnknownLayerError, UnsupportedModelError
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


class HeadFirst(keras.Model):
    """Makes its layers in another order than it runs them."""

    def __init__(self, *others: layers.Layer) -> None:
        super().__init__()
        self.head = layers.Dense(3, name="head")
        self.body = layers.Dense(4, "relu", name="body")
        self.others = list(others)

    def call(self, x):
        return self.head(self.body(x))


class TwoHeads(HeadFirst):
    def call(self, x):
        features = self.body(x)
        return {"seen": self.head(features), "unseen": self.others[0](features)}


class Tokens(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.head = layers.Dense(2, name="head")
        self.table = layers.Embedding(7, 4, name="body")

    def call(self, inputs):
        return self.head(tf.reduce_mean(self.table(inputs["tokens"]), axis=1))


def called(model: keras.Model, inputs: object = None) -> keras.Model:
    model(np.zeros((2, 4), "float32") if inputs is None else inputs)
    return model


def with_unused_layer() -> keras.Model:
    unused = layers.Dense(2, name="unused")
    unused.build((None, 4))
    return called(HeadFirst(unused))


def two_heads(order: tuple[str, ...]) -> keras.Model:
    x = keras.Input((4,))
    features = layers.Dense(5, name="body")(x)
    outputs = {name: layers.Dense(3, name=name)(features) for name in order}
    return keras.Model(x, outputs)


def nested_head(is_subclassed: bool) -> keras.Model:
    if is_subclassed:
        head = called(HeadFirst(), np.zeros((2, 5), "float32"))
    else:
        head = keras.Sequential(
            [keras.Input((5,)), layers.Dense(6, name="middle"), layers.Dense(3, name="head")]
        )
    return keras.Sequential([keras.Input((4,)), layers.Dense(5, name="first"), head])


@pytest.mark.parametrize(
    ("build", "loss"),
    [
        (lambda: called(HeadFirst()), "mse"),
        (with_unused_layer, "mse"),
        (lambda: called(TwoHeads(layers.Dense(2, name="other"))), {"seen": "mse", "unseen": None}),
        (lambda: called(Tokens(), {"tokens": np.zeros((2, 3), "int32")}), "mse"),
        (lambda: nested_head(False), "mse"),
        (lambda: nested_head(True), "mse"),
        (lambda: two_heads(("head", "other")), {"head": "mse"}),
        (lambda: two_heads(("other", "head")), {"head": "mse", "other": None}),
        (lambda: two_heads(("head", "other")), ["mse", None]),
    ],
    ids=[
        "head made first",
        "unused layer",
        "subclassed, two heads",
        "tokens in a dict",
        "nested",
        "nested and subclassed",
        "two heads, one named",
        "two heads, one None",
        "two heads, a list",
    ],
)
def test_the_default_is_the_last_layer_to_run_that_the_loss_depends_on(build, loss):
    model = InfluenceModel(build(), loss_function=loss)
    assert [v.path.split("/")[-2] for v in model.weights] == ["head", "head"]
    assert "head" in repr(model)
    assert f"{model.nb_params} parameters" in repr(model)


def test_a_frozen_head_is_passed_over():
    model = called(HeadFirst())
    model.head.trainable = False
    assert [v.path.split("/")[-2] for v in InfluenceModel(model, loss_function="mse").weights] == [
        "body",
        "body",
    ]


def test_a_call_that_cannot_be_traced_is_named_and_what_is_taken_instead():
    class Picky(HeadFirst):
        def call(self, x):
            if not isinstance(x, tf.Tensor) or tf.is_symbolic_tensor(x):
                message = "eager tensors only"
                raise TypeError(message)
            return super().call(x)

    with pytest.warns(
        DefaultLayerWarning, match=r"(?s)Picky.*eager tensors only.*'body'.*start_layer"
    ):
        InfluenceModel(called(Picky()), loss_function="mse")
