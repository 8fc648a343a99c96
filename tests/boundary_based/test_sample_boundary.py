"""Distances to the boundary in the inputs: closed forms, brute force, and the paper's algorithm."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.boundary_based import SampleBoundaryCalculator
from deel_influence.errors import ConvergenceWarning, NonFiniteError, UnsupportedModelError
from deel_influence.model import BaseInfluenceModel
from tests.boundary_based.oracle import deepfool, in_inputs
from tests.oracles import assert_close

layers = keras.layers
N = 11  # no multiple of the batch of 4


def points(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, *shape)).astype(keras.config.floatx())


def batches(x, size: int = 4) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((x, np.zeros(N, int))).batch(size)


def distances(calculator, x, size: int = 4) -> np.ndarray:
    scores = calculator.score(batches(x, size)).values
    assert np.all(scores <= 0)
    return np.sqrt(-scores)


def affine(c: int, *after, d: int = 3) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    dense = layers.Dense(c, bias_initializer="normal")
    model = keras.Sequential([keras.Input((d,)), dense, *after])
    return model, dense.kernel.value.numpy(), dense.bias.value.numpy()


def network(d: int, c: int, width: int = 8) -> keras.Model:
    hidden = layers.Dense(width, "tanh", kernel_initializer=keras.initializers.RandomNormal(0, 0.5))
    last = layers.Dense(c, kernel_initializer=keras.initializers.RandomNormal(0, 0.5))
    return keras.Sequential([keras.Input((d,)), hidden, last])


def nearest_line(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the distances to the nearest boundary of a linear classifier of c classes."""
    logits = x @ w + b
    found = []
    for f, o in zip(logits, np.argmax(logits, axis=1), strict=True):
        rivals = [k for k in range(len(f)) if k != o]
        found.append(min((f[o] - f[k]) / np.linalg.norm(w[:, o] - w[:, k]) for k in rivals))
    return np.array(found)


BINARY = {
    "logit": ([], "mse"),
    "sigmoid": ([lambda: layers.Activation("sigmoid")], "binary_crossentropy"),
    "hidden-sigmoid": ([lambda: Sigmoid()], keras.losses.BinaryCrossentropy()),
}


