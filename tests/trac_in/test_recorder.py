"""The recorder notes the weights and the learning rate of a training, killed or not."""

from __future__ import annotations

from dataclasses import asdict

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import DataSourceError, UnsupportedModelError
from deel_influence.model.manifest import CHECKPOINTS, MANIFEST, read_checkpoints
from deel_influence.trac_in import CheckpointRecorder, TracIn
from deel_influence.utils.records import RecordKind
from tests.oracles import assert_close
from tests.trac_in.training import N, arrays, dataset, layers, plain, wrapped

BATCH = 8
STEPS = 3  # of an epoch: 23 examples in batches of 8


class KilledError(Exception):
    """What a crash raises here."""


class Crash(keras.callbacks.Callback):
    """Ends a training in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch, self.now = epoch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch and batch == 1:
            raise KilledError


def compiled(rate: object = 0.1) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = plain()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, run_eagerly=True)
    return model


def fit(model: keras.Model, *callbacks: keras.callbacks.Callback, epochs: int, first: int = 0):
    model.fit(
        *arrays(N, 0),
        batch_size=BATCH,
        epochs=epochs,
        initial_epoch=first,
        callbacks=list(callbacks),
        shuffle=False,
        verbose=0,
    )


def resumed(path) -> keras.Model:
    """Return a new model with the weights and the optimizer's state of a checkpoint."""
    model = compiled()
    model.optimizer.build(model.trainable_variables)
    model.load_weights(path)
    return model


def summary(folder) -> list[tuple[int, int]]:
    return [(c.step, c.epoch) for c in read_checkpoints(folder)]


def test_the_rate_of_a_schedule_is_that_of_the_last_step(tmp_path):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=2, decay_rate=0.5)
    fit(compiled(schedule), CheckpointRecorder(tmp_path), epochs=3)
    found = read_checkpoints(tmp_path)
    assert [c.step for c in found] == [3, 6, 9]
    by_hand = [0.1 * 0.5 ** ((step - 1) / 2) for step in (3, 6, 9)]
    np.testing.assert_allclose([c.learning_rate for c in found], by_hand, rtol=1e-6)


def test_the_rate_that_a_callback_sets_is_the_one_noted(tmp_path):
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    fit(compiled(), scheduler, CheckpointRecorder(tmp_path), epochs=3)
    rates = [c.learning_rate for c in read_checkpoints(tmp_path)]
    np.testing.assert_allclose(rates, [0.1, 0.05, 0.1 / 3], rtol=1e-6)


def test_a_rate_lowered_at_the_end_of_an_epoch_counts_from_the_next(tmp_path):
    plateau = keras.callbacks.ReduceLROnPlateau("loss", 0.1, patience=1, min_delta=1e9, cooldown=0)
    fit(compiled(), plateau, CheckpointRecorder(tmp_path), epochs=4)
    rates = [c.learning_rate for c in read_checkpoints(tmp_path)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.001], rtol=1e-6)


@pytest.mark.parametrize(
    ("when", "steps"),
    [
        ({"every_epochs": 2}, [6]),
        ({"epochs": [1, 3]}, [3, 9]),
        ({"every_steps": 4}, [4, 8]),
        ({"steps": [1, 2, 7]}, [1, 2, 7]),
    ],
    ids=lambda value: str(value),
)
def test_checkpoints_are_taken_when_they_are_due(tmp_path, when, steps):
    fit(compiled(), CheckpointRecorder(tmp_path, **when), epochs=3)
    assert [c.step for c in read_checkpoints(tmp_path)] == steps


def test_several_steps_in_one_execution_count_in_full(tmp_path):
    model = compiled()
    model.compile(keras.optimizers.SGD(0.1), model.loss, steps_per_execution=2, jit_compile=False)
    fit(model, CheckpointRecorder(tmp_path, every_steps=2), epochs=2)
    steps = [c.step for c in read_checkpoints(tmp_path)]
    assert steps == [2, 5, 6]


