"""Hessians cut into rows and examples, against the whole, and the memory that they take."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.curvature import dense, dense_curvature, hessian_rows
from deel_influence.curvature.dense import check_dense_memory
from deel_influence.errors import BatchError, CurvatureSizeError
from deel_influence.gradients import GradientEngine
from deel_influence.ihvp import ExactIHVP
from deel_influence.influence import NewtonStepInfluenceCalculator
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from tests.oracles import assert_close, mean_hessian

layers = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
N = 7


def convolution() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(2, 3, activation="tanh"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def recurrent() -> keras.Model:
    return keras.Sequential([keras.Input((3, 2)), layers.GRU(2), layers.Dense(2)])


def attention() -> keras.Model:
    tokens = keras.Input((5,), dtype="int32")
    embedded = layers.Embedding(7, 4)(tokens)
    mixed = layers.MultiHeadAttention(2, 2)(embedded, embedded)
    pooled = layers.GlobalAveragePooling1D()(mixed + embedded)
    return keras.Model(tokens, layers.Dense(3)(pooled))


MODELS = {"convolution": convolution, "recurrent": recurrent, "attention": attention}


def problem(name: str) -> tuple[BaseInfluenceModel, np.ndarray, np.ndarray]:
    network = MODELS[name]()
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N, *network.input_shape[1:]))
    if name == "attention":
        x = generator.integers(0, 7, x.shape)
    return BaseInfluenceModel(network, loss_function=LOSS), x, generator.integers(0, 2, N)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", MODELS)
def test_a_hessian_is_the_same_however_it_is_cut(name, monkeypatch):
    model, x, y = problem(name)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    expected = mean_hessian(model, x, y)
    single = hessian_rows.gradient_bytes(model, next(iter(dataset)))
    cuts = []
    # One example and one row; three examples; all four and some rows; all rows that may be.
    for room in (1, 3 * 3 * single, (1 + 2 * 5) * 4 * single, 2**30):
        monkeypatch.setattr(hessian_rows, "WORKING_BYTES", room)
        cuts.append(hessian_rows.row_chunks(model, next(iter(dataset))))
        assert_close(dense_curvature(model, dataset, verbose=0).matrix, expected, 1e-9)
    assert [cut.examples for cut in cuts] == [1, 3, 4, 4]
    assert [cut.rows for cut in cuts] == [1, 1, 5, 32]
    kernel = GradientEngine.of(model).kernel("hessian_rows", hessian_rows.rows_function(model))
    assert kernel.num_traces == 1


def test_little_free_memory_takes_few_rows(monkeypatch):
    model, x, y = problem("convolution")
    batch = (tf.constant(x), tf.constant(y))
    single = hessian_rows.gradient_bytes(model, batch)
    monkeypatch.setattr(hessian_rows, "available_bytes", lambda: 4 * (1 + 2 * 3) * N * single)
    assert hessian_rows.row_chunks(model, batch) == hessian_rows.RowChunks(3, N)


def test_the_memory_of_an_example_grows_with_its_activations_and_not_with_the_weights():
    def bytes_of(size: int, units: int) -> int:
        image = keras.Input((size, size, 1))
        maps = layers.Conv2D(4, 1, activation="tanh")(image)
        pooled = layers.GlobalAveragePooling2D()(maps)
        network = keras.Model(image, layers.Dense(2)(layers.Dense(units)(pooled)))
        model = InfluenceModel(network, start_layer=1, loss_function=LOSS)
        batch = (tf.zeros((3, size, size, 1)), tf.zeros(3, tf.int64))
        return hessian_rows.gradient_bytes(model, batch)

    small = bytes_of(16, 4)
    # At the least, the outputs of convolution and tanh, and gradients in both, in float32.
    assert small >= 4 * 4 * 16 * 16 * 4
    assert bytes_of(32, 4) / small == pytest.approx(4, rel=0.1)
    assert bytes_of(16, 400) / small == pytest.approx(1, rel=0.2)


def test_a_bad_batch_is_named_by_its_examples():
    model, x, y = problem("convolution")
    y[5] = 9
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    with pytest.raises(BatchError, match=r"Batch 1 .*examples 4 to 6"):
        dense_curvature(model, dataset, verbose=0)


def last_layer() -> tuple[InfluenceModel, tf.data.Dataset]:
    network = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    dataset = tf.data.Dataset.from_tensor_slices((np.zeros((6, 4)), np.zeros(6, int))).batch(3)
    return InfluenceModel(network, loss_function=LOSS), dataset


@pytest.mark.parametrize(
    ("make", "remedy"),
    [(ExactIHVP, "'ekfac' or 'cgd'"), (NewtonStepInfluenceCalculator, "FirstOrderInfluence")],
)
def test_what_does_not_fit_is_refused_before_it_is_computed(make, remedy, monkeypatch):
    model, dataset = last_layer()
    monkeypatch.setattr(dense, "available_bytes", lambda: 1000)
    message = rf"15 parameters needs about 8.8 KiB .*1000.0 B are free.*start_layer.*{remedy}"
    with pytest.raises(CurvatureSizeError, match=message):
        make(model, dataset)


def test_the_working_memory_of_one_example_counts_too(monkeypatch):
    model, x, y = problem("convolution")
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    matrices = 5 * 8 * model.nb_params**2
    single = hessian_rows.smallest_bytes(model, next(iter(dataset)))
    free = [matrices + single, matrices + single - 1]
    monkeypatch.setattr(dense, "available_bytes", lambda: free.pop(0))
    check_dense_memory(model, dataset)
    with pytest.raises(CurvatureSizeError):
        check_dense_memory(model, dataset)


MEASURED = """
import resource
import keras, numpy as np, tensorflow as tf
from deel_influence.curvature import dense_curvature
from deel_influence.model import BaseInfluenceModel

layers, size = keras.layers, 96
network = keras.Sequential([
    keras.Input((size, size, 2)), layers.Conv2D({filters}, 1, activation="tanh"),
    layers.GlobalAveragePooling2D(), layers.Dense(2),
])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model = BaseInfluenceModel(network, network.layers[0].trainable_variables, loss)
x = np.random.default_rng(0).normal(size=(2, size, size, 2)).astype("float32")
data = tf.data.Dataset.from_tensor_slices((x, np.zeros(2, int))).batch(2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dense_curvature(model, data, verbose=0)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_a_convolution_on_a_large_image_takes_a_bounded_amount_of_memory():
    """All 96 rows side by side would hold 96 × 2 images of 96 × 96 × 32 numbers several times."""
    script = textwrap.dedent(MEASURED.format(filters=32))
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    at_once = 96 * 2 * 96 * 96 * 32 * 4 / 2**30
    assert at_once > 0.2
    # What rows side by side may take, and as much again for what TensorFlow keeps for later.
    assert float(result.stdout.split()[-1]) < 2 * hessian_rows.WORKING_BYTES / 2**30
