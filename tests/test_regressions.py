"""What once came out wrong without a word: each case as it was found."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.curvature import dense_curvature
from deel_influence.errors import (
    BatchError,
    CoupledExamplesError,
    IgnoredTermWarning,
    LabelError,
    NonFiniteError,
    UnknownLayerError,
)
from deel_influence.gradients import GradientEngine
from deel_influence.ihvp import ExactIHVP, IdentityIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from deel_influence.utils import with_ids
from deel_influence.utils.datasets import sample_examples
from tests.oracles import assert_close, gradient_rows, mean_hessian

layers = keras.layers
pytestmark = pytest.mark.usefixtures("float64")
N = 12


def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(N, 4)), generator.integers(0, 3, N)


def batches(*arrays: np.ndarray, size: int = 5) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


def classifier(*last: layers.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), layers.Dense(5, activation="tanh"), *last])


def test_the_closed_form_respects_the_order_of_the_watched_variables():
    dense = layers.Dense(3, activation="softmax")
    keras_model = classifier(dense)
    weights = [dense.bias, dense.kernel]
    model = BaseInfluenceModel(keras_model, weights, "sparse_categorical_crossentropy")
    matrix = dense_curvature(model, batches(*data())).matrix
    assert_close(matrix, mean_hessian(model, *data()), 1e-10)


def spelled(name: str) -> keras.Model:
    last = {
        "argument": [layers.Dense(3, activation="softmax")],
        "activation-layer": [layers.Dense(3), layers.Activation("softmax")],
        "softmax-layer": [layers.Dense(3), layers.Softmax()],
    }[name]
    return classifier(*last)


@pytest.mark.parametrize("name", ["activation-layer", "softmax-layer"])
def test_gauss_newton_does_not_depend_on_how_the_softmax_is_spelled(name):
    models = [spelled("argument"), spelled(name)]
    models[1].set_weights(models[0].get_weights())
    first, second = (
        dense_curvature(
            BaseInfluenceModel(model, loss_function="sparse_categorical_crossentropy"),
            batches(*data()),
            "gauss_newton",
        ).matrix
        for model in models
    )
    assert_close(second, first, 1e-8)


def test_gauss_newton_leaves_out_masked_positions():
    tokens = keras.Input((4,), dtype="int32")
    outputs = layers.Dense(2)(layers.Embedding(6, 3, mask_zero=True)(tokens))
    model = InfluenceModel(keras.Model(tokens, outputs), loss_function="mse")
    x = np.array([[1, 2, 0, 0], [3, 4, 5, 0], [2, 0, 0, 0]])
    y = np.random.default_rng(0).normal(size=(3, 4, 2))
    matrix = dense_curvature(model, batches(x, y), "gauss_newton").matrix
    assert_close(matrix, mean_hessian(model, x, y), 1e-9)


class MixesTheBatch(layers.Layer):
    """Every example's output depends on all examples."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x - tf.reduce_mean(x, axis=0, keepdims=True)


def test_a_first_batch_of_one_does_not_settle_the_probe():
    keras_model = classifier(MixesTheBatch(), layers.Dense(3))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = BaseInfluenceModel(keras_model, loss_function=loss)
    train, queries = batches(*data(), size=12), batches(*data(), size=1)
    calculator = FirstOrderInfluenceCalculator(model, train, IdentityIHVP(model))
    with pytest.raises(CoupledExamplesError, match="MixesTheBatch"):
        calculator.influence_matrix(queries, train)


def test_examples_without_weight_do_not_settle_the_probe():
    keras_model = classifier(MixesTheBatch(), layers.Dense(3))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = BaseInfluenceModel(keras_model, loss_function=loss)
    weights = np.r_[np.zeros(4), np.ones(N - 4)]
    engine = GradientEngine(model)
    with pytest.raises(CoupledExamplesError, match="MixesTheBatch"):
        engine.prepare((*data(), weights))


def test_the_weight_of_a_single_loss_counts():
    for weight in (3.0, 0.5):
        model = classifier(layers.Dense(2))
        model.compile(loss="mse", loss_weights=weight)
        x, y = data()[0], np.ones((N, 2))
        losses = InfluenceModel(model).per_example_losses((x, y))
        assert_close(np.mean(losses), model.evaluate(x, y, verbose=0), 1e-5)


def two_outputs() -> keras.Model:
    x = keras.Input((4,))
    return keras.Model(x, [layers.Dense(3, name="a")(x), layers.Dense(1, name="b")(x)])


