"""The models and learning rates that are kept are those of the training."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.benchmark import ModelsSaver
from deel_influence.common import InfluenceModel
from deel_influence.errors import UnsupportedModelError
from deel_influence.trac_in.tracin import TracIn
from tests.benchmark.problems import FEATURES, digits, make_model

BATCH, NUM_BATCHES = 50, 3
SCHEDULE = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=2, decay_rate=0.5)


def train(*callbacks: keras.callbacks.Callback, schedule: object = 0.1, epochs: int = 3):
    x, y = digits()
    model = make_model()
    model.compile(keras.optimizers.SGD(schedule), model.loss, jit_compile=False)
    x, y = x[: BATCH * NUM_BATCHES], y[: BATCH * NUM_BATCHES]
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return model


def test_the_rates_are_those_of_the_schedule_at_the_last_step_of_each_epoch():
    saver = ModelsSaver([0, 2])
    train(saver, schedule=SCHEDULE)
    expected = [float(SCHEDULE(NUM_BATCHES - 1)), float(SCHEDULE(3 * NUM_BATCHES - 1))]
    np.testing.assert_allclose(saver.learning_rates, expected, rtol=1e-6)


def test_the_rates_are_those_of_the_schedule_at_each_kept_step():
    saver = ModelsSaver(steps_to_save=[1, 4, 5])
    train(saver, schedule=SCHEDULE)
    expected = [float(SCHEDULE(step - 1)) for step in (1, 4, 5)]
    np.testing.assert_allclose(saver.learning_rates, expected, rtol=1e-6)
    assert len(saver.models) == 3


@pytest.mark.parametrize("saver_is_first", [True, False])
def test_a_rate_that_a_callback_sets_is_seen_whatever_the_order(saver_is_first):
    saver = ModelsSaver([0, 1])
    other = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    train(*((saver, other) if saver_is_first else (other, saver)))
    np.testing.assert_allclose(saver.learning_rates, [0.1, 0.05], rtol=1e-6)


def test_a_rate_that_is_lowered_at_the_end_of_an_epoch_is_that_of_the_next():
    saver = ModelsSaver([0, 1])
    lower = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(lower.model.optimizer, "learning_rate", 0.01)
    )
    train(lower, saver)
    np.testing.assert_allclose(saver.learning_rates, [0.1, 0.01], rtol=1e-6)


def test_the_models_have_the_weights_of_their_time_and_stay_so():
    seen = []
    saver = ModelsSaver([0, 1])
    spy = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(spy.model.get_weights())
    )
    model = train(spy, saver)
    for kept, weights in zip(saver.models, seen, strict=False):
        for one, other in zip(kept.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(saver.models[1].get_weights()[0], model.get_weights()[0])
    assert saver.models[0].loss is model.loss


def test_the_files_give_the_same_tracin_as_the_models(tmp_path):
    saver = ModelsSaver([0, 2], saving_path=tmp_path)
    model = train(saver, schedule=SCHEDULE)
    x, y = digits()
    dataset = tf.data.Dataset.from_tensor_slices((x[:30], y[:30])).batch(8)
    live = TracIn([InfluenceModel(kept) for kept in saver.models], saver.learning_rates)
    stored = TracIn.from_folder(InfluenceModel(model), tmp_path)
    scores = live.score(dataset, verbose=0).values
    np.testing.assert_allclose(stored.score(dataset, verbose=0).values, scores, rtol=1e-4)
    assert (scores > 0).all()


def test_a_model_with_two_losses_keeps_their_weights():
    inputs = keras.Input((FEATURES,))
    outputs = [keras.layers.Dense(10, name="a")(inputs), keras.layers.Dense(1, name="b")(inputs)]
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", [loss, "mse"], loss_weights=[1.0, 3.0], jit_compile=False)
    x, y = digits()
    saver = ModelsSaver([0])
    model.fit(x, [y, y], verbose=0, callbacks=[saver])
    assert list(saver.models[0].get_compile_config()["loss_weights"]) == [1.0, 3.0]


@pytest.mark.parametrize("settings", [{}, {"epochs_to_save": [0], "steps_to_save": [1]}])
def test_epochs_and_steps_exclude_each_other(settings):
    with pytest.raises(ValueError, match="`epochs_to_save` or `steps_to_save` must be given"):
        ModelsSaver(**settings)


@pytest.mark.parametrize("name", ["epochs_to_save", "steps_to_save"])
def test_a_single_number_is_refused_with_the_remedy(name):
    with pytest.raises(TypeError, match=rf"`{name}`.*Received: 3. .*in brackets"):
        ModelsSaver(**{name: 3})


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(10)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.dense(x)


def test_a_model_that_has_no_copy_is_refused_before_its_first_step():
    model = Subclassed()
    model.compile("sgd", "mse", jit_compile=False)
    with pytest.raises(UnsupportedModelError, match="Subclassed.*CheckpointRecorder"):
        model.fit(np.ones((4, 2)), np.ones((4, 10)), verbose=0, callbacks=[ModelsSaver([0])])
    assert int(model.optimizer.iterations) == 0


def test_the_copies_draw_nothing_from_the_generator_of_python():
    saver = ModelsSaver([0])
    saver.set_model(make_model())
    random.seed(0)
    expected = random.getstate()
    saver.on_train_begin()
    saver.on_epoch_begin(0)
    saver.on_train_batch_begin(0)
    saver.on_epoch_end(0)
    assert len(saver.models) == 1
    assert random.getstate() == expected
