"""Runs are recorded, kept, cut off and gone on with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import (
    BatchError,
    DataSourceError,
    IgnoredTermWarning,
    NonFiniteError,
    UnsupportedModelError,
)
from deel_influence.unrolled import RecordedRun, load_run, record_fit, retrain, smoothness
from deel_influence.unrolled.order import BatchOrder
from deel_influence.unrolled.recorded_run import Checkpoints
from deel_influence.utils.intake import with_ids
from tests.unrolled.runs import BATCH, EPOCHS, RECIPES, N, arrays, compiled, plain

layers, optimizers = keras.layers, keras.optimizers
RECIPE = RECIPES["AdamW, clipped"]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SETTINGS = {"epochs": EPOCHS, "batch_size": BATCH, "verbose": 0}


class CutOffError(Exception):
    """What ends a training in these tests."""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[RecordedRun, Path]:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    data = with_ids(arrays(N, 0), [f"picture {i}" for i in range(N)])
    return record_fit(compiled(RECIPE), data, folder=folder, checkpoint_every=2, **SETTINGS), folder


def test_a_run_that_was_cut_off_goes_on_to_the_same_bytes(
    kept: tuple[RecordedRun, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = with_ids(arrays(N, 0), kept[0].ids)
    write = Checkpoints.write

    def written_or_cut_off(self: Checkpoints, step: int, state: list) -> None:
        if step == 6:
            raise CutOffError
        write(self, step, state)

    def record() -> None:
        record_fit(compiled(RECIPE), data, folder=tmp_path, checkpoint_every=2, **SETTINGS)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "write", written_or_cut_off)
        with pytest.raises(CutOffError):
            record()
    assert len(contents(tmp_path)) == 4
    with pytest.raises(DataSourceError, match=r"was cut off. Call record_fit as before"):
        load_run(tmp_path, compiled(RECIPE), data)
    record()
    assert contents(tmp_path) == contents(kept[1])


def test_a_run_is_loaded_whatever_the_weights_of_the_model_are(
    kept: tuple[RecordedRun, Path],
) -> None:
    run, folder = kept
    batches = tf.data.Dataset.from_tensor_slices(arrays(N, 0)).batch(3)
    found = load_run(folder, run.model.model, with_ids(batches, run.ids))
    assert found.ids.tolist() == run.ids.tolist()
    for mine, theirs in zip(found.final, run.final, strict=True):
        assert np.array_equal(mine, theirs)


def test_a_folder_of_other_data_weights_or_settings_is_refused(
    kept: tuple[RecordedRun, Path],
) -> None:
    run, folder = kept
    with pytest.raises(DataSourceError, match="it differs in data"):
        load_run(folder, run.model.model, arrays(N, 7))
    data, given = with_ids(arrays(N, 0), run.ids), {**SETTINGS, "checkpoint_every": 2}
    with pytest.raises(DataSourceError, match="it differs in initial weights"):
        record_fit(run.model.model, data, folder=folder, **given)
    with pytest.raises(DataSourceError, match="it differs in checkpoint_every, seed"):
        record_fit(run.model.model, data, folder=folder, seed=2, **SETTINGS)


def test_a_run_with_its_own_weights_is_the_run(kept: tuple[RecordedRun, Path]) -> None:
    run, _ = kept
    again = retrain(run, np.ones(N))
    for mine, theirs in zip(again.get_weights(), run.model.model.get_weights(), strict=True):
        assert np.array_equal(mine, theirs)
    without = retrain(run, np.arange(N) > 0)
    assert not np.array_equal(without.get_weights()[0], again.get_weights()[0])


def test_weights_and_steps_that_a_run_does_not_have_are_refused(
    kept: tuple[RecordedRun, Path],
) -> None:
    with pytest.raises(ValueError, match=r"`weights` must hold a finite number for each of 11"):
        retrain(kept[0], np.ones(3))
    with pytest.raises(ValueError, match=r"`from_step` must be below 9"):
        retrain(kept[0], np.ones(N), from_step=9)


def test_a_run_whose_weights_move_along_a_line_is_smooth_and_one_of_large_steps_is_not() -> None:
    x, y = arrays(40, 0)
    found = []
    for rate in (0.01, 8.0):
        keras.utils.set_random_seed(0)
        model = plain()
        model.compile(optimizers.SGD(rate, momentum=0.5), LOSS)
        run = record_fit(model, (x, y), epochs=4, batch_size=8, verbose=0)
        found.append(smoothness(run, fraction=0.2))
        assert run.smoothness == found[-1]
    assert found[0] > 0.95 > 0.9 > found[1]
    with pytest.raises(ValueError, match=r"`fraction` must choose some"):
        smoothness(run, fraction=0.0)


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [
        (lambda: optimizers.SGD(0.1, clipvalue=1.0), "clipvalue=1.0: cutting off"),
        (lambda: optimizers.Adam(amsgrad=True), "amsgrad=True"),
        (lambda: optimizers.Adam(use_ema=True), "use_ema=True"),
        (lambda: optimizers.Adam(loss_scale_factor=2.0), "loss_scale_factor"),
        (lambda: optimizers.RMSprop(), "the optimizer RMSprop: only these are known"),
    ],
)
def test_an_optimizer_without_a_derivative_is_refused(
    optimizer: Callable[[], keras.optimizers.Optimizer], reason: str
) -> None:
    model = plain()
    model.compile(optimizer(), LOSS)
    with pytest.raises(UnsupportedModelError, match=reason):
        record_fit(model, arrays(N, 0), epochs=1)


def test_a_number_under_the_root_of_adam_belongs_to_the_run(tmp_path: Path) -> None:
    def adam() -> keras.Model:
        keras.utils.set_random_seed(0)
        model = plain()
        model.compile(optimizers.Adam(0.1), LOSS)
        return model

    data, given = arrays(N, 0), {"epochs": 1, "batch_size": N, "verbose": 0}
    run = record_fit(adam(), data, eps_root=0.01, folder=tmp_path, **given)
    kept = load_run(tmp_path, adam(), data)
    assert all(map(np.array_equal, kept.final, run.final))
    with pytest.raises(DataSourceError, match="differs in eps_root, optimizer"):
        record_fit(adam(), data, folder=tmp_path, **given)
    for model, number in ((adam(), -1.0), (adam(), np.nan), (compiled(RECIPES["descent"]), 0.1)):
        with pytest.raises(ValueError, match="`eps_root` must be a finite number"):
            record_fit(model, data, eps_root=number, **given)


def test_an_optimizer_that_has_taken_steps_is_refused() -> None:
    model = plain()
    model.compile(optimizers.SGD(0.1), LOSS)
    model.fit(*arrays(N, 0), verbose=0)
    with pytest.raises(UnsupportedModelError, match="one that has taken 1 steps. Compile"):
        record_fit(model, arrays(N, 0), epochs=1)


def test_a_model_that_is_not_compiled_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"`model` must be a built and compiled"):
        record_fit(plain(), arrays(N, 0), epochs=1)


def test_a_loss_that_is_no_mean_is_refused() -> None:
    model = plain()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True, reduction="sum"))
    with pytest.raises(UnsupportedModelError, match=r"reductions \['sum'\]"):
        record_fit(model, arrays(N, 0), epochs=1)


class Noise(layers.Layer):
    """Draws from the generator that all of Keras has in common."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs + keras.random.normal(keras.ops.shape(inputs))