@pytest.mark.parametrize("as_dict", [False, True], ids=["list", "dict"])
def test_outputs_in_a_list_may_be_meant_by_name(as_dict):
    model = two_outputs()
    model.compile(loss={"b": "mae", "a": "mse"}, loss_weights={"a": 2.0, "b": 0.5})
    x, targets = data()[0], [np.ones((N, 3)), np.zeros((N, 1))]
    y = {"a": targets[0], "b": targets[1]} if as_dict else tuple(targets)
    losses = BaseInfluenceModel(model).per_example_losses((x, y))
    reported = model.evaluate(x, targets, verbose=0, return_dict=True)["loss"]
    assert_close(np.mean(losses), reported, 1e-5)


def test_a_list_of_losses_for_a_dict_of_outputs_is_refused():
    x = keras.Input((4,))
    keras_model = keras.Model(x, {"b": layers.Dense(1)(x), "a": layers.Dense(1)(x)})
    model = BaseInfluenceModel(keras_model, loss_function=["mse", "mae"])
    with pytest.raises(LabelError, match="must be a dict with keys among"):
        model.per_example_losses((data()[0], {"a": np.ones((N, 1)), "b": np.ones((N, 1))}))


def test_the_mean_over_masked_positions_counts_only_positions():
    tokens = keras.Input((4,), dtype="int32")
    embedded = layers.Embedding(6, 5, mask_zero=True)(tokens)
    model = BaseInfluenceModel(
        keras.Model(tokens, embedded),
        loss_function=lambda y, p: tf.square(y - p),
        loss_over_positions="mean",
    )
    x, y = np.array([[1, 2, 0, 0], [3, 0, 0, 0]]), np.zeros((2, 4, 5))
    squares = model(x).numpy() ** 2 * (x != 0)[..., None]
    expected = squares.sum(axis=(1, 2)) / (5 * (x != 0).sum(axis=1))
    assert_close(model.per_example_losses((x, y)), expected, 1e-6)


def exact_model() -> InfluenceModel:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return InfluenceModel(classifier(layers.Dense(3)), loss_function=loss)


def test_nan_in_a_group_or_in_products_is_reported():
    model = exact_model()
    x, y = data()
    train = batches(x, y)
    ihvp = ExactIHVP(model, train, damping=0.1)
    calculator = FirstOrderInfluenceCalculator(model, train, ihvp)
    x = x.copy()
    x[6, 0] = np.nan
    for compute in (calculator.compute_influence_vector_group, ihvp.compute_ihvp):
        with pytest.raises(NonFiniteError, match="batch 1 "):
            compute(batches(x, y))


