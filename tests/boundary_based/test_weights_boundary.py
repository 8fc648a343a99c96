"""Distances to the boundary in the weights: closed forms, and the paper's algorithm on a copy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.boundary_based import SampleBoundaryCalculator, WeightsBoundaryCalculator
from deel_influence.errors import ConvergenceWarning
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from tests.boundary_based.oracle import deepfool, dual_of, flat_weights, in_weights
from tests.oracles import assert_close

layers = keras.layers
N = 7  # no multiple of the batch of 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ORDERS = [1, 1.5, 2, np.inf]


def points(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, *shape)).astype(keras.config.floatx())


def batches(x: np.ndarray, size: int = 3) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((x, np.arange(N) % 2)).batch(size)


def distances(calculator, x: np.ndarray, size: int = 3) -> np.ndarray:
    scores = calculator.score(batches(x, size)).values
    assert np.all(scores <= 0)
    return np.sqrt(-scores)


def network(*after: layers.Layer, c: int = 4) -> keras.Model:
    wide = keras.initializers.RandomNormal(0, 0.7)
    hidden = layers.Dense(5, "tanh", kernel_initializer=wide)
    return keras.Sequential([keras.Input((3,)), hidden, layers.Dense(c), *after])


def convolution() -> keras.Model:
    parts = [layers.Conv2D(2, 2, activation="tanh"), layers.BatchNormalization(), layers.Flatten()]
    return keras.Sequential([keras.Input((4, 4, 1)), *parts, layers.Dense(3)])


def projection() -> keras.Model:
    """A model whose product along a sequence has two copies of each example."""
    parts = [layers.EinsumDense("btd,de->bte", (3, 3), activation="tanh"), layers.Flatten()]
    return keras.Sequential([keras.Input((3, 2)), *parts, layers.Dense(3)])


def known_distances(model: keras.Model, x: np.ndarray, p: float, parts: str) -> np.ndarray:
    """Return the distances in the weights of the last layer: logits there are linear in them."""
    features = keras.Model(model.inputs[0], model.layers[-1].input)(x).numpy()
    logits = np.sort(model(x).numpy(), axis=1)
    single = logits.shape[1] == 1
    gap = np.abs(logits[:, 0]) if single else logits[:, -1] - logits[:, -2]
    ones = np.ones((len(x), 1))
    slope = {"kernel": features, "bias": ones, "both": np.concatenate([features, ones], 1)}[parts]
    q = dual_of(p)
    return gap / np.linalg.norm(slope, ord=q, axis=1) / np.linalg.norm([1.0] * (2 - single), ord=q)


def watching(model: keras.Model, parts: str) -> BaseInfluenceModel:
    last = model.layers[-1]
    weights = {"kernel": last.kernel, "bias": last.bias, "both": [last.kernel, last.bias]}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if model.output_shape[1] == 1:
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
    return BaseInfluenceModel(model, weights[parts], loss)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("c", [1, 4], ids=["binary", "classes"])
def test_a_last_layer_is_known_without_a_search(p, c, monkeypatch):
    model, x = network(c=c), points(3)
    calculator = WeightsBoundaryCalculator(watching(model, "both"), norm_type=p)
    monkeypatch.setattr(calculator, "_points_of_search", None)
    assert_close(distances(calculator, x), known_distances(model, x, p, "both"), 1e-12)
    np.testing.assert_array_equal(calculator.last_search.num_steps, 1)
    assert calculator.last_search.reached.all()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("parts", ["kernel", "bias"])
def test_a_part_of_the_last_layer_is_known_too(parts):
    model, x = network(), points(3)
    calculator = WeightsBoundaryCalculator(watching(model, parts))
    assert_close(distances(calculator, x), known_distances(model, x, 2, parts), 1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("p", [1, np.inf])
def test_the_search_agrees_with_what_is_known_of_a_last_layer(p):
    """A layer without weights behind the last Dense one hides that the answer is known."""
    model, x = network(), points(3)
    behind = keras.Sequential([keras.Input((3,)), *model.layers, layers.Rescaling(2.0)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    wrapped = InfluenceModel(behind, -2, loss_function=loss)
    calculator = WeightsBoundaryCalculator(wrapped, norm_type=p)
    # Landing within eps of the boundary is arriving.
    assert_close(distances(calculator, x), known_distances(model, x, p, "both"), 1e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("build", "shape", "p"),
    [
        (network, (3,), 1.5),
        (network, (3,), 2),
        (convolution, (4, 4, 1), 2),
        (projection, (3, 2), 2),
    ],
    ids=["dense-1.5", "dense-2", "convolution-2", "projection-2"],
)
def test_distances_and_steps_are_those_of_the_algorithm_on_a_copy_for_each_example(build, shape, p):
    model, x = build(), points(*shape)
    start = flat_weights(model)
    expected = [deepfool(in_weights(model, z), start, p) for z in x]
    calculator = WeightsBoundaryCalculator(model, norm_type=p)
    assert_close(distances(calculator, x), [d for d, _, _ in expected], 1e-7)
    search = calculator.last_search
    np.testing.assert_array_equal(search.num_steps, [s for _, s, _ in expected])
    assert search.reached.all()


def test_scores_do_not_depend_on_how_many_examples_are_taken_at_a_time():
    model, x = network(), points(3)
    calculator = WeightsBoundaryCalculator(model)
    expected = distances(calculator, x, N)
    for size, at_once in ((1, None), (5, 2)):
        calculator._max_examples = at_once
        assert_close(distances(calculator, x, size), expected, 1e-4)
        np.testing.assert_array_equal(calculator.last_search.ids, np.arange(N))


def test_examples_that_do_not_arrive_are_reported():
    calculator = WeightsBoundaryCalculator(network(), step_nbr=1)
    with pytest.warns(ConvergenceWarning, match=f"of {N} examples"):
        distances(calculator, points(3))
    assert 0 < len(calculator.last_search.unreached_ids) < N


def test_features_of_zeros_leave_a_kernel_without_effect():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, bias_initializer="normal")])
    calculator = WeightsBoundaryCalculator(watching(model, "kernel"))
    with pytest.warns(ConvergenceWarning, match=f"{N} of {N} examples"):
        found = distances(calculator, np.zeros((N, 3), "float32"))
    assert not found.any()


class Fragile(layers.Layer):
    """A layer that fails while a function of it is traced, after the first such call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls_left = 1

    def call(self, x: tf.Tensor) -> tf.Tensor:
        if tf.is_symbolic_tensor(x) and not isinstance(x, keras.KerasTensor):
            if vars(self)["calls_left"] == 0:
                message = "in the middle"
                raise RuntimeError(message)
            vars(self)["calls_left"] -= 1
        return tf.identity(x)


