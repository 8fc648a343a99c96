"""Random numbers by example: the same in every batch, and as independent as random ones.

All seeds are fixed, so that a test passes always or never. Bounds are five standard deviations of
what independent numbers give: of some 60 figures none comes near them by chance.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.curvature.draws import Draws

B, T, C = 200, 40, 25
DEVIATIONS = 5.0
SEEDS = (0, 1, 2**31 - 1)


def uniforms(seed: int = 0, ids: np.ndarray | None = None) -> np.ndarray:
    """Return numbers ``(B, T, C)``, more of them in more batches."""
    ids = np.arange(B) if ids is None else ids
    positions = tf.broadcast_to(tf.range(T), (len(ids), T))
    return Draws(seed, tf.constant(ids, tf.int64)).uniforms(positions, C).numpy()


def splitmix64(start: int, count: int) -> list[int]:
    """Return the outputs of the generator in the words of its paper, with Python's integers."""
    mask, state, words = 2**64 - 1, start, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        words.append(z ^ (z >> 31))
    return words


def assert_normal(statistic: float, deviation: float, what: object) -> None:
    assert abs(statistic) < DEVIATIONS * deviation, (what, statistic, deviation)


def test_the_generator_is_splitmix64_applied_level_by_level():
    ids, positions = [0, 5, 2**40], [0, 3]
    found = Draws(3, tf.constant(ids, tf.int64)).uniforms(tf.constant([positions] * 3), 4).numpy()
    root = splitmix64(0, 4)[3]
    for i, j in itertools.product(range(2), range(2)):
        place = splitmix64(splitmix64(root, ids[i] + 1)[-1], positions[j] + 1)[-1]
        words = [(word >> 12) + 0.5 for word in splitmix64(place, 4)]
        np.testing.assert_array_equal(found[i, j], np.array(words) / 2**52)


def test_known_outputs_of_splitmix64():
    """The first outputs for a start of 1234567, as its reference implementation prints them."""
    assert splitmix64(1234567, 3) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_a_number_depends_on_its_place_alone():
    whole = uniforms()
    order = np.random.default_rng(0).permutation(B)
    np.testing.assert_array_equal(uniforms(ids=order), whole[order])
    np.testing.assert_array_equal(uniforms(ids=np.array([17])), whole[17:18])
    draws = Draws(0, tf.range(B, dtype=tf.int64))
    fewer = draws.uniforms(tf.broadcast_to(tf.range(3), (B, 3)), 2).numpy()
    np.testing.assert_array_equal(fewer, whole[:, :3, :2])
    np.testing.assert_array_equal(draws.uniforms(tf.zeros(B, tf.int32), C).numpy(), whole[:, 0])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_functions_give_the_same_numbers(jit_compile):
    @tf.function(jit_compile=jit_compile)
    def compiled(seed: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        return Draws(seed, ids).uniforms(tf.broadcast_to(tf.range(T), (B, T)), C)

    found = compiled(tf.constant(0, tf.int64), tf.range(B, dtype=tf.int64))
    np.testing.assert_array_equal(found.numpy(), uniforms())


@pytest.mark.parametrize("seed", SEEDS)
def test_numbers_are_uniform(seed):
    values = uniforms(seed).ravel()
    assert values.min() > 0
    assert values.max() < 1
    assert_normal(values.mean() - 0.5, np.sqrt(1 / 12 / values.size), "mean")
    assert_normal(values.var() - 1 / 12, np.sqrt(1 / 180 / values.size), "variance")
    for bins in (10, 256):
        counts = np.bincount((values * bins).astype(int), minlength=bins)
        expected = values.size / bins
        chi_square = np.sum((counts - expected) ** 2 / expected)
        assert_normal(chi_square - (bins - 1), np.sqrt(2 * (bins - 1)), f"{bins} bins")


@pytest.mark.parametrize("seed", SEEDS)
def test_every_bit_is_set_half_of_the_time(seed):
    words = (uniforms(seed).ravel() * 2**52).astype(np.int64)
    shares = [np.mean((words >> bit) & 1) for bit in range(52)]
    for bit, share in enumerate(shares):
        assert_normal(share - 0.5, 0.5 / np.sqrt(words.size), f"bit {bit}")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("lag", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1)])
def test_neighbours_are_uncorrelated(seed, lag):
    values = uniforms(seed) - 0.5
    shifted = values[lag[0] :, lag[1] :, lag[2] :]
    first = values[: B - lag[0], : T - lag[1], : C - lag[2]]
    # Of the numbers, and of how far they are from the middle.
    for transform in (lambda v: v, lambda v: v**2 - 1 / 12):
        one, other = transform(first), transform(shifted)
        scale = np.sqrt(np.mean(one**2) * np.mean(other**2))
        assert_normal(np.mean(one * other) / scale, 1 / np.sqrt(one.size), lag)


def test_neighbouring_seeds_are_uncorrelated():
    for seed in SEEDS[:2]:
        one, other = (uniforms(s) - 0.5 for s in (seed, seed + 1))
        assert_normal(12 * np.mean(one * other), 1 / np.sqrt(one.size), seed)


def test_pairs_of_neighbours_fill_the_square_evenly():
    values = uniforms()
    pairs = [(values[1:], values[:-1]), (values[:, 1:], values[:, :-1])]
    for one, other in [*pairs, (values[..., 1:], values[..., :-1])]:
        cells = (one * 8).astype(int) * 8 + (other * 8).astype(int)
        counts = np.bincount(cells.ravel(), minlength=64)
        expected = one.size / 64
        # Pairs overlap, which widens the statistic a little: by less than the square root of 2.
        chi_square = np.sum((counts - expected) ** 2 / expected)
        assert_normal(chi_square - 63, np.sqrt(2) * np.sqrt(2 * 63), "pairs")


def test_normal_numbers_have_the_moments_of_the_normal_distribution():
    positions = tf.broadcast_to(tf.range(T), (B, T))
    values = Draws(0, tf.range(B, dtype=tf.int64)).normals(positions, C).numpy().ravel()
    # Means and variances of the powers of a standard normal number.
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        error = np.mean(values**power) - mean
        assert_normal(error, np.sqrt(variance / values.size), f"power {power}")


def test_correlated_numbers_would_be_found(monkeypatch):
    """A negative control: a hash without its last rounds."""
    monkeypatch.setattr("deel_influence.curvature.draws._ROUNDS", ())
    with pytest.raises(AssertionError):
        test_neighbours_are_uncorrelated(0, (0, 0, 1))
