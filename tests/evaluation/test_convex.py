"""Convex models trained again: the minimum that Newton's method finds, in a few passes."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import check_grad
from scipy.special import expit, softmax

from deel_influence.errors import (
    ConvergenceError,
    ConvergenceWarning,
    DataSourceError,
    MissingExtraError,
    UnsupportedModelError,
)
from deel_influence.evaluation import ConvexTraining, QueryOutputs, convex_objective, retrain
from deel_influence.evaluation.convex_objective import ConvexObjective
from deel_influence.evaluation.convex_solver import Whitening, minimise
from deel_influence.evaluation.double_precision import float64_copy
from deel_influence.evaluation.subsets import leave_one_out

N, D, C = 60, 4, 3
PENALTY = 1 / 64  # Keras holds it in float32
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(N, D))
LABELS = (INPUTS[:, :C] + RNG.gumbel(size=(N, C))).argmax(axis=1)
SIGNS = np.where(LABELS == 0, 1.0, -1.0)
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make_model(units: int = C, **options) -> keras.Model:
    options = {"use_bias": False, "kernel_regularizer": keras.regularizers.L2(PENALTY), **options}
    return keras.Sequential([keras.Input((D,)), keras.layers.Dense(units, **options)])


def smooth_hinge(temperature: float):
    def loss(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        margins = tf.squeeze(targets * outputs, -1)
        return temperature * tf.math.softplus((1.0 - margins) / temperature)

    return loss


def softmax_by_newton(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the minimum ``(d, c)`` of mean cross-entropy + PENALTY ‖W‖², by Newton's method."""
    n, d = inputs.shape
    one_hot, point = np.eye(C)[labels], np.zeros((d, C))
    for _ in range(50):
        shares = softmax(inputs @ point, axis=1)
        gradient = inputs.T @ (shares - one_hot) / n + 2 * PENALTY * point
        spread = shares[:, :, None] * np.eye(C) - shares[:, :, None] * shares[:, None, :]
        hessian = np.einsum("na,nb,ncd->acbd", inputs, inputs, spread).reshape(d * C, d * C) / n
        step = np.linalg.solve(hessian + 2 * PENALTY * np.eye(d * C), gradient.ravel())
        point -= step.reshape(d, C)
    return point


def kernel_of(model: keras.Model) -> np.ndarray:
    return tf.convert_to_tensor(model.weights[0]).numpy()


def count_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    passes: list[int] = []
    compute = ConvexObjective.value_and_gradient

    def counted(self: ConvexObjective, *arguments, **named):
        passes.append(1)
        return compute(self, *arguments, **named)

    monkeypatch.setattr(ConvexObjective, "value_and_gradient", counted)
    return passes


MODEL = make_model(kernel_initializer="zeros")


@pytest.fixture(scope="module")
def softmax_training() -> ConvexTraining:
    # A chunk smaller than the data, and the last one smaller still.
    return ConvexTraining(MODEL, INPUTS, LABELS, loss=CROSS_ENTROPY, chunk_size=25)