class Sigmoid(layers.Layer):
    """An activation that looks like any other layer."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(x)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("form", BINARY)
def test_one_output_is_at_its_distance_from_the_hyperplane(form):
    after, loss = BINARY[form]
    model, w, b = affine(1, *(make() for make in after))
    calculator = SampleBoundaryCalculator(BaseInfluenceModel(model, loss_function=loss))
    x = points(3)
    assert_close(distances(calculator, x), np.abs(x @ w + b)[:, 0] / np.linalg.norm(w), 1e-9)
    np.testing.assert_array_equal(calculator.last_search.num_steps, 1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("c", [5, 40], ids=["five", "more-than-are-unrolled"])
def test_many_classes_are_at_the_distance_of_the_nearest_hyperplane(c):
    model, w, b = affine(c, layers.Softmax())
    x = points(3)
    assert_close(distances(SampleBoundaryCalculator(model), x), nearest_line(x, w, b), 1e-9)


@pytest.mark.usefixtures("float64")
def test_probabilities_from_an_unseen_softmax_count_as_their_logits():
    model, w, b = affine(4, layers.Lambda(tf.nn.softmax))
    model.compile(loss="sparse_categorical_crossentropy")
    x = points(3)
    assert_close(distances(SampleBoundaryCalculator(model), x), nearest_line(x, w, b), 1e-9)


@pytest.mark.usefixtures("float64")
def test_only_the_classes_considered_are_rivals():
    model, w, b = affine(5)
    x = points(3)
    first, second = np.argsort(-(x @ w + b), axis=1)[:, :2].T
    gap = np.take_along_axis(x @ w + b, np.stack([first, second], 1), 1) @ [1, -1]
    expected = gap / np.linalg.norm(w[:, first] - w[:, second], axis=0)
    calculator = SampleBoundaryCalculator(model, num_classes_considered=2)
    assert_close(distances(calculator, x), expected, 1e-9)
    assert np.any(expected > nearest_line(x, w, b) * 1.01)


@pytest.mark.usefixtures("float64")
def test_distances_and_steps_are_those_of_the_algorithm_of_the_paper():
    model, x = network(3, 4), points(3)
    expected = [deepfool(in_inputs(model, (3,)), point) for point in x]
    calculator = SampleBoundaryCalculator(model)
    assert_close(distances(calculator, x), [d for d, _, _ in expected], 1e-9)
    search = calculator.last_search
    np.testing.assert_array_equal(search.num_steps, [s for _, s, _ in expected])
    assert search.num_steps.max() > 2
    np.testing.assert_array_equal(search.ids, np.arange(N))
    assert search.reached.all()
    assert not len(search.unreached_ids)


def test_distances_in_the_plane_are_near_those_of_brute_force():
    model, x = network(2, 3), points(2)
    found = distances(SampleBoundaryCalculator(model), x)
    side = np.linspace(-6.0, 6.0, 601)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    classes = np.argmax(model(grid), axis=1)
    own = np.argmax(model(x), axis=1)
    least = np.array(
        [np.linalg.norm(grid[classes != o] - z, axis=1).min() for z, o in zip(x, own, strict=True)]
    )
    # The grid is 0.02 wide, so that its nearest point is that much too far at most. DeepFool stops
    # at a point across the boundary, which is not always the nearest one.
    assert np.all(found >= least - 0.03)
    assert np.median(found / least) < 1.15
    assert np.max(found / least) < 1.7


@pytest.mark.usefixtures("float64")
def test_examples_that_do_not_arrive_are_reported_and_keep_how_far_they_came():
    model, x = network(3, 4), points(3)
    expected = [deepfool(in_inputs(model, (3,)), point, step_nbr=1) for point in x]
    calculator = SampleBoundaryCalculator(model, step_nbr=1)
    missing = np.flatnonzero([not arrived for _, _, arrived in expected])
    message = rf"{len(missing)} of {N} examples \(ids {missing[0]}.*step_nbr=1 .*Raise `step_nbr`"
    with pytest.warns(ConvergenceWarning, match=message):
        found = distances(calculator, x)
    assert_close(found, [d for d, _, _ in expected], 1e-9)
    np.testing.assert_array_equal(calculator.last_search.unreached_ids, missing)
    assert 0 < len(missing) < N


def test_where_the_model_is_flat_nothing_moves_and_nothing_arrives():
    model, _, _ = affine(3)
    model.layers[0].kernel.assign(np.zeros((3, 3)))
    calculator = SampleBoundaryCalculator(model)
    with pytest.warns(ConvergenceWarning, match="where the model is flat"):
        found = distances(calculator, points(3))
    assert not found.any()
    assert not calculator.last_search.num_steps.any()
    assert not calculator.last_search.reached.any()


def test_integer_images_are_taken_as_floats():
    parts = [layers.Rescaling(1 / 255), layers.Conv2D(3, 3, activation="relu"), layers.Flatten()]
    model = keras.Sequential([keras.Input((6, 6, 1)), *parts, layers.Dense(3)])
    images = np.random.default_rng(0).integers(0, 256, (N, 6, 6, 1)).astype("uint8")
    calculator = SampleBoundaryCalculator(model)
    expected = distances(calculator, images.astype("float32"))
    assert_close(distances(calculator, images), expected, 1e-5)


def test_inputs_that_are_looked_up_are_refused():
    parts = [layers.Embedding(9, 3), layers.Flatten(), layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,), dtype="int32"), *parts])
    ids = np.random.default_rng(0).integers(0, 9, (N, 4))
    message = r"inputs in which the logits have a gradient\. Received: inputs \(int64\).*token ids"
    with pytest.raises(UnsupportedModelError, match=message):
        SampleBoundaryCalculator(model).score(batches(ids))


@pytest.mark.usefixtures("float64")
def test_of_several_inputs_only_those_with_a_gradient_move():
    ids, numbers = keras.Input((4,), dtype="int32", name="ids"), keras.Input((3,), name="numbers")
    looked_up = layers.Flatten()(layers.Embedding(9, 2)(ids))
    dense = layers.Dense(3)
    model = keras.Model([ids, numbers], dense(layers.Concatenate()([looked_up, numbers])))
    data = (np.random.default_rng(0).integers(0, 9, (N, 4)), points(3))
    w, fixed = dense.kernel.value.numpy()[8:], model([data[0], np.zeros((N, 3))])
    expected = [nearest_line(x[None], w, f)[0] for x, f in zip(data[1], fixed, strict=True)]
    assert_close(distances(SampleBoundaryCalculator(model), data), expected, 1e-9)


def test_nan_from_the_model_is_an_error():
    model, _, _ = affine(3)
    model.layers[0].bias.assign([np.nan, 0.0, 0.0])
    with pytest.raises(NonFiniteError, match="1 of 3 entries NaN or infinite"):
        SampleBoundaryCalculator(BaseInfluenceModel(model, loss_function="mse")).score(
            batches(points(3))
        )


@pytest.mark.parametrize("shape", [(4, 3), (2, 2, 3)], ids=["sequence", "image"])
def test_outputs_with_positions_are_refused(shape):
    model = keras.Sequential([keras.Input(shape), layers.Dense(2)])
    with pytest.raises(UnsupportedModelError, match=r"shape \(b, c\), or \(b, 1\)"):
        SampleBoundaryCalculator(model).score(batches(points(*shape)))


def test_several_outputs_are_refused():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, [layers.Dense(2)(inputs), layers.Dense(2)(inputs)])
    wrapped = BaseInfluenceModel(model, loss_function=["mse", "mse"])
    data = tf.data.Dataset.from_tensor_slices((points(3), (np.zeros((N, 2)),) * 2)).batch(4)
    with pytest.raises(UnsupportedModelError, match="a classifier with one output tensor"):
        SampleBoundaryCalculator(wrapped).score(data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_nbr": 0}, "`step_nbr` must be a whole number >= 1"),
        ({"eps": 0.0}, "`eps` must be a finite number > 0"),
        ({"num_classes_considered": 1}, "`num_classes_considered` must be a whole number >= 2"),
    ],
)
def test_settings_without_meaning_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SampleBoundaryCalculator(affine(2)[0], **settings)