def test_a_killed_training_goes_on_where_it_was(tmp_path):
    with pytest.raises(KilledError):
        fit(compiled(), CheckpointRecorder(tmp_path), Crash(2), epochs=4)
    assert summary(tmp_path) == [(3, 1), (6, 2)]
    written = [c.path.stat().st_mtime_ns for c in read_checkpoints(tmp_path)]
    fit(
        resumed(read_checkpoints(tmp_path)[-1].path),
        CheckpointRecorder(tmp_path),
        epochs=4,
        first=2,
    )
    assert summary(tmp_path) == [(3, 1), (6, 2), (9, 3), (12, 4)]
    assert [c.path.stat().st_mtime_ns for c in read_checkpoints(tmp_path)[:2]] == written
    uninterrupted = tmp_path / "uninterrupted"
    fit(compiled(), CheckpointRecorder(uninterrupted), epochs=4)
    expected = [c.digest for c in read_checkpoints(uninterrupted)]
    assert [c.digest for c in read_checkpoints(tmp_path)] == expected


def test_what_a_crash_has_undone_is_dropped(tmp_path):
    fit(compiled(), CheckpointRecorder(tmp_path, every_steps=2), epochs=3)
    assert [c.step for c in read_checkpoints(tmp_path)] == [2, 4, 6, 8]
    lost = read_checkpoints(tmp_path)[-1].path
    model = resumed(read_checkpoints(tmp_path)[1].path)
    recorder = CheckpointRecorder(tmp_path, every_steps=3)
    fit(model, recorder, epochs=2, first=1)
    assert [c.step for c in recorder.checkpoints] == [2, 4, 6]
    assert not lost.exists()


def test_a_resumed_training_with_a_new_optimizer_counts_on(tmp_path):
    fit(compiled(), CheckpointRecorder(tmp_path), epochs=2)
    model = compiled()
    model.set_weights(resumed(read_checkpoints(tmp_path)[-1].path).get_weights())
    fit(model, CheckpointRecorder(tmp_path), epochs=3, first=2)
    assert summary(tmp_path) == [(3, 1), (6, 2), (9, 3)]


def test_a_second_fit_of_the_same_model_continues_the_list(tmp_path):
    model, recorder = compiled(), CheckpointRecorder(tmp_path)
    fit(model, recorder, epochs=1)
    fit(model, recorder, epochs=2)
    assert [c.step for c in read_checkpoints(tmp_path)] == [3, 6, 9]


def test_a_training_that_starts_anew_writes_nothing_twice(tmp_path):
    fit(compiled(), CheckpointRecorder(tmp_path), epochs=1)
    written = read_checkpoints(tmp_path)[0].path.stat().st_mtime_ns
    fit(compiled(), CheckpointRecorder(tmp_path), epochs=2)
    assert [c.step for c in read_checkpoints(tmp_path)] == [3, 6]
    assert read_checkpoints(tmp_path)[0].path.stat().st_mtime_ns == written


def test_a_folder_of_another_training_is_refused(tmp_path):
    fit(compiled(), CheckpointRecorder(tmp_path), epochs=1)
    with pytest.raises(DataSourceError, match="checkpoint of step 3 has other weights"):
        fit(compiled(0.2), CheckpointRecorder(tmp_path), epochs=1)


def test_a_file_that_was_cut_short_is_noticed(tmp_path):
    fit(compiled(), CheckpointRecorder(tmp_path), epochs=2)
    path = read_checkpoints(tmp_path)[-1].path
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataSourceError, match=f"{path.name}', which is missing or was cut short"):
        read_checkpoints(tmp_path)
    model = resumed(read_checkpoints_ignoring_damage(tmp_path))
    recorder = CheckpointRecorder(tmp_path)
    with pytest.warns(UserWarning, match=f"{path.name}' is missing or was cut short"):
        fit(model, recorder, epochs=3, first=1)
    assert summary(tmp_path) == [(3, 1), (6, 2), (9, 3)]


def read_checkpoints_ignoring_damage(folder):
    return folder / "step_000000003.weights.h5"


