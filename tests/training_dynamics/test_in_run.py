"""Values of training steps against explicit gradients of single examples, one after another."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import NonFiniteError, UnsupportedModelError
from deel_influence.model import BaseInfluenceModel
from deel_influence.training_dynamics import (
    AreaUnderMargin,
    InRunRecorder,
    InRunShapley,
    RecordedDynamics,
    TrainingDynamics,
)
from tests.oracles import assert_close
from tests.training_dynamics.runs import BATCH, CLASSES, SPARSE, N, data, weights_of
from tests.training_dynamics.runs import fit as fit_arrays

layers = keras.layers
EPOCHS = 2


def network(optimizer: object = None, l2: float = 0.1, **options: object) -> keras.Model:
    """Return a compiled network with a regulariser, the same at each call."""
    keras.utils.set_random_seed(0)
    regularizer = keras.regularizers.L2(l2) if l2 else None
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, "tanh", kernel_regularizer=regularizer),
            layers.Dense(CLASSES),
        ]
    )
    rates = keras.optimizers.schedules.ExponentialDecay(0.3, 2, 0.8)
    sgd = keras.optimizers.SGD(rates, momentum=0.5, weight_decay=0.05)
    model.compile(optimizer or sgd, SPARSE(from_logits=True), **options)
    return model


def queries(m: int = 5) -> tuple[np.ndarray, np.ndarray]:
    x, y = data(m + N)
    return x[N:], y[N:]


def orders() -> Iterator[np.ndarray]:
    """Yield the positions of the examples of each batch, each epoch in an order of its own."""
    for epoch in range(EPOCHS):
        order = np.random.default_rng(epoch).permutation(N)
        yield from np.split(order, range(BATCH, N, BATCH))


def weighted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return *data(), np.linspace(0.5, 2.0, N)


def shuffled() -> tf.data.Dataset:
    """Return the batches of all epochs, one after another, with a partial last one in each."""
    x, y, w = weighted()
    positions = tf.ragged.constant([list(order) for order in orders()], dtype=tf.int64)
    batches = tf.data.Dataset.from_tensor_slices(positions)
    return batches.map(lambda rows: tuple(tf.gather(tf.constant(a), rows) for a in (x, y, w)))


def fit(model: keras.Model, *callbacks: keras.callbacks.Callback) -> keras.Model:
    steps = -(-N // BATCH)
    model.fit(
        shuffled(),
        epochs=EPOCHS,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )
    return model


def gradient(model: keras.Model, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the gradient of the mean loss of some examples, flat."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(SPARSE(from_logits=True, reduction="none")(y, model(x)))
    found = tape.gradient(loss, [v.value for v in model.trainable_variables])
    return np.concatenate([np.ravel(tf.convert_to_tensor(part)) for part in found])


def explicit_values(model: keras.Model) -> np.ndarray:
    """Return the values ``(n, m)`` of a fit, one example and one step after another."""
    (x, y, w), (qx, qy) = weighted(), queries()
    values = np.zeros((N, len(qy)))
    for step, rows in enumerate(orders()):
        rate = float(model.optimizer.learning_rate)
        assert rate == pytest.approx(0.3 * 0.8 ** (step / 2))
        asked = np.stack([gradient(model, qx[[j]], qy[[j]]) for j in range(len(qy))])
        for i in rows:
            values[i] += rate * w[i] / len(rows) * asked @ gradient(model, x[[i]], y[[i]])
        model.train_on_batch(x[rows], y[rows], sample_weight=w[rows])
    return values


@pytest.mark.usefixtures("float64")
def test_values_are_those_of_explicit_gradients_step_by_step(tmp_path):
    model, expected = network(), explicit_values(network())
    kept = tmp_path / "run"
    recorder = InRunRecorder(
        BaseInfluenceModel(model), queries(), each_query=True, refresh=1, path=kept
    )
    recorded = weights_of(fit(model, recorder))
    np.testing.assert_array_equal(recorded, weights_of(fit(network())))
    calculator = InRunShapley(BaseInfluenceModel(model), RecordedDynamics.load(kept))
    block = calculator.influence_block(data(), verbose=0)
    # Both are float64: what is left is the order of sums.
    assert_close(block.values, expected.T, 1e-9)
    assert block.query_ids.tolist() == list(range(5))
    scores = calculator.score(data(), verbose=0)
    assert_close(scores.values, expected.mean(axis=1), 1e-9)
    assert scores.ids.tolist() == list(range(N))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("m", [5, 300], ids=["factors", "rows"])
def test_the_mean_of_queries_is_one_direction(m):
    found = []
    for each_query in (False, True):
        model = network(run_eagerly=True)
        wrapped = BaseInfluenceModel(model)
        recorder = InRunRecorder(wrapped, queries(m), each_query, by_epoch=True, epochs=[1])
        fit(model, recorder)
        assert recorder.recorded.epochs.tolist() == [1]
        found.append(InRunShapley(wrapped, recorder).score(data(), verbose=0).values)
    assert_close(*found, 1e-9)


def mixed_layers() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype="int32")
    masked = layers.BatchNormalization()(layers.Embedding(11, 5, mask_zero=True)(inputs))
    masked = layers.GlobalAveragePooling1D()(layers.Dense(7, "tanh")(masked))
    x = layers.Conv1D(4, 3, 2, activation="relu")(layers.Embedding(11, 5)(inputs))
    x = layers.LayerNormalization()(layers.BatchNormalization()(x))
    x = layers.Dropout(0.3, seed=1)(layers.Conv1D(4, 2, groups=2, padding="causal")(x))
    outputs = layers.Dense(CLASSES)(layers.Concatenate()([layers.Flatten()(x), masked]))
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.25), SPARSE(from_logits=True))
    return model


@pytest.mark.usefixtures("float64")
def test_the_values_of_a_step_add_up_to_its_gradient_on_the_queries():
    # In training mode: the statistics of the batch, masks and dropout are those of the step.
    generator = np.random.default_rng(1)
    x, y = generator.integers(0, 11, (N, 6)), generator.integers(0, CLASSES, N)
    model = mixed_layers()
    before = [v.numpy() for v in model.trainable_variables]
    asked = gradient(model, x[:4], y[:4])
    recorder = InRunRecorder(BaseInfluenceModel(model), (x[:4], y[:4]), refresh=1)
    model.fit(x, y, batch_size=N, verbose=0, callbacks=[recorder])
    pairs = zip(before, model.trainable_variables, strict=True)
    moved = np.concatenate([np.ravel(b - v.numpy()) for b, v in pairs])
    assert_close(recorder.recorded.values.sum(), moved @ asked, 1e-9)


@pytest.mark.usefixtures("float64")
def test_the_values_of_small_steps_add_up_to_the_fall_of_the_loss():
    model = network(keras.optimizers.SGD(1e-4), l2=0.0)
    (x, y), (qx, qy) = data(), queries()
    recorder = InRunRecorder(BaseInfluenceModel(model), (qx, qy), refresh=1)
    start = model.evaluate(qx, qy, verbose=0)
    model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[recorder])
    fall = start - model.evaluate(qx, qy, verbose=0)
    # What is left is of second order, η ‖g‖ ‖H‖ of the first.
    assert_close(recorder.recorded.values.sum(), fall, 1e-3)


@pytest.mark.parametrize("options", [{"jit_compile": True}, {"steps_per_execution": 2}])
def test_stale_gradients_and_compiled_steps_leave_the_weights_alone(options):
    model = network(**options)
    recorder = InRunRecorder(BaseInfluenceModel(model), queries(), refresh=3)
    stop = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=10.0)
    plain = network(**options)
    for _ in range(2):  # a second fit goes on
        fit_arrays(model, recorder, stop, epochs=2, batch_size=6)
        fit_arrays(plain, stop, epochs=2, batch_size=6)
    np.testing.assert_array_equal(weights_of(model), weights_of(plain))
    assert recorder.recorded.next_epoch == 4
    assert recorder.recorded.values.shape == (1, N, 1)


def test_the_work_for_queries_is_about_a_tenth_of_the_training():
    model = network()
    recorder = InRunRecorder(BaseInfluenceModel(model), queries(8))
    calls, refresh = [], recorder._directions.refresh
    recorder._directions.refresh = lambda: calls.append(1) or refresh()
    model.fit(*data(), batch_size=4, epochs=7, verbose=0, callbacks=[recorder])
    # 42 steps of 4 examples; 8 queries every 20 steps: the first, the 21st, the 41st.
    assert len(calls) == 3


def test_an_empty_epoch_records_nothing():
    model = network()
    recorder = InRunRecorder(BaseInfluenceModel(model), queries())
    model.fit(*data(), epochs=1, initial_epoch=1, verbose=0, callbacks=[recorder])
    assert len(recorder.recorded) == 0
    with pytest.raises(ValueError, match="must hold at least one epoch"):
        InRunShapley(BaseInfluenceModel(model), recorder)


def test_a_loss_that_is_no_number_is_refused():
    model = network(keras.optimizers.SGD(1e30))
    recorder = InRunRecorder(BaseInfluenceModel(model), queries())
    with pytest.raises(NonFiniteError, match="within the last .* steps: the loss"):
        fit(model, recorder)


def test_what_cannot_be_divided_is_refused():
    model = network()
    wrapped = BaseInfluenceModel(model)
    with pytest.raises(ValueError, match="must wrap the model that is fitted"):
        fit(network(), InRunRecorder(wrapped, queries()))
    recorder = InRunRecorder(wrapped, queries())
    fit(model, recorder)
    with pytest.raises(ValueError, match="must go on where the record ends, after epoch 1"):
        model.fit(*data(), initial_epoch=1, epochs=2, verbose=0, callbacks=[recorder])
    with pytest.raises(ValueError, match="must have values for each query"):
        InRunShapley(wrapped, recorder).influence_block(data())
    with pytest.raises(UnsupportedModelError, match="one callback that records its steps"):
        fit(model, TrainingDynamics(), InRunRecorder(wrapped, queries()))
    with pytest.raises(ValueError, match="`name` 'margin' must have been recorded"):
        AreaUnderMargin(wrapped, recorder)
    model.compile(keras.optimizers.SGD(0.1, loss_scale_factor=8.0), SPARSE(from_logits=True))
    with pytest.raises(UnsupportedModelError, match="does not scale the loss"):
        fit(model, InRunRecorder(wrapped, queries()))
    recurrent = keras.Sequential([keras.Input((2, 2)), layers.SimpleRNN(3), layers.Dense(CLASSES)])
    recurrent.compile("sgd", SPARSE(from_logits=True))
    x, y = data()
    pairs = x.reshape(N, 2, 2), y
    with pytest.raises(UnsupportedModelError, match="simple_rnn.* differentiation serves"):
        recurrent.fit(
            *pairs, verbose=0, callbacks=[InRunRecorder(BaseInfluenceModel(recurrent), pairs)]
        )
