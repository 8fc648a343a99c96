"""The callback records every fit, and leaves nothing of itself in the model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import UnsupportedModelError
from deel_influence.training_dynamics import (
    AreaUnderMargin,
    RecordedDynamics,
    RecordedLoss,
    TrainingDynamics,
    recorder,
)
from tests.oracles import assert_close
from tests.training_dynamics.runs import (
    SPARSE,
    N,
    batches,
    classifier,
    data,
    fit,
    same_record,
    weights_of,
    wrapped,
)

layers = keras.layers


class Raising(keras.callbacks.Callback):
    """Ends the fit at one of its hooks, in the second epoch."""

    def __init__(self, hook: str, error: type[BaseException] = RuntimeError) -> None:
        super().__init__()
        self.epochs = 0

        def stop(*args: object, **kwargs: object) -> None:
            if self.epochs == 2:
                raise error

        setattr(self, hook, stop)

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.epochs += 1


@pytest.fixture(scope="module")
def usual() -> RecordedDynamics:
    """Return the record of three epochs of the usual fit."""
    dynamics = TrainingDynamics()
    fit(classifier(), dynamics)
    return dynamics.recorded


@pytest.mark.parametrize(
    "options",
    [{"jit_compile": True}, {"steps_per_execution": 2}, {"run_eagerly": True}],
    ids=["xla", "two-steps-a-call", "eager"],
)
def test_the_weights_are_the_same_to_the_last_bit_and_so_is_the_record(options, usual):
    dynamics = TrainingDynamics()
    recorded = weights_of(fit(classifier(**options), dynamics))
    np.testing.assert_array_equal(recorded, weights_of(fit(classifier(**options))))
    np.testing.assert_array_equal(dynamics.recorded.keys, usual.keys)
    assert_close(dynamics.recorded.values, usual.values, 1e-5)


def test_random_layers_draw_what_they_would_have_drawn():
    recorded, plain = (
        weights_of(fit(classifier(dropout=0.3), *callbacks))
        for callbacks in ([TrainingDynamics()], [])
    )
    np.testing.assert_array_equal(recorded, plain)


def test_the_model_is_as_it_was_after_the_fit(tmp_path):
    model = fit(classifier(), epochs=1)
    before = dict(vars(model))
    fit(model, TrainingDynamics())
    changed = {name for name, value in vars(model).items() if before.get(name, ()) is not value}
    # What any fit writes.
    assert changed <= {"_optimizer_lock", "history", "stop_training", "_eval_epoch_iterator"}
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(weights_of(loaded), weights_of(model))


@pytest.mark.parametrize(
    ("hook", "error"),
    [
        ("on_train_batch_begin", RuntimeError),
        ("on_train_batch_end", KeyboardInterrupt),
        ("on_epoch_end", RuntimeError),
    ],
)
def test_an_exception_leaves_no_trace_in_the_model(hook, error):
    model = fit(classifier(), epochs=1)
    plain = model.train_function
    dynamics = TrainingDynamics()
    with pytest.raises(error):
        fit(model, Raising(hook, error), dynamics)
    assert model.train_function is plain
    assert "compute_loss" not in vars(model)
    kept = dynamics.recorded
    assert kept.epochs.tolist() == [0]
    fit(model)
    assert same_record(kept, dynamics.recorded)


def test_a_step_that_fails_leaves_no_trace_in_the_model():
    model = classifier()
    plain = fit(model, epochs=1).train_function
    x, y = data()
    with pytest.raises(tf.errors.InvalidArgumentError):
        model.fit(x, y + 100, verbose=0, callbacks=[TrainingDynamics()])
    assert model.train_function is plain
    assert "compute_loss" not in vars(model)


def test_a_fit_that_is_ended_between_the_hooks_heals_at_the_next_step():
    model = fit(classifier(), epochs=1)
    plain = model.train_function
    with pytest.raises(RuntimeError):
        fit(model, TrainingDynamics(), Raising("on_train_batch_begin"))
    fit(model, epochs=1)
    assert model.train_function is plain


def test_a_fit_that_is_ended_between_the_hooks_can_be_gone_on_with():
    model, dynamics = fit(classifier(), epochs=1), TrainingDynamics()
    plain = model.train_function
    with pytest.raises(RuntimeError):
        fit(model, dynamics, Raising("on_train_batch_begin"))
    fit(model, dynamics, initial_epoch=1)
    assert model.train_function is plain
    assert dynamics.recorded.epochs.tolist() == [0, 1, 2]
    fit(model, epochs=1)


def test_fits_add_up_and_an_initial_epoch_replaces():
    whole, parts = TrainingDynamics(), TrainingDynamics()
    fit(classifier(), whole, epochs=4, shuffle=False)
    model = fit(classifier(), parts, epochs=2, shuffle=False)
    fit(model, parts, epochs=2, shuffle=False)
    assert same_record(whole.recorded, parts.recorded)
    fit(model, parts, epochs=4, initial_epoch=3, shuffle=False)
    assert parts.recorded.epochs.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(parts.recorded.values[:3], whole.recorded.values[:3])
    assert not np.array_equal(parts.recorded.values[3], whole.recorded.values[3])


def test_an_epoch_that_is_cut_off_is_not_recorded():
    dynamics = TrainingDynamics()
    model = classifier()
    with pytest.raises(KeyboardInterrupt):
        fit(model, dynamics, Raising("on_train_batch_end", KeyboardInterrupt))
    assert dynamics.recorded.epochs.tolist() == [0]
    assert fit(model, dynamics, epochs=2, initial_epoch=1) is model
    assert dynamics.recorded.epochs.tolist() == [0, 1]


def test_only_the_chosen_epochs_are_recorded(usual):
    some = TrainingDynamics(epochs=(0, 2, 99))
    fit(classifier(), some, epochs=4)
    assert some.recorded.epochs.tolist() == [0, 2]
    assert some.recorded.next_epoch == 4
    np.testing.assert_array_equal(some.recorded.values, usual.values[[0, 2]])


def test_one_number_is_no_choice_of_epochs():
    with pytest.raises(TypeError, match=r"`epochs` must be .* such as range\(10\)"):
        TrainingDynamics(epochs=10)


@pytest.mark.parametrize("epochs", [["0"], "10", [-1], [0.5]])
def test_what_numbers_no_epoch_is_refused(epochs):
    with pytest.raises(ValueError, match="`epochs` must be .* from 0, such as"):
        TrainingDynamics(epochs=epochs)


def test_examples_that_were_not_in_the_run_are_refused():
    dynamics = TrainingDynamics()
    calculator = AreaUnderMargin(wrapped(fit(classifier(), dynamics, epochs=1)), dynamics)
    x, y = data()
    with pytest.raises(ValueError, match=r"Received: 2 of 5 examples .*id_fn=\.\.\."):
        calculator.score(batches(x + (np.arange(N) < 2)[:, None], y), verbose=0)
    with pytest.raises(ValueError, match="Received: 5 of 5 examples"):
        calculator.score(batches(x, y + 1), verbose=0)


def test_ids_know_examples_whose_inputs_change_from_epoch_to_epoch():
    x, y = data()
    inputs = keras.Input((4,), name="x")
    model = keras.Model(
        {"x": inputs, "id": keras.Input((), name="id", dtype="int64")}, layers.Dense(3)(inputs)
    )
    model.compile("sgd", SPARSE(from_logits=True))
    plain = tf.data.Dataset.from_tensor_slices(({"x": x, "id": 1000 + np.arange(N)}, y)).batch(8)
    noisy = plain.map(lambda a, b: ({"x": a["x"] + tf.random.normal((4,)), "id": a["id"]}, b))
    dynamics = TrainingDynamics(id_fn=lambda batch: batch[0]["id"])
    model.fit(noisy, epochs=2, shuffle=False, verbose=0, callbacks=[dynamics])
    assert dynamics.recorded.keys.tolist() == list(range(1000, 1000 + N))
    scores = AreaUnderMargin(wrapped(model), dynamics).score(plain, verbose=0)
    assert_close(scores, -dynamics.recorded.statistic("margin").mean(axis=0), 1e-6)


def test_ids_may_be_strings():
    x, y = data()
    names = np.array([f"picture-{i}" for i in range(N)])
    inputs = keras.Input((4,), name="x")
    model = keras.Model(
        {"x": inputs, "id": keras.Input((), name="id", dtype="string")}, layers.Dense(3)(inputs)
    )
    model.compile("sgd", SPARSE(from_logits=True), jit_compile=False)
    train = tf.data.Dataset.from_tensor_slices(({"x": x, "id": names}, y)).batch(8)
    dynamics = TrainingDynamics(["margin"], id_fn=lambda batch: batch[0]["id"])
    model.fit(train, shuffle=False, verbose=0, callbacks=[dynamics])
    other = {"x": x[::-1] + 1, "id": names[::-1]}
    elsewhere = tf.data.Dataset.from_tensor_slices((other, y)).batch(5)
    calculator = AreaUnderMargin(wrapped(model), dynamics)
    found = calculator.score(train, verbose=0).values
    assert len(np.unique(found)) == N
    np.testing.assert_array_equal(calculator.score(elsewhere, verbose=0), found[::-1])


def test_equal_examples_share_the_mean_of_what_was_recorded():
    x, y = data(6)
    dynamics, apart = TrainingDynamics(record="loss"), TrainingDynamics(record="loss")
    model = classifier()
    model.fit(
        np.tile(x, (2, 1)),
        np.tile(y, 2),
        batch_size=6,
        shuffle=False,
        verbose=0,
        callbacks=[dynamics],
    )
    model = classifier()
    model.fit(x, y, batch_size=6, epochs=2, shuffle=False, verbose=0, callbacks=[apart])
    train = batches(x, y)
    found, expected = (
        RecordedLoss(wrapped(model), d).score(train, verbose=0) for d in (dynamics, apart)
    )
    assert len(dynamics.recorded) == 6
    assert_close(found, expected, 1e-6)


def test_examples_left_out_of_an_epoch_are_not_counted_in_it():
    x, y = data(6)
    dynamics = TrainingDynamics(record="loss")
    model = classifier()
    model.fit(x[:4], y[:4], verbose=0, callbacks=[dynamics])
    model.fit(x[2:], y[2:], verbose=0, callbacks=[dynamics])
    assert np.isnan(dynamics.recorded.values).sum() == 4
    scores = RecordedLoss(wrapped(model), dynamics).score(batches(x, y), verbose=0)
    assert np.isfinite(scores.values).all()


def test_a_table_that_is_too_small_says_so(monkeypatch):
    monkeypatch.setattr(recorder, "ROWS_KEPT", 20)
    with pytest.raises(ValueError, match="`batch_size` of TrainingDynamics .* 23 examples in 1"):
        fit(classifier(), TrainingDynamics(), epochs=1, batch_size=30)
    dynamics = TrainingDynamics(batch_size=30)
    fit(classifier(), dynamics, epochs=1, batch_size=30)
    assert len(dynamics.recorded) == N


def test_tables_are_read_before_they_are_full(monkeypatch, usual):
    monkeypatch.setattr(recorder, "ROWS_KEPT", 20)
    dynamics = TrainingDynamics()
    fit(classifier(), dynamics)
    assert same_record(dynamics.recorded, usual)


class OwnStep(keras.Model):
    """A model with a training step of its own."""

    arguments = ("y", "y_pred")

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.dense(x)

    def train_step(self, batch: tuple) -> dict:
        x, y = batch
        y_pred = self(x)
        given = {"x": x, "y": y, "y_pred": y_pred}
        if self.arguments:
            return {"l": self.compute_loss(**{name: given[name] for name in self.arguments})}
        return {"l": tf.reduce_mean(y_pred)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "step that calls the model's `compute_loss`"), (("y", "y_pred"), "Received: x=None")],
)
def test_a_training_step_that_hides_the_batch_is_refused(arguments, message):
    model = OwnStep()
    model.arguments = arguments
    model(data()[0])
    model.compile("sgd", SPARSE(from_logits=True))
    with pytest.raises(UnsupportedModelError, match=message):
        fit(model, TrainingDynamics(), epochs=1)


def test_a_training_step_of_ones_own_is_recorded():
    model = OwnStep()
    model.arguments = ("x", "y", "y_pred")
    model(data()[0])
    model.compile("sgd", SPARSE(from_logits=True))
    dynamics = TrainingDynamics()
    fit(model, dynamics, epochs=1)
    assert len(dynamics.recorded) == N


def test_a_second_recorder_in_one_fit_is_refused():
    model = fit(classifier(), epochs=1)
    plain = model.train_function
    with pytest.raises(UnsupportedModelError, match="must have one callback"):
        fit(model, TrainingDynamics(["loss"]), TrainingDynamics(["margin"]), epochs=1)
    assert model.train_function is plain


@pytest.mark.parametrize(
    "options",
    [{"jit_compile": True}, {"jit_compile": False, "steps_per_execution": 2}],
    ids=["xla", "two-steps-a-call"],
)
def test_a_model_that_fit_builds_is_recorded(options):
    keras.utils.set_random_seed(0)
    unbuilt = keras.Sequential([layers.Dense(8, "tanh"), layers.Dense(3)])
    unbuilt.compile("sgd", SPARSE(from_logits=True), **options)
    fit(unbuilt, late := TrainingDynamics(), epochs=2)
    keras.utils.set_random_seed(0)
    built = keras.Sequential([keras.Input((4,)), layers.Dense(8, "tanh"), layers.Dense(3)])
    built.compile("sgd", SPARSE(from_logits=True), **options)
    fit(built, early := TrainingDynamics(), epochs=2)
    assert len(late.recorded) == N
    assert late.recorded.epochs.tolist() == early.recorded.epochs.tolist()
    assert_close(late.recorded.values, early.recorded.values, 1e-6)


def test_training_on_several_devices_is_refused():
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = classifier()
    with pytest.raises(UnsupportedModelError, match="a strategy of 2 replicas"):
        fit(model, TrainingDynamics(), epochs=1)
