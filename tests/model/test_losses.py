"""The per-example loss against Keras's own reduction, and by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import IgnoredTermWarning, LabelError, MissingLossError
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from tests.oracles import assert_close

layers = keras.layers
FLOAT32 = 1e-5


def classifier(activation: str | None = "softmax", **compile_options: object) -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation=activation)])
    if compile_options:
        model.compile(**compile_options)
    return model


def inputs(n: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 4)).astype("float32")


LABELS = np.array([0, 1, 2, 2, 1, 0])


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "none"])
def test_any_reduction_of_a_keras_loss_is_set_aside(reduction):
    model = classifier()
    loss = keras.losses.SparseCategoricalCrossentropy(reduction=reduction)
    losses = InfluenceModel(model, loss_function=loss).per_example_losses((inputs(), LABELS))
    expected = -np.log(model(inputs()).numpy()[np.arange(6), LABELS])
    assert_close(losses, expected, FLOAT32)


@pytest.mark.parametrize(
    "loss",
    [
        "categorical_crossentropy",
        keras.losses.CategoricalCrossentropy(),
        keras.losses.categorical_crossentropy,
        lambda y, p: -tf.reduce_sum(tf.cast(y, p.dtype) * tf.math.log(p), axis=-1),
    ],
    ids=["name", "object", "function", "callable"],
)
def test_names_objects_functions_and_callables_are_one_loss(loss):
    model = classifier()
    one_hot = np.eye(3, dtype="float32")[LABELS]
    losses = InfluenceModel(model, loss_function=loss).per_example_losses((inputs(), one_hot))
    expected = -np.log(model(inputs()).numpy()[np.arange(6), LABELS])
    assert_close(losses, expected, FLOAT32)


def test_the_mean_of_the_losses_is_what_evaluate_reports_with_sample_weights():
    model = classifier(loss="sparse_categorical_crossentropy")
    weights = np.linspace(0.1, 2, 6).astype("float32")
    batch = (inputs(), LABELS, weights)
    reported = model.evaluate(*batch[:2], sample_weight=weights, verbose=0)
    losses = InfluenceModel(model).per_example_losses(batch).numpy()
    assert_close(losses.mean(), reported, FLOAT32)


def test_labels_without_the_last_axis_do_not_broadcast_against_the_outputs():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    y = np.arange(6, dtype="float32")
    for loss in ("mse", keras.losses.MeanSquaredError(), keras.losses.mean_squared_error):
        losses = InfluenceModel(model, loss_function=loss).per_example_losses((inputs(), y))
        assert_close(losses, (model(inputs()).numpy()[:, 0] - y) ** 2, FLOAT32)


@pytest.mark.parametrize("how", ["sum", "mean"])
def test_losses_with_a_time_axis_are_added_up_or_averaged(how):
    model = keras.Sequential([keras.Input((5, 4)), layers.Dense(3, activation="softmax")])
    x = np.random.default_rng(0).normal(size=(6, 5, 4)).astype("float32")
    y = np.random.default_rng(1).integers(0, 3, (6, 5))
    wrapped = InfluenceModel(
        model, loss_function="sparse_categorical_crossentropy", loss_over_positions=how
    )
    picked = np.take_along_axis(model(x).numpy(), y[..., None], axis=2)[..., 0]
    expected = getattr(np, how)(-np.log(picked), axis=1)
    assert_close(wrapped.per_example_losses((x, y)), expected, FLOAT32)


@pytest.mark.parametrize("how", ["sum", "mean"])
def test_masked_positions_do_not_count(how):
    tokens = keras.Input((5,), dtype="int32")
    embedded = layers.Embedding(7, 4, mask_zero=True)(tokens)
    model = keras.Model(tokens, layers.Dense(3, activation="softmax")(embedded))
    x = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0]])
    y = np.zeros((2, 5), int)
    wrapped = InfluenceModel(
        model, loss_function="sparse_categorical_crossentropy", loss_over_positions=how
    )
    values = -np.log(model(x).numpy()[..., 0]) * (x != 0)
    expected = values.sum(axis=1) / ((x != 0).sum(axis=1) if how == "mean" else 1)
    assert_close(wrapped.per_example_losses((x, y)), expected, FLOAT32)


def two_outputs(**compile_options: object) -> keras.Model:
    x = keras.Input((4,))
    outputs = {"a": layers.Dense(3, name="a")(x), "b": layers.Dense(1, name="b")(x)}
    model = keras.Model(x, outputs)
    model.compile(**compile_options)
    return model


def test_losses_of_several_outputs_add_up_with_their_weights():
    model = two_outputs(loss={"a": "mse", "b": "mae"}, loss_weights={"a": 2.0, "b": 0.5})
    x = inputs()
    y = {"a": np.ones((6, 3), "float32"), "b": np.zeros((6, 1), "float32")}
    losses = BaseInfluenceModel(model).per_example_losses((x, y)).numpy()
    out = {k: v.numpy() for k, v in model(x).items()}
    expected = 2 * ((out["a"] - 1) ** 2).mean(axis=1) + 0.5 * np.abs(out["b"][:, 0])
    assert_close(losses, expected, FLOAT32)
    assert_close(losses.mean(), model.evaluate(x, y, verbose=0, return_dict=True)["loss"], FLOAT32)


def test_an_output_without_a_loss_is_left_out():
    x, tensor = inputs(), keras.Input((4,))
    model = keras.Model(tensor, [layers.Dense(3)(tensor), layers.Dense(1)(tensor)])
    wrapped = BaseInfluenceModel(model, loss_function=["mse", None])
    losses = wrapped.per_example_losses((x, [np.ones((6, 3), "float32"), np.ones((6, 1))]))
    assert_close(losses, ((model(x)[0].numpy() - 1) ** 2).mean(axis=1), FLOAT32)


def test_several_inputs_come_as_a_dict():
    parts = {"a": keras.Input((2,), name="a"), "b": keras.Input((2,), name="b")}
    joined = layers.Concatenate()([parts["a"], parts["b"]])
    model = keras.Model(parts, layers.Dense(1)(joined))
    x = {"a": inputs()[:, :2], "b": inputs()[:, 2:]}
    losses = InfluenceModel(model, loss_function="mse").per_example_losses((x, np.zeros((6, 1))))
    assert_close(losses, model(x).numpy()[:, 0] ** 2, FLOAT32)


def test_process_batch_reads_any_form_of_batch():
    model = classifier(loss="sparse_categorical_crossentropy")
    wrapped = InfluenceModel(
        model, process_batch_for_loss_fn=lambda b: (b["image"], b["label"], None)
    )
    expected = InfluenceModel(model).per_example_losses((inputs(), LABELS))
    assert_close(wrapped.per_example_losses({"image": inputs(), "label": LABELS}), expected)


def test_float64_models_stay_float64():
    model = keras.Sequential([keras.Input((4,), dtype="float64"), layers.Dense(2, dtype="float64")])
    wrapped = InfluenceModel(model, loss_function=keras.losses.MeanSquaredError())
    x, y = inputs().astype("float64"), np.zeros((6, 2))
    losses = wrapped.per_example_losses((x, y))
    assert losses.dtype == tf.float64
    assert_close(losses, (model(x).numpy() ** 2).mean(axis=1), 1e-14)


def test_the_regulariser_is_the_sum_over_watched_weights():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.1)),
            layers.Dense(2, kernel_regularizer=keras.regularizers.L1L2(0.2, 0.3)),
        ]
    )
    every = BaseInfluenceModel(model, loss_function="mse")
    assert_close(every.regularization(), sum(float(loss) for loss in model.losses), FLOAT32)
    last = InfluenceModel(model, loss_function="mse")
    kernel = model.layers[-1].kernel.numpy()
    expected = np.concatenate([(0.2 * np.sign(kernel) + 0.6 * kernel).ravel(), np.zeros(2)])
    assert_close(last.regularization_gradient(), expected, FLOAT32)


def test_losses_added_in_the_call_are_left_out_with_a_warning():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activity_regularizer="l2")])
    wrapped = InfluenceModel(model, loss_function="mse")
    with pytest.warns(IgnoredTermWarning, match="activity regularisers"):
        wrapped.per_example_losses((inputs(), np.zeros((6, 3), "float32")))


def test_a_model_without_a_loss_says_how_to_give_one():
    with pytest.raises(MissingLossError, match="Pass `loss_function=`"):
        InfluenceModel(classifier())


def test_a_loss_that_reduces_over_the_batch_is_refused():
    wrapped = InfluenceModel(classifier(), loss_function=lambda y, p: tf.reduce_mean(p))
    with pytest.raises(ValueError, match='reduction="none"'):
        wrapped.per_example_losses((inputs(), LABELS))


def test_labels_of_the_wrong_shape_name_their_shape_and_the_outputs():
    wrapped = InfluenceModel(classifier(), loss_function="categorical_crossentropy")
    with pytest.raises(LabelError, match=r"labels of shape \(6, 5\).*outputs of shape \(6, 3\)"):
        wrapped.per_example_losses((inputs(), np.zeros((6, 5), "float32")))


def test_class_indices_for_a_one_hot_loss_are_refused():
    wrapped = InfluenceModel(classifier(), loss_function="categorical_crossentropy")
    with pytest.raises(LabelError, match="class indices go with sparse losses"):
        wrapped.per_example_losses((inputs(), LABELS))


def test_labels_of_the_wrong_dtype_are_refused():
    wrapped = InfluenceModel(classifier(), loss_function="sparse_categorical_crossentropy")
    with pytest.raises(LabelError, match="Labels must be numbers.*string"):
        wrapped.per_example_losses((inputs(), np.array(["cat"] * 6)))


def test_an_unknown_loss_name_is_refused():
    with pytest.raises(ValueError, match="`loss_function` must be a Keras loss.*'no_such_loss'"):
        InfluenceModel(classifier(), loss_function="no_such_loss")


def test_labels_of_unknown_outputs_are_refused():
    model = BaseInfluenceModel(two_outputs(loss={"a": "mse", "b": "mse"}))
    with pytest.raises(LabelError, match="must be outputs of the model.*'c'"):
        model.per_example_losses((inputs(), {"c": np.zeros((6, 1))}))


def test_a_batch_that_is_no_pair_says_what_to_pass():
    wrapped = InfluenceModel(classifier(), loss_function="mse")
    with pytest.raises(ValueError, match=r"\(x, y\).*process_batch_for_loss_fn"):
        wrapped.per_example_losses(inputs())
