"""Training networks again: what `fit` gives, from a seed, without compiling anew."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import DataSourceError, NonFiniteError, UnsupportedModelError
from deel_influence.evaluation import (
    NetworkTraining,
    QueryOutputs,
    leave_one_out,
    networks,
    retrain,
)

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(21, 4)).astype("float32")
LABELS = RNG.integers(0, 3, 21)
WITHOUT_ONE = np.delete(np.arange(21), 5)


def make_network() -> keras.Model:
    """Return a network with everything that has a state: momentum, statistics, dropout."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, activation="relu", kernel_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Without XLA, which rounds otherwise, `fit` runs the very operations that it is compared with.
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss, jit_compile=False)
    return model


def make_line(rate: float = 0.1) -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(rate), loss="mse", jit_compile=False)
    return model


def lines(**options) -> NetworkTraining:
    arguments = {"epochs": 2, "batch_size": 8, **options}
    return NetworkTraining(make_line, INPUTS, LABELS, **arguments)


def assert_same_weights(one: keras.Model, other: keras.Model, **tolerance: float) -> None:
    for mine, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, **{"rtol": 0, "atol": 0, **tolerance})


def test_it_gives_what_fit_gives_whatever_was_trained_before() -> None:
    train = NetworkTraining(make_network, INPUTS, LABELS, epochs=2, batch_size=8, shuffle=False)
    train.in_place(np.arange(21), seed=1)
    trained = train(WITHOUT_ONE, seed=2)
    keras.utils.set_random_seed(2)
    fitted = make_network()
    fitted.fit(
        INPUTS[WITHOUT_ONE], LABELS[WITHOUT_ONE], epochs=2, batch_size=8, shuffle=False, verbose=0
    )
    assert_same_weights(trained, fitted, rtol=1e-5, atol=1e-6)


def test_a_seed_fixes_everything_and_another_changes_it() -> None:
    train = lines()
    first, other, again = (train(WITHOUT_ONE, seed) for seed in (3, 4, 3))
    assert_same_weights(first, again)
    assert np.abs(first.get_weights()[0] - other.get_weights()[0]).max() > 0.01


def test_models_that_were_returned_stay_as_they_are() -> None:
    train = lines()
    kept = train(WITHOUT_ONE)
    before = kept.get_weights()
    train(np.arange(3))
    np.testing.assert_array_equal(before[0], kept.get_weights()[0])
    assert train.in_place(WITHOUT_ONE) is train.in_place(np.arange(3))


def test_steps_are_compiled_once() -> None:
    traces = []

    class Traced(keras.Model):
        def train_step(self, data):
            traces.append(1)
            return super().train_step(data)

    def make() -> keras.Model:
        inputs = keras.Input((4,))
        model = Traced(inputs, keras.layers.Dense(1)(inputs))
        model.compile(optimizer="sgd", loss="mse")
        return model

    train = NetworkTraining(make, INPUTS, LABELS, epochs=2, batch_size=8)
    for positions in (np.arange(21), WITHOUT_ONE, np.arange(5)):
        train.in_place(positions, seed=len(positions))
    assert len(traces) == 1


def test_left_out_rows_are_struck_from_the_order_of_the_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orders: list[np.ndarray] = []
    monkeypatch.setattr(networks._Loop, "run", lambda self, order: orders.append(order))
    train = lines()
    train(np.arange(21), seed=1)
    train(WITHOUT_ONE, seed=1)
    for whole, less in zip(orders[:2], orders[2:], strict=True):
        np.testing.assert_array_equal(whole[whole != 5], less)
    assert not np.array_equal(orders[0], orders[1])


def test_a_warm_start_replaces_the_seeds_weights() -> None:
    start = [np.full((4, 1), 2.0), np.ones(1)]
    train = lines(epochs=1, batch_size=21, start=start, shuffle=False)
    residuals = INPUTS @ start[0] + start[1] - LABELS[:, None]
    expected = start[0] - 0.1 * 2 * INPUTS.T @ residuals / 21
    np.testing.assert_allclose(train(np.arange(21)).get_weights()[0], expected, rtol=1e-5)