@pytest.mark.parametrize("removed", [0, 1, 7, N // 2])
def test_it_finds_the_minimum_that_newtons_method_finds(
    softmax_training: ConvexTraining, removed: int
) -> None:
    positions = np.sort(np.random.default_rng(1).permutation(N)[: N - removed])
    expected = softmax_by_newton(INPUTS[positions], LABELS[positions])
    found = kernel_of(softmax_training(positions))
    assert found.dtype == np.float64
    # The gradient is at most 1e-8, and the smallest curvature 2 * PENALTY.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 / (2 * PENALTY))


def test_changes_on_leaving_one_out_are_right_to_a_thousandth(
    softmax_training: ConvexTraining,
) -> None:
    left_out = [0, 11, 23]
    queries, labels = INPUTS[:8] + 0.1, LABELS[:8]
    truth = retrain(
        softmax_training, QueryOutputs(queries, labels), leave_one_out(N, left_out), verbose=0
    )

    def losses(positions: np.ndarray) -> np.ndarray:
        kernel = softmax_by_newton(INPUTS[positions], LABELS[positions])
        return -np.log(softmax(queries @ kernel, axis=1)[np.arange(8), labels])

    everything = np.arange(N)
    expected = np.array([losses(np.delete(everything, i)) - losses(everything) for i in left_out])
    scale = np.abs(expected).max(axis=1, keepdims=True)
    np.testing.assert_allclose(truth.changes / scale, expected / scale, rtol=0, atol=1e-3)


@pytest.mark.parametrize("precondition", [True, False])
def test_warm_starts_take_few_passes_and_nothing_is_compiled_anew(
    monkeypatch: pytest.MonkeyPatch, precondition: bool
) -> None:
    traces = []

    def loss(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        traces.append(1)
        return CROSS_ENTROPY.call(targets, outputs)

    train = ConvexTraining(make_model(), INPUTS, LABELS, loss=loss, precondition=precondition)
    train.in_place(np.arange(1, N))
    passes, before = count_passes(monkeypatch), len(traces)
    for left_out in range(1, 6):
        train.in_place(np.delete(np.arange(N), left_out))
    assert len(traces) == before
    assert len(passes) <= 5 * (5 if precondition else 25)


def test_no_more_examples_than_a_chunk_pass_the_model_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    curvature, without = convex_objective.dense_curvature, ConvexObjective.without

    def counted_curvature(model, batches, **options):
        sizes.extend(len(labels) for _, labels in batches)
        return curvature(model, batches, **options)

    def counted_without(self, point, here, removed):
        sizes.append(len(removed))
        return without(self, point, here, removed)

    monkeypatch.setattr(convex_objective, "dense_curvature", counted_curvature)
    monkeypatch.setattr(ConvexObjective, "without", counted_without)
    train = ConvexTraining(MODEL, INPUTS, LABELS, loss=CROSS_ENTROPY, chunk_size=4)
    for removed in (4, 5):
        train.in_place(np.arange(removed, N))
    assert max(sizes) == 4


def test_a_smooth_hinge_converges_though_it_is_sharp() -> None:
    temperature = 0.001
    loss = smooth_hinge(temperature)
    train = ConvexTraining(make_model(1), INPUTS, SIGNS, loss=loss)
    for positions in (np.arange(N), np.arange(1, N), np.arange(N // 2)):
        kernel = kernel_of(train.in_place(positions))
        slopes = -expit((1.0 - SIGNS * (INPUTS @ kernel)[:, 0]) / temperature)
        mean = (slopes * SIGNS)[positions] @ INPUTS[positions] / len(positions)
        assert np.linalg.norm(mean + 2 * PENALTY * kernel[:, 0]) <= 1e-8


def test_a_bias_without_a_penalty_converges() -> None:
    train = ConvexTraining(make_model(use_bias=True), INPUTS, LABELS, loss=CROSS_ENTROPY)
    kernel, bias = (tf.convert_to_tensor(w).numpy() for w in train(np.arange(1, N)).weights)
    shares = softmax(INPUTS[1:] @ kernel + bias, axis=1)
    np.testing.assert_allclose(shares.mean(axis=0), np.bincount(LABELS[1:]) / (N - 1), atol=1e-8)


def test_frozen_layers_before_the_head_stay() -> None:
    model = keras.Sequential(
        [keras.Input((D,)), keras.layers.Dense(3, activation="tanh", trainable=False)]
    )
    model.add(keras.layers.Dense(C, kernel_regularizer=keras.regularizers.L2(PENALTY)))
    train = ConvexTraining(model, INPUTS, LABELS, loss=CROSS_ENTROPY, precondition=False)
    np.testing.assert_allclose(kernel_of(train(np.arange(5, N))), kernel_of(model), rtol=1e-6)


def test_the_users_model_is_left_as_it_is(softmax_training: ConvexTraining) -> None:
    softmax_training(np.arange(1, N))
    np.testing.assert_array_equal(MODEL.get_weights()[0], 0.0)
    assert not MODEL.compiled


def test_models_that_were_returned_stay_as_they_are(softmax_training: ConvexTraining) -> None:
    full = softmax_training.full()
    before = kernel_of(full)
    softmax_training(np.arange(N // 2))
    np.testing.assert_array_equal(kernel_of(full), before)
    # It has its loss with it.
    assert QueryOutputs(INPUTS, LABELS)(full).shape == (N,)


def test_what_does_not_converge_is_refused() -> None:
    train = ConvexTraining(
        make_model(), INPUTS, LABELS, loss=CROSS_ENTROPY, max_steps=2, precondition=False
    )
    with pytest.raises(ConvergenceError, match=r"60 of 60 examples did not.*precondition=True"):
        train.full()


def test_changes_that_are_not_known_to_a_hundredth_are_warned_of() -> None:
    options = {"tolerance": 0.2, "max_steps": 2, "precondition": False}
    train = ConvexTraining(MODEL, INPUTS, LABELS, loss=CROSS_ENTROPY, **options)
    with pytest.warns(ConvergenceWarning, match="Without 20 examples the gradient came down"):
        train(np.arange(40))


def test_a_hessian_that_is_not_positive_definite_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="positive definite.*NetworkTraining"):
        Whitening(np.diag([1.0, -0.01, 2.0]))


def test_precondition_must_be_known() -> None:
    with pytest.raises(ValueError, match="Received: precondition='yes'"):
        ConvexTraining(make_model(), INPUTS, LABELS, loss="mse", precondition="yes")


def test_a_missing_scipy_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = importlib.import_module

    def without_scipy(name: str, package: str | None = None):
        if name.startswith("scipy"):
            raise ModuleNotFoundError(name, name="scipy")
        return real_import(name, package)

    monkeypatch.setattr(importlib, "import_module", without_scipy)
    with pytest.raises(MissingExtraError, match=r"deel-influence\[evaluation\]"):
        ConvexTraining(make_model(), INPUTS, LABELS, loss="mse")


class TestMinimise:
    def quadratic(self, size: int = 5):
        factor = np.random.default_rng(0).normal(size=(size, size))
        hessian = factor @ factor.T + 0.1 * np.eye(size)
        centre = np.arange(size, dtype=float)

        def function(point: np.ndarray) -> tuple[float, np.ndarray]:
            change = point - centre
            return float(change @ hessian @ change / 2), hessian @ change

        return function, hessian, centre

    def test_the_right_whitening_ends_in_one_step_wherever_it_starts(self) -> None:
        function, hessian, centre = self.quadratic()
        for start in (np.zeros(5), centre + 1e-7, 1e6 * np.ones(5)):
            found = minimise(function, start, lambda norm: 1e-6 * norm, Whitening(hessian.copy()))
            assert found.num_passes <= 3
            assert found.gradient_norm <= 1e-6 * found.start_norm

    def test_newton_steps_reach_what_values_cannot_tell(self) -> None:
        function, hessian, centre = self.quadratic()

        def high(point: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = function(point)
            return value + 1e6, gradient

        plain = minimise(high, np.zeros(5), lambda _: 1e-12)
        polished = minimise(high, plain.point, lambda _: 1e-12, Whitening(hessian.copy()))
        assert plain.gradient_norm > 1e-7
        assert polished.gradient_norm <= 1e-12

    def test_a_point_that_is_good_enough_is_returned(self) -> None:
        function, _, centre = self.quadratic()
        found = minimise(function, centre, lambda _: 1e-3)
        assert found.num_passes == 1
        np.testing.assert_array_equal(found.point, centre)


def test_the_gradient_is_that_of_the_value_over_the_chosen_rows() -> None:
    objective = ConvexObjective(make_model(), INPUTS, LABELS, CROSS_ENTROPY, chunk_size=25)
    weights = objective.row_weights(np.arange(3, 40))
    point = np.random.default_rng(0).normal(size=objective.size)

    def value(point: np.ndarray) -> float:
        return objective.value_and_gradient(point, weights)[0]

    def gradient(point: np.ndarray) -> np.ndarray:
        return objective.value_and_gradient(point, weights)[1]

    assert check_grad(value, gradient, point) < 1e-6
    logits = INPUTS[3:40] @ point.reshape(D, C)
    losses = -np.log(softmax(logits, axis=1)[np.arange(37), LABELS[3:40]])
    assert value(point) == pytest.approx(losses.mean() + PENALTY * point @ point, rel=1e-12)


def test_few_rows_tell_what_all_but_they_give() -> None:
    objective = ConvexObjective(MODEL, INPUTS, LABELS, CROSS_ENTROPY, chunk_size=100)
    point = np.random.default_rng(0).normal(size=objective.size)
    here = objective.value_and_gradient(point, objective.row_weights(np.arange(N)))
    value, gradient = objective.without(point, here, np.array([3, 50]))
    rest = objective.row_weights(np.delete(np.arange(N), [3, 50]))
    expected_value, expected_gradient = objective.value_and_gradient(point, rest)
    assert value == pytest.approx(expected_value, rel=1e-13)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-14)


def test_float64_copies_compute_in_float64_without_rounding_the_inputs() -> None:
    inputs = keras.Input((D,))
    inner = keras.Sequential([keras.Input((D,)), keras.layers.Dense(3, activation="relu")])
    model = keras.Model(inputs, keras.layers.Dense(2)(inner(inputs)))
    copy = float64_copy(model)
    first, first_bias, last, last_bias = (w.astype(np.float64) for w in model.get_weights())
    expected = np.maximum(INPUTS @ first + first_bias, 0.0) @ last + last_bias
    np.testing.assert_allclose(copy(tf.constant(INPUTS)).numpy(), expected, rtol=1e-13)
    assert {variable.dtype for variable in model.weights} == {"float32"}


def test_a_model_that_keras_cannot_copy_is_refused() -> None:
    class Opaque(keras.Model):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(width)

        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            return self.dense(inputs)

    model = Opaque(2)
    model(tf.zeros((1, D)))
    with pytest.raises(UnsupportedModelError, match="must be one that Keras can copy.*Opaque"):
        ConvexTraining(model, INPUTS, LABELS, loss="mse")


def test_a_folder_of_other_data_is_refused(tmp_path):
    measure = QueryOutputs(INPUTS[:3], LABELS[:3], loss=CROSS_ENTROPY)
    other = INPUTS.copy()
    other[-1, -1] += 1e-9
    for inputs, model in ((INPUTS, make_model()), (INPUTS, make_model())):
        # Where a search starts is no matter.
        train = ConvexTraining(model, inputs, LABELS, loss=CROSS_ENTROPY)
        retrain(train, measure, leave_one_out(N, [0]), folder=tmp_path, verbose=0)
    for name, train in {
        "train.data": ConvexTraining(make_model(), other, LABELS, loss=CROSS_ENTROPY),
        "train.layers": ConvexTraining(
            make_model(kernel_regularizer="l2"), INPUTS, LABELS, loss=CROSS_ENTROPY
        ),
    }.items():
        with pytest.raises(DataSourceError, match=f"differs in .*{name} "):
            retrain(train, measure, leave_one_out(N, [0]), folder=tmp_path, verbose=0)
