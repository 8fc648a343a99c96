"""Random numbers that belong to an example, whatever batch it comes in.

Each number is a hash of where it stands: the seed, the example, the position in its sequence, the
component. Other batches, another order, padding or a split of the data leave it as it is, and it is
the same on every device, eager or compiled. Numbers that differ in the component alone are the
consecutive outputs of a SplitMix64 generator [1]_ whose start is the hash of the rest, and so on
up to the seed.

References
----------
.. [1] G. L. Steele, D. Lea, C. H. Flood. Fast Splittable Pseudorandom Number Generators. OOPSLA
   2014.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

UNIFORM_BITS = 52
"""So many bits and a half fit in float64: the numbers are evenly spaced, and never 0 or 1."""


def _signed(word: int) -> int:
    """Return 64 bits as the int64 that has them: the type with kernels on every device."""
    return int(np.uint64(word).astype(np.int64))


_STEP = _signed(0x9E3779B97F4A7C15)
_ROUNDS = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)))


@dataclass(frozen=True)
class Draws:
    """The random numbers of some examples; traceable.

    Attributes
    ----------
    seed
        Tells these numbers from others of the same examples, int64, a scalar.
    ids
        Tell the examples from each other, int64, shape ``(b,)``.
    """

    seed: tf.Tensor | int
    ids: tf.Tensor

    def uniforms(self, positions: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
        """Return independent numbers between 0 and 1, float64, shape ``(b, ..., count)``.

        Parameters
        ----------
        positions
            The place of each number in the example, whole numbers, shape ``(b, ...)``.
        count
            How many numbers each position has.
        """
        seed = _hashed(tf.constant(0, tf.int64), tf.convert_to_tensor(self.seed, tf.int64))
        rank = positions.shape.rank
        examples = tf.reshape(tf.cast(self.ids, tf.int64), (-1, *[1] * (rank - 1)))
        keys = _hashed(_hashed(seed, examples), tf.cast(positions, tf.int64))
        words = _hashed(keys[..., None], tf.range(tf.cast(count, tf.int64)))
        leading = tf.cast(_shifted(words, 64 - UNIFORM_BITS), tf.float64)
        return (leading + 0.5) * 2.0**-UNIFORM_BITS

    def normals(self, positions: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
        """Return independent standard normal numbers, as `uniforms` does."""
        return tf.math.ndtri(self.uniforms(positions, count))


def _hashed(keys: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Return the outputs number ``indices`` of the generators that start at ``keys``, int64.

    Products and sums wrap around, as those of unsigned numbers do.
    """
    words = keys + _STEP * (indices + 1)
    for shift, factor in _ROUNDS:
        words = tf.bitwise.bitwise_xor(words, _shifted(words, shift)) * factor
    return tf.bitwise.bitwise_xor(words, _shifted(words, 31))


def _shifted(words: tf.Tensor, bits: int) -> tf.Tensor:
    """Shift to the right and fill with zeros, where int64 would repeat its sign."""
    shifted = tf.bitwise.right_shift(words, tf.constant(bits, tf.int64))
    return tf.bitwise.bitwise_and(shifted, tf.constant((1 << (64 - bits)) - 1, tf.int64))
