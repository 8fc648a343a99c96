"""What the seed of a projection decides: drawn once, held, and loaded under traced functions."""

from __future__ import annotations

from copy import copy

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.gradients.projections import (
    GaussianProjection,
    RademacherProjection,
    dense,
)
from deel_influence.gradients.projections.loaded import LoadedProjection
from deel_influence.utils.kernels import Kernel
from tests.gradients.projection_kinds import (
    KINDS,
    batch,
    in_slices,
    matrix_of,
    prepared,
    two_layers,
)
from tests.oracles import assert_close

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("is_held", [True, False], ids=["held", "drawn"])
@pytest.mark.parametrize("make", [GaussianProjection, RademacherProjection])
def test_a_matrix_in_slices_is_the_one_that_is_whole(make, is_held, monkeypatch):
    monkeypatch.setattr(dense, "DRAWN_ENTRIES", 50)
    whole = matrix_of(make(two_layers(), 20, seed=4))
    assert len(np.unique(whole, axis=1).T) == 42  # no slice comes twice
    sliced = in_slices(make(two_layers(), 20, seed=4), is_held, monkeypatch)
    assert_close(matrix_of(sliced), whole, 1e-14)
    assert_close(sliced.adjoint(tf.eye(20, dtype=tf.float64)), whole, 1e-14)


@pytest.mark.parametrize("make", [GaussianProjection, RademacherProjection])
def test_memory_decides_no_digit_of_a_feature(make, monkeypatch):
    keras.config.set_dtype_policy("float32")
    monkeypatch.setattr(dense, "DRAWN_ENTRIES", 60)
    vectors = tf.random.stateless_normal((9, 42), (0, 1))
    features = [
        Kernel(in_slices(make(two_layers(), 20, seed=4), is_held, monkeypatch).apply)(vectors)
        for is_held in (True, False)
    ]
    assert features[0].dtype == tf.float32
    np.testing.assert_array_equal(*features)


def test_slices_that_are_held_are_drawn_once(monkeypatch):
    monkeypatch.setattr(dense, "DRAWN_ENTRIES", 50)
    count, draw = [], GaussianProjection._draw
    monkeypatch.setattr(GaussianProjection, "_draw", lambda *a: count.append(1) or draw(*a))
    projection = in_slices(GaussianProjection(two_layers(), 20), True, monkeypatch)
    kernel = Kernel(projection.apply)
    for rows in (3, 5):
        kernel(tf.ones((rows, 42), tf.float64))
    # Two columns of P in a slice; the variables have 25, 5, 10 and 2.
    assert len(count) == 13 + 3 + 5 + 1


def test_random_signs_are_the_bits_of_the_words_that_are_drawn():
    projection = RademacherProjection(two_layers(), 37, seed=11)
    expected = []
    for part, size in enumerate(projection.layout.sizes):
        seed = tf.constant([11, part * 2**32], tf.int64)
        shape = (size, 2)  # 37 bits take two words
        words = tf.random.stateless_uniform(shape, seed, None, None, tf.int32, alg="philox")
        bits = words.numpy()[:, :, None] >> np.arange(32) & 1
        expected.append(1 - 2 * bits.reshape(size, 64)[:, :37])
    assert_close(matrix_of(projection), np.concatenate(expected).T / np.sqrt(37), 1e-15)


def test_a_large_matrix_is_held_within_a_share_of_the_free_memory(monkeypatch):
    # 42 · 20 entries of eight bytes, in float64.
    for free, is_held in ((6719, False), (6720, True)):
        monkeypatch.setattr(dense, "bytes_to_hold", lambda free=free: free)
        assert GaussianProjection(two_layers(), 20).is_held == is_held


@KINDS
def test_another_seed_is_loaded_under_functions_that_were_traced(make):
    model = two_layers()
    engine = prepared(model)
    loaded = LoadedProjection(make(model, seed=5), model)
    loaded.load(5)
    kernel = Kernel(lambda batch: loaded.current.project(engine.gradients(batch)))
    for seed in (5, 2**32 - 1, 0, 5):
        loaded.load(seed)
        expected = make(model, seed=seed).project(engine.gradients(batch()))
        assert_close(kernel(batch()), expected, 1e-13)
    assert kernel.num_traces == 1
    assert loaded.trace is None


@pytest.mark.parametrize("is_held", [True, False], ids=["held", "drawn"])
def test_another_seed_is_loaded_into_the_slices_of_a_large_matrix(is_held, monkeypatch):
    monkeypatch.setattr(dense, "DRAWN_ENTRIES", 50)
    model = two_layers()
    loaded = LoadedProjection(
        in_slices(RademacherProjection(model, 20), is_held, monkeypatch), model
    )
    loaded.load(0)
    held, kernel = loaded.current.tensors, Kernel(lambda rows: loaded.current.apply(rows))
    for seed in (0, 3):
        loaded.load(seed)
        assert_close(
            kernel(np.eye(42)).numpy().T, matrix_of(RademacherProjection(model, 20, seed)), 1e-15
        )
    # The memory of one projection, whatever the number of seeds.
    assert all(a is b for a, b in zip(loaded.current.tensors, held, strict=True))
    assert sum(np.prod(variable.shape) for variable in held) == (42 * 20 if is_held else 1)


def test_the_projection_that_is_given_keeps_its_seed():
    model = two_layers()
    given = GaussianProjection(model, 7, seed=5)
    before = matrix_of(given)
    loaded = LoadedProjection(given, model)
    for seed in (5, 6):
        loaded.load(seed)
    assert given.seed == 5
    assert_close(matrix_of(given), before, 0.0)


@KINDS
def test_a_copy_holds_settings_and_no_random_numbers(make):
    projection = make(two_layers(), seed=3)
    expected = matrix_of(projection)
    twin = copy(projection)
    assert "tensors" not in vars(twin)
    assert_close(matrix_of(twin), expected, 1e-15)