def test_nan_in_the_data_is_reported_even_where_a_layer_hides_it():
    relu = keras.Sequential([keras.Input((4,)), layers.Dense(5, "relu"), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = InfluenceModel(relu, loss_function=loss)
    x, y = data()
    x[7, 1] = np.nan
    dataset = batches(x, y)
    with pytest.raises(NonFiniteError, match="first for example 7"):
        FirstOrderInfluenceCalculator(model, dataset, "identity").score(dataset)
    named = with_ids(dataset, [f"photo {place}.png" for place in range(len(x))])
    with pytest.raises(NonFiniteError, match=r"first for example photo 7\.png"):
        FirstOrderInfluenceCalculator(model, named, "identity").score(named)


def test_a_label_out_of_range_names_the_batch_and_the_reason():
    model = exact_model()
    x, y = data()
    y[11] = 7
    message = "Batch 2 .*label value of 7 which is outside the valid range"
    with pytest.raises(BatchError, match=message):
        ExactIHVP(model, batches(x, y))
    with pytest.raises(BatchError, match=message):
        FirstOrderInfluenceCalculator(model, batches(x, y), "identity").score(batches(x, y))


@pytest.mark.parametrize("rcond", [-1, np.nan, 2.0, "x", True])
def test_a_cut_off_that_makes_no_sense_is_refused(rcond):
    with pytest.raises(ValueError, match=r"`rcond` must be None or a number in \[0, 1\)"):
        ExactIHVP(exact_model(), batches(*data()), rcond=rcond)


def test_ids_that_are_not_unique_are_refused():
    model = exact_model()
    dataset = batches(*data())
    calculator = FirstOrderInfluenceCalculator(model, dataset, "identity")
    with pytest.raises(ValueError, match="must give every example an id of its own"):
        calculator.compute_top_k_from_training_dataset(
            dataset, N, id_fn=lambda b: np.zeros(len(b[0]), int)
        )


def test_a_draw_does_not_depend_on_the_global_seed_of_tensorflow():
    draws = []
    for seed in (1, 2):
        tf.random.set_seed(seed)
        drawn = sample_examples(batches(*data()), 5, seed=3)
        draws.append(np.concatenate([x for x, _ in drawn]))
    np.testing.assert_array_equal(*draws)


@pytest.mark.parametrize("number", [0, -3, 2.5, True])
def test_a_number_of_samples_that_makes_no_sense_is_refused(number):
    with pytest.raises(ValueError, match="`n_samples_for_hessian` must be None or an integer"):
        ExactIHVP(exact_model(), batches(*data()), n_samples_for_hessian=number)


def test_a_kernel_is_not_handed_out_for_another_function():
    engine = GradientEngine(exact_model())
    engine.kernel("key", lambda b: b)
    with pytest.raises(ValueError, match="`key` must be new for another function"):
        engine.kernel("key", lambda b: 2 * b)


@pytest.mark.filterwarnings("ignore:.build... was called on layer 'with_spare'")
def test_layers_that_are_never_used_do_no_harm():
    class WithSpare(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = layers.Dense(3), layers.Dense(2)

        def call(self, x: tf.Tensor) -> tf.Tensor:
            return self.used(x)

    keras_model = WithSpare()
    keras_model(np.zeros((1, 4)))
    model = BaseInfluenceModel(keras_model, loss_function="mse")
    batch = data()[0], np.ones((N, 3))
    engine = GradientEngine(model)
    engine.prepare(batch)
    rows = engine.kernel("rows", lambda b: engine.gradients(b).materialize())(batch)
    assert_close(rows, gradient_rows(model, *batch))


def test_integer_labels_meet_losses_written_for_floats():
    model = classifier(layers.Dense(1))
    wrapped = InfluenceModel(model, loss_function=lambda y, p: tf.reduce_mean((y - p) ** 2, -1))
    x, y = data()
    assert_close(wrapped.per_example_losses((x, y)), (model(x).numpy()[:, 0] - y) ** 2, 1e-10)


def test_a_loss_that_keras_cannot_write_down_still_serves_with_a_warning():
    model = classifier(layers.Dense(2))

    class Opaque:
        def __call__(self, y: tf.Tensor, p: tf.Tensor) -> tf.Tensor:
            return tf.reduce_mean(tf.square(y - p), axis=-1)

    model.compile(loss=Opaque())
    with pytest.warns(IgnoredTermWarning, match="loss weights cannot be read"):
        wrapped = InfluenceModel(model)
    batch = data()[0], np.ones((N, 2))
    assert wrapped.per_example_losses(batch).shape == (N,)


def test_half_precision_weights_give_float32_gradients():
    dense = layers.Dense(2, dtype="bfloat16")
    keras_model = keras.Sequential([keras.Input((4,), dtype="float32"), dense])
    model = InfluenceModel(keras_model, loss_function="mse")
    x, y = data()[0].astype("float32"), np.ones((N, 2), "float32")
    assert model.per_example_losses((x, y)).dtype == tf.float32
    train = batches(x, y)
    scores = FirstOrderInfluenceCalculator(
        model, train, ExactIHVP(model, train, damping=0.1)
    ).score(train)
    assert scores.values.dtype == np.float32


def test_the_hessian_over_recurrent_weights_needs_no_vectorised_loop():
    keras_model = keras.Sequential([keras.Input((2, 2)), layers.GRU(2), layers.Dense(1)])
    model = InfluenceModel(keras_model, 0, loss_function="mse")
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(3, 2, 2)), generator.normal(size=(3, 1))
    assert_close(dense_curvature(model, batches(x, y)).matrix, mean_hessian(model, x, y), 1e-9)


def test_a_name_that_two_nested_layers_bear_is_refused():
    x = hidden = keras.Input((4,))
    for name in ("one", "two"):
        inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="same")], name=name)
        hidden = inner(hidden)
    with pytest.raises(UnknownLayerError, match="must name one layer.*'same', the name of 2"):
        InfluenceModel(keras.Model(x, hidden), "same", loss_function="mse")


def test_a_schedule_that_keras_cannot_serialise_does_not_keep_a_model_from_being_wrapped():
    class Plain(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: tf.Tensor) -> tf.Tensor:
            return 0.1

    keras_model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    keras_model.compile(keras.optimizers.SGD(Plain()), loss="mse")
    with pytest.warns(IgnoredTermWarning, match=r"schedule that Keras cannot serialise"):
        assert InfluenceModel(keras_model).nb_params == 10
