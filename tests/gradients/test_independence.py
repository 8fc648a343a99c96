"""Models and losses that give the examples of a batch no gradient of their own are refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import (
    CoupledExamplesError,
    LossShapeError,
    NoGradientError,
    NoGradientWarning,
    NonFiniteError,
    UnsupportedModelError,
)
from deel_influence.gradients.engine import GradientEngine
from deel_influence.gradients.independence import check_examples
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel, InfluenceModel

layers = keras.layers
N, D, C = 20, 5, 3


def data(n: int = N) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(n, D)).astype("float32")
    return x, (np.arange(n) % C).astype("float32")


def network(*between: layers.Layer) -> keras.Model:
    return keras.Sequential(
        [keras.Input((D,)), layers.Dense(4, "tanh"), *between, layers.Dense(C, name="head")]
    )


def crossentropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def contrastive(labels: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    z, flat = tf.math.l2_normalize(z, -1), tf.reshape(labels, (-1, 1))
    same = tf.cast(flat == tf.transpose(flat), z.dtype)
    same /= tf.reduce_sum(same, -1, keepdims=True)
    return tf.nn.softmax_cross_entropy_with_logits(same, 10 * tf.matmul(z, z, transpose_b=True))


def in_batch_softmax(labels: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    products = tf.matmul(z, tf.reverse(z, [1]), transpose_b=True)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.range(tf.shape(z)[0]), products)


def balanced(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    flat = tf.reshape(labels, (-1, 1))
    return crossentropy(labels, logits) / tf.reduce_sum(
        tf.cast(flat == tf.transpose(flat), logits.dtype), axis=1
    )


def normalised(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    values = crossentropy(labels, logits)
    return values / tf.reduce_mean(values)


def summed_over_batch_size(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return crossentropy(labels, logits) / tf.cast(tf.shape(logits)[0], logits.dtype)


def broadcast(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return (tf.reshape(labels, (1, -1)) - logits[:, :1]) ** 2  # (b, b)


@pytest.mark.parametrize(
    "loss",
    [
        contrastive,
        in_batch_softmax,
        balanced,
        normalised,
        summed_over_batch_size,
        broadcast,
        keras.losses.Circle(),
    ],
    ids=lambda loss: getattr(loss, "__name__", None) or loss.name,
)
@pytest.mark.parametrize("n", [4, N])
def test_a_loss_that_compares_the_examples_of_a_batch_is_refused_by_name(loss, n):
    name = getattr(loss, "__name__", None) or loss.name
    model = BaseInfluenceModel(network(), loss_function=loss)
    x, y = data(n)
    with pytest.raises(CoupledExamplesError, match=f"because of the loss {name}"):
        GradientEngine(model).prepare((x, y))


class Centred(layers.Layer):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x - tf.reduce_mean(x, axis=0, keepdims=True)


class OwnNormalization(layers.BatchNormalization):
    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:  # noqa: ARG002
        return super().call(x, training=True)


class InItsCall(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="own")
        self.head = layers.Dense(C)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.head(x - tf.reduce_mean(x, axis=0))


def centred_in_a_nested_model() -> keras.Model:
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4), Centred(name="middle")])
    return network(inner)


def in_its_call() -> keras.Model:
    model = InItsCall()
    model(data()[0])
    return model


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: network(Centred(name="middle")), r"the layer 'middle' \(Centred\)"),
        (centred_in_a_nested_model, r"the layer 'middle' \(Centred\)"),
        (lambda: network(OwnNormalization(name="bn")), r"the layer 'bn' \(OwnNormalization\)"),
        (in_its_call, "the call of InItsCall 'own'"),
    ],
    ids=["layer", "nested", "normalization", "call"],
)
def test_a_layer_that_looks_at_the_whole_batch_is_refused_by_name(build, named):
    model = BaseInfluenceModel(build(), loss_function=crossentropy)
    with pytest.raises(CoupledExamplesError, match=f"because of {named}"):
        GradientEngine(model).prepare(data())


def test_reading_batches_so_that_weights_depend_on_the_batch_is_refused():
    def process(batch: tuple) -> tuple:
        x, y = batch
        return x, y, tf.nn.softmax(tf.cast(y, tf.float32))

    model = BaseInfluenceModel(network(), None, crossentropy, process)
    with pytest.raises(CoupledExamplesError, match="the function `process_batch_for_loss_fn`"):
        GradientEngine(model).prepare(data())


@pytest.mark.parametrize(
    "between",
    [
        lambda: layers.BatchNormalization(),
        lambda: layers.Dropout(0.5),
        lambda: layers.LayerNormalization(),
        lambda: layers.GaussianNoise(0.5),
        lambda: layers.Reshape((2, 2)),
    ],
    ids=["batch-norm", "dropout", "layer-norm", "noise", "positions"],
)
def test_ordinary_models_are_not_refused(between):
    """The control: nothing of a batch passes from example to example in inference mode."""
    layer = between()
    after = [layers.Flatten()] if isinstance(layer, layers.Reshape) else []
    model = BaseInfluenceModel(network(layer, *after), loss_function=crossentropy)
    check_examples(model, data())
    x, y = data()
    check_examples(model, (x, y, np.linspace(0, 2, N).astype("float32")))
    check_examples(model, (x[:1], y[:1]))


def test_a_model_that_draws_in_inference_mode_is_refused():
    class Noise(layers.Layer):
        def call(self, x: tf.Tensor) -> tf.Tensor:
            return x + tf.random.normal(tf.shape(x))

    model = BaseInfluenceModel(network(Noise()), loss_function=crossentropy)
    with pytest.raises(UnsupportedModelError, match="random in inference mode"):
        GradientEngine(model).prepare(data())


WITHOUT_GRADIENT: dict[str, Callable] = {
    "argmax": lambda y, o: tf.cast(tf.argmax(o, 1), tf.float32),
    "integers": lambda y, o: tf.cast(tf.reduce_sum(o, 1), tf.int32),
    "constant": lambda y, o: tf.ones(tf.shape(o)[0]),
    "stopped": lambda y, o: tf.reduce_sum(tf.stop_gradient(o), 1),
    "labels": lambda y, o: tf.reshape(y, (-1,)),
}


@pytest.mark.parametrize("kind", WITHOUT_GRADIENT)
@pytest.mark.parametrize("what", ["loss_function", "measurement"])
def test_what_has_no_gradient_is_refused(kind, what):
    function = WITHOUT_GRADIENT[kind]
    loss = function if what == "loss_function" else crossentropy
    model = InfluenceModel(network(), loss_function=loss)
    dataset = tf.data.Dataset.from_tensor_slices(data()).batch(8)
    measurement = function if what == "measurement" else None
    calculator = FirstOrderInfluenceCalculator(model, dataset, "identity", measurement=measurement)
    called = "loss" if what == "loss_function" else "measurement"
    with pytest.raises(NoGradientError, match=rf"gradient of the {called} <lambda> must reach"):
        calculator.influence_matrix(dataset, dataset, verbose=0)


def test_watching_a_head_that_no_loss_looks_at_is_refused():
    x = keras.Input((D,))
    heads = [layers.Dense(C, name="seen")(x), layers.Dense(C, name="unseen")(x)]
    model = keras.Model(x, heads)
    wrapped = InfluenceModel(model, "unseen", loss_function=[crossentropy, None])
    x, y = data()
    with pytest.raises(NoGradientError, match=r"none for any weight of \['unseen'\]"):
        GradientEngine(wrapped).prepare((x, [y, y]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_weight_that_is_not_finite_is_refused_by_name(value, layer):
    model = keras.Sequential(
        [keras.Input((D,)), layers.Dense(4, "relu", name="body"), layers.Dense(C, name="head")]
    )
    kernel = model.layers[layer].kernel
    kernel.assign(np.where(np.arange(kernel.shape[1]) == 1, value, 0.1) * np.ones(kernel.shape))
    wrapped = InfluenceModel(model, loss_function=crossentropy)
    dataset = tf.data.Dataset.from_tensor_slices(data()).batch(8)
    name = ("body", "head")[layer]
    with pytest.raises(NonFiniteError, match=f"'.*{name}/kernel' with .* NaN or infinite"):
        FirstOrderInfluenceCalculator(wrapped, dataset, "identity").score(dataset)


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda y, o: tf.reduce_mean(o, axis=0), r"shape \(3,\) for a batch of"),
        (lambda y, o: tf.reduce_mean(o), "a scalar, already reduced"),
    ],
    ids=["classes", "scalar"],
)
@pytest.mark.parametrize("argument", ["loss_function", "measurement"])
def test_a_number_for_something_else_than_an_example_is_refused(function, what, argument):
    loss = function if argument == "loss_function" else crossentropy
    measurement = function if argument == "measurement" else None
    model = InfluenceModel(network(), loss_function=loss)
    dataset = tf.data.Dataset.from_tensor_slices(data()).batch(8)
    calculator = FirstOrderInfluenceCalculator(model, dataset, "identity", measurement=measurement)
    with pytest.raises(LossShapeError, match=f"Argument `{argument}` must return.*{what}"):
        calculator.influence_matrix(dataset, dataset, verbose=0)


def test_a_query_without_gradient_is_named_and_what_to_look_at_instead():
    """A prediction that is certain in float32 has no gradient of its loss left."""
    x, y = data()
    model = keras.Sequential([keras.Input((D,)), layers.Dense(C)])
    model.layers[0].bias.assign([200.0, 0.0, 0.0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    wrapped = InfluenceModel(model, loss_function=loss)
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    queries = tf.data.Dataset.from_tensor_slices((x[:3], y[:3])).batch(2)
    calculator = FirstOrderInfluenceCalculator(wrapped, train, "identity")
    with pytest.warns(NoGradientWarning, match=r"1 of 3 queries.*\[0\].*measurement='logit'"):
        matrix = calculator.influence_matrix(queries, train, verbose=0)
    assert not matrix[0].any()
    assert matrix[1].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_logit = FirstOrderInfluenceCalculator(wrapped, train, "identity", measurement="logit")
        assert by_logit.influence_matrix(queries, train, verbose=0)[0].any()


def test_scores_that_are_all_zero_are_said_to_say_nothing():
    x, _ = data()
    model = keras.Sequential([keras.Input((D,)), layers.Dense(1, kernel_initializer="zeros")])
    dataset = tf.data.Dataset.from_tensor_slices((x, np.zeros((N, 1), "float32"))).batch(8)
    wrapped = InfluenceModel(model, loss_function="mse")
    calculator = FirstOrderInfluenceCalculator(wrapped, dataset, "identity")
    with pytest.warns(NoGradientWarning, match="All 20 scores .* are 0"):
        calculator.score(dataset)


@pytest.mark.parametrize("seed", range(8))
def test_a_model_that_fits_its_data_exactly_is_not_refused(seed):
    x = np.random.default_rng(seed).normal(size=(N, 40)).astype("float32")
    model = keras.Sequential([keras.Input((40,)), layers.Dense(1, use_bias=False)])
    model.set_weights([np.ones((40, 1), "float32")])
    dataset = tf.data.Dataset.from_tensor_slices((x, x.sum(axis=1, keepdims=True)))
    check_examples(BaseInfluenceModel(model, loss_function="mse"), next(iter(dataset.batch(N))))