class Stopped(layers.Layer):
    """Holds its scale constant."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs / (1.0 + tf.stop_gradient(tf.abs(inputs)))


def model_with(layer: keras.layers.Layer) -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layer])
    model.compile("sgd", LOSS)
    return model


def test_draws_that_no_seed_repeats_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="must read no variables but its own"):
        record_fit(model_with(Noise()), arrays(N, 0), epochs=1)


def test_a_stopped_gradient_is_told_of() -> None:
    with pytest.warns(IgnoredTermWarning, match="a step that stops a gradient"):
        record_fit(model_with(Stopped()), arrays(N, 0), epochs=1, verbose=0)


def test_a_training_that_ends_in_nan_is_refused() -> None:
    model = model_with(layers.Activation("linear"))
    model.compile(keras.optimizers.SGD(1e30), "mse")
    x, y = arrays(N, 0)
    with pytest.raises(NonFiniteError, match="must end with finite weights"):
        record_fit(model, (x, np.eye(3)[y]), epochs=4, verbose=0)


def test_examples_that_the_model_does_not_take_are_named() -> None:
    x, y = arrays(N, 0)
    model, fifth = model_with(layers.Activation("linear")), np.arange(N) == 4
    bad = np.where(fifth[:, None], np.nan, x), y
    with pytest.raises(NonFiniteError, match="first for example 4"):
        record_fit(model, bad, epochs=1, verbose=0)
    with pytest.raises(BatchError, match=r"examples 4 to .* label value of -1"):
        record_fit(model, (x, np.where(fifth, -1, y)), epochs=1, batch_size=4, verbose=0)


def test_each_epoch_has_each_example_once_in_an_order_that_depends_on_seed_and_epoch_alone() -> (
    None
):
    order, longer = BatchOrder(10, 3, 4, seed=1), BatchOrder(10, 5, 4, seed=1)
    steps = order.steps_of_examples()
    for epoch in range(3):
        assert sorted(order.of_epoch(epoch)) == [*range(10)]
        assert np.array_equal(order.of_epoch(epoch), longer.of_epoch(epoch))
    for step in range(order.num_steps):
        assert np.array_equal(
            np.sort(order.of_step(step)), np.flatnonzero((steps == step).any(axis=1))
        )
    assert not np.array_equal(order.of_epoch(0), order.of_epoch(1))


def test_segments_cover_the_steps_between_checkpoints_backwards() -> None:
    assert [*BatchOrder(10, 3, 4, 0).segments(3, 4)] == [(8, 9), (4, 8), (3, 4)]