@pytest.mark.parametrize("kind", [SampleBoundaryCalculator, WeightsBoundaryCalculator])
@pytest.mark.parametrize("fails", [False, True], ids=["that-ends", "that-fails"])
def test_a_search_leaves_no_trace_in_the_model(kind, fails):
    model, x = network(Fragile()), points(3)
    model.compile("sgd", "mse")
    vars(model.layers[-1])["calls_left"] = 1 if fails else 1000
    calculator = kind(BaseInfluenceModel(model, loss_function=LOSS))
    before, outputs = model.get_weights(), model(x).numpy()
    attributes = [sorted(vars(layer)) for layer in model.layers]
    if fails:
        with pytest.raises(RuntimeError, match="in the middle"):
            distances(calculator, x)
        assert calculator.last_search is None
    else:
        distances(calculator, x)
    for weights, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, expected)
    np.testing.assert_array_equal(model(x), outputs)
    assert [sorted(vars(layer)) for layer in model.layers] == attributes
    assert model.loss == "mse"


@pytest.mark.parametrize("p", [0.5, "euclidean"])
def test_what_is_no_norm_is_refused(p):
    with pytest.raises(ValueError, match="`norm_type` must be a number >= 1"):
        WeightsBoundaryCalculator(network(), norm_type=p)


def test_a_string_for_a_model_is_refused():
    with pytest.raises(TypeError, match="`model` must be an InfluenceModel"):
        WeightsBoundaryCalculator("model")
