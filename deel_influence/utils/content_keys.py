"""Keys by which an example is known again, whatever the order and the batches it comes in.

All arithmetic is on integers, modulo 2⁶⁴, so that a key is the same number wherever it is computed:
inside a training step that XLA has fused, on an accelerator, or eagerly on the processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import UnsupportedModelError

GOLDEN, FIRST, SECOND = (
    int(np.uint64(number).astype(np.int64))
    for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
"""The odd factors of the SplitMix64 generator (Steele, Lea and Flood, 2014)."""

EXACT_IN_FLOAT = 2**24
"""Whole numbers below it are themselves in float32."""

STRIDE = 1 << 40
"""How far the positions of two tensors lie apart, beyond the size of either."""


def content_keys(inputs: Any, targets: Any) -> tf.Tensor:
    """Return a key for each example that depends on its content alone, int64, shape ``(b,)``.

    ``key = Σ_j a_j mix(w_j)``, with w_j the bits of two numbers of the example in float32, `mix`
    nonlinear, and a_j odd numbers, pseudo-random but always the same. Two different examples have
    the same key with a probability of about 2⁻⁵⁰. Casts that keep the values, such as from uint8 to
    float32, leave a key as it is, and so does padding with zeros at the end of the first axis.

    Parameters
    ----------
    inputs, targets
        Nests of dense tensors, the examples first.

    Raises
    ------
    UnsupportedModelError
        If there are no inputs, or they are sparse or ragged.
    """
    if all(part is None for part in tf.nest.flatten(inputs)):
        message = (
            "An example is known again by its inputs, which `compute_loss` has to receive. "
            "Received: x=None. In a `train_step` of your own call self.compute_loss(x=x, y=y, "
            "y_pred=y_pred), or pass `id_fn=`."
        )
        raise UnsupportedModelError(message)
    keys: Any = 0
    for index, part in enumerate(tf.nest.flatten((inputs, targets))):
        if part is not None:
            keys += _part_keys(part, 2 * index * STRIDE)
    return keys


def _part_keys(part: Any, start: int) -> tf.Tensor:
    """Return what one tensor, its positions counted from ``start``, adds to the keys, ``(b,)``."""
    if isinstance(part, (tf.RaggedTensor, tf.SparseTensor)):
        message = (
            "Keys need dense tensors. Received: "
            f"{type(part).__name__}. Pad the data, or pass `id_fn=`."
        )
        raise UnsupportedModelError(message)
    values = tf.convert_to_tensor(part)
    values = tf.reshape(values, (tf.shape(values)[0], -1))
    if values.dtype == tf.string:
        return _weighted_sum(tf.strings.to_hash_bucket_fast(values, 2**63 - 1), start)
    keys = _weighted_sum(_pairs(tf.cast(values, tf.float32)), start)
    if values.dtype.is_integer and values.dtype.size > 2:
        whole = tf.cast(values, tf.int64)
        lost = tf.where(tf.abs(whole) < EXACT_IN_FLOAT, tf.zeros_like(whole), whole)
        keys += _weighted_sum(lost, start + STRIDE)
    return keys


def _pairs(numbers: tf.Tensor) -> tf.Tensor:
    """Return the bits of two numbers after the other as one, int64, shape ``(b, ⌈d / 2⌉)``."""
    d = tf.shape(numbers)[1]
    even = tf.pad(numbers, ((0, 0), (0, d % 2)))
    return tf.bitcast(tf.reshape(even, (tf.shape(numbers)[0], (d + 1) // 2, 2)), tf.int64)


def _weighted_sum(words: tf.Tensor, start: int) -> tf.Tensor:
    """Return ``Σ_j a_j mix(w_j)`` of words ``(b, k)``, shape ``(b,)``; words of 0 add nothing."""
    product = words * FIRST
    # The high bits of a product know all of the word. The low ones may all be 0: small whole
    # numbers use the upper bits of a float32 only.
    mixed = tf.bitwise.bitwise_xor(product, tf.bitwise.right_shift(product, 44))
    positions = tf.range(tf.shape(words, tf.int64)[1], dtype=tf.int64)
    return tf.reduce_sum(mixed * _factors(positions + start), axis=1)


def _factors(positions: tf.Tensor) -> tf.Tensor:
    """Return an odd pseudo-random number for each position, by the finaliser of SplitMix64."""
    state = (positions + 1) * GOLDEN
    state = tf.bitwise.bitwise_xor(state, _shifted(state, 30)) * FIRST
    state = tf.bitwise.bitwise_xor(state, _shifted(state, 27)) * SECOND
    state = tf.bitwise.bitwise_xor(state, _shifted(state, 31))
    return tf.bitwise.bitwise_or(state, 1)


def _shifted(numbers: tf.Tensor, bits: int) -> tf.Tensor:
    """Shift to the right, filling up with zeros."""
    return tf.bitwise.bitwise_and(tf.bitwise.right_shift(numbers, bits), (1 << (64 - bits)) - 1)