def test_sample_weights_of_zero_take_examples_out() -> None:
    weights = (np.arange(21) != 5).astype("float32")
    options = {"epochs": 1, "batch_size": 21, "shuffle": False, "start": [np.ones((4, 1)), [0.0]]}
    weighted = lines(sample_weight=weights * 21 / 20, **options)(np.arange(21))
    assert_same_weights(weighted, lines(**options)(WITHOUT_ONE), rtol=1e-5)


def test_trainings_that_diverge_are_refused() -> None:
    train = NetworkTraining(lambda: make_line(1e6), INPUTS, LABELS, epochs=9, batch_size=8)
    with pytest.raises(NonFiniteError, match="training on 20 of 21 examples with seed 4"):
        train(WITHOUT_ONE, seed=4)


def test_a_model_that_is_not_compiled_is_refused() -> None:
    def make() -> keras.Model:
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])

    train = NetworkTraining(make, INPUTS, LABELS, epochs=1, batch_size=8)
    with pytest.raises(UnsupportedModelError, match="`make_model` must return a built and compil"):
        train(WITHOUT_ONE)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([0, 21], "whole numbers from 0 to 20"),
        ([], "at least one"),
        ([True, False], "np.flatnonzero"),
        ([1, 1], "each row once. Received: 1 different ones of 2"),
    ],
)
def test_positions_must_be_rows(positions: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lines()(np.array(positions))


class Noise(keras.layers.Layer):
    """Noise from a generator of its own, or from Keras' global one."""

    def __init__(self, generator: keras.random.SeedGenerator | None) -> None:
        super().__init__()
        self.generator = generator

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs + keras.random.normal(tf.shape(inputs), seed=self.generator)


def noisy_lines(own: bool) -> NetworkTraining:
    def make() -> keras.Model:
        noise = Noise(keras.random.SeedGenerator(3) if own else None)
        model = keras.Sequential([keras.Input((4,)), noise, keras.layers.Dense(1)])
        model.compile(optimizer="sgd", loss="mse", metrics=["mae"])
        return model

    return NetworkTraining(make, INPUTS, LABELS, epochs=1, batch_size=8)


def test_noise_of_a_generator_of_its_own_is_fixed_by_the_seed() -> None:
    train = noisy_lines(own=True)
    first = train.in_place(WITHOUT_ONE).get_weights()
    np.testing.assert_array_equal(train.in_place(WITHOUT_ONE).get_weights()[0], first[0])


def test_noise_of_the_global_generator_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"generators of their own.*SeedGenerator"):
        noisy_lines(own=False)(WITHOUT_ONE)


def test_the_users_generators_go_on_as_if_nothing_had_been_drawn() -> None:
    random.seed(5)
    np.random.seed(5)
    expected = random.random(), np.random.random()
    random.seed(5)
    np.random.seed(5)
    lines()(WITHOUT_ONE, seed=2)
    assert (random.random(), np.random.random()) == expected


def test_a_folder_of_other_data_settings_or_queries_is_refused(tmp_path: Path) -> None:
    kept = leave_one_out(21, [0])
    measure = QueryOutputs(INPUTS[:3], LABELS[:3])
    other_labels = LABELS.copy()
    other_labels[20] += 1
    run = partial(retrain, kept=kept, folder=tmp_path, verbose=0)
    truth = run(lines(), measure)
    assert run(lines(), QueryOutputs(INPUTS[:3], LABELS[:3])).changes.tolist() == (
        truth.changes.tolist()
    )
    others = {
        "train.data": (NetworkTraining(make_line, INPUTS, other_labels, epochs=2, batch_size=8),),
        "train.epochs": (lines(epochs=3),),
        "train.make_model": (
            NetworkTraining(lambda: make_line(0.2), INPUTS, LABELS, epochs=2, batch_size=8),
        ),
        "measure.data": (lines(), QueryOutputs(INPUTS[3:6], LABELS[:3])),
        "measure.measurement": (lines(), QueryOutputs(INPUTS[:3], LABELS[:3], "logit")),
    }
    for name, parts in others.items():
        with pytest.raises(DataSourceError, match=f"differs in .*{name} "):
            run(*parts, *([measure] if len(parts) == 1 else []))