def test_weights_that_were_changed_are_noticed_when_they_are_loaded(tmp_path):
    fit(compiled(), CheckpointRecorder(tmp_path), epochs=2)
    one, other = read_checkpoints(tmp_path)
    other.path.write_bytes(one.path.read_bytes())  # of the same length
    calculator = TracIn.from_folder(wrapped(plain()), tmp_path)
    with pytest.raises(DataSourceError, match="weights that were recorded"):
        calculator.score(dataset(N, 0, BATCH))


def test_a_recorded_training_is_scored_with_its_rates(tmp_path):
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    kept = []

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            copy = plain()
            copy.set_weights(self.model.get_weights())
            kept.append(wrapped(copy))

    fit(compiled(), scheduler, Keep(), CheckpointRecorder(tmp_path), epochs=2)
    live = TracIn(kept, [0.1, 0.05]).score(dataset(N, 0, BATCH))
    recorded = TracIn.from_folder(wrapped(plain()), tmp_path).score(dataset(N, 0, BATCH))
    assert_close(recorded, live, 1e-6)


def test_one_of_several_optimizers_is_named(tmp_path):
    class TwoOptimizers(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.body = layers.Dense(3)
            self.mine = keras.optimizers.SGD(0.25)

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(self.body(x)[:, 0] - tf.cast(y, tf.float32)))
            variables = self.trainable_variables
            self.mine.apply(tape.gradient(loss, variables), variables)
            return {"loss": loss}

    model = TwoOptimizers()
    model.body.build((None, 4))
    model.built = True
    model.compile(optimizer=None, run_eagerly=True)
    with pytest.raises(UnsupportedModelError, match="one optimizer.*NoneType.*`optimizer=`"):
        fit(model, CheckpointRecorder(tmp_path), epochs=1)
    fit(model, CheckpointRecorder(tmp_path, optimizer=model.mine), epochs=1)
    assert [(c.step, c.learning_rate) for c in read_checkpoints(tmp_path)] == [(3, 0.25)]


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"epochs": [1], "every_steps": 2}, "Only one of .*every_steps.: 2"),
        ({"every_epochs": 0}, "`every_epochs` must hold integers of at least 1"),
        ({"steps": []}, "`steps` must hold integers"),
        ({"epochs": [1.5]}, "`epochs` must hold integers"),
    ],
)
def test_unclear_times_are_refused(tmp_path, when, message):
    with pytest.raises(ValueError, match=message):
        CheckpointRecorder(tmp_path, **when)


def test_a_folder_without_a_readable_list_is_refused(tmp_path):
    with pytest.raises(DataSourceError, match="which holds no checkpoints"):
        TracIn.from_folder(wrapped(plain()), tmp_path)
    (tmp_path / MANIFEST).write_text('{"format": 1, "checkpoints": [{"st')
    with pytest.raises(DataSourceError, match="cannot be read"):
        TracIn.from_folder(wrapped(plain()), tmp_path)
    RecordKind("list of checkpoints", "", version=7).write(tmp_path / MANIFEST, {})
    with pytest.raises(DataSourceError, match="is of version 7 and not 2. Delete the folder"):
        TracIn.from_folder(wrapped(plain()), tmp_path)


def test_a_list_names_no_files_outside_its_folder(tmp_path):
    outside, folder = tmp_path / "thesis.txt", tmp_path / "recorded"
    outside.write_text("years of work")
    fit(compiled(), CheckpointRecorder(folder), epochs=2)
    (_, last) = read_checkpoints(folder)
    entry = {**asdict(last), "step": 10**6, "size": outside.stat().st_size}
    for path in ("../thesis.txt", str(outside), "..", ""):
        CHECKPOINTS.write(folder / MANIFEST, {"checkpoints": [{**entry, "path": path}]})
        with pytest.raises(DataSourceError, match="leaves the folder"):
            fit(compiled(), CheckpointRecorder(folder), epochs=1)
    assert outside.read_text() == "years of work"


def test_nothing_but_whole_files_is_left_behind(tmp_path):
    fit(compiled(), CheckpointRecorder(tmp_path), epochs=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        MANIFEST,
        "step_000000003.weights.h5",
        "step_000000006.weights.h5",
    ]
