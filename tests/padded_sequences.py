"""Sequences of several lengths, padded to one, and models that do not see the padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

layers = keras.layers
N, VOCABULARY, LONGEST = 8, 12, 5
LENGTHS = np.array([3, 5, 1, 4, 2, 5, 2, 3])


def indices() -> keras.KerasTensor:
    return keras.Input((None,), dtype="int32")


def embedded(inputs: keras.KerasTensor, mask_zero: bool = True) -> keras.KerasTensor:
    return layers.Embedding(VOCABULARY, 4, mask_zero=mask_zero)(inputs)


def classified(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Dense(2, name="head")(x)


def pooled(x: keras.KerasTensor) -> keras.KerasTensor:
    return classified(layers.GlobalAveragePooling1D()(x))


def dense() -> keras.Model:
    # Few rectified units, so that real positions have gradients of zero too.
    inputs = indices()
    return keras.Model(inputs, pooled(layers.Dense(2, "relu", name="first")(embedded(inputs))))


def masked_vectors() -> keras.Model:
    inputs = keras.Input((None, 3))
    return keras.Model(
        inputs, pooled(layers.Dense(2, "tanh", name="first")(layers.Masking()(inputs)))
    )


def lstm() -> keras.Model:
    inputs = indices()
    hidden = layers.Dense(3, "tanh", name="first")(embedded(inputs))
    return keras.Model(inputs, classified(layers.LSTM(2)(hidden)))


def gru_along_the_sequence() -> keras.Model:
    inputs = keras.Input((None, 3))
    hidden = layers.Dense(3, "tanh", name="first")(layers.Masking()(inputs))
    hidden = layers.GRU(2, return_sequences=True)(hidden)
    return keras.Model(inputs, pooled(layers.Dense(2, "tanh", name="second")(hidden)))


def attention() -> keras.Model:
    inputs = indices()
    hidden = embedded(inputs)
    attended = layers.MultiHeadAttention(2, 2)(hidden, hidden)
    hidden = layers.LayerNormalization()(layers.Add()([hidden, attended]))
    return keras.Model(inputs, pooled(layers.Dense(3, "relu", name="first")(hidden)))


def shared() -> keras.Model:
    inputs = indices()
    twice = layers.Dense(4, "tanh", name="first")
    return keras.Model(inputs, pooled(twice(twice(embedded(inputs)))))


def distributed() -> keras.Model:
    inputs = indices()
    first = layers.Dense(3, "tanh", name="first")
    return keras.Model(inputs, pooled(layers.TimeDistributed(first)(embedded(inputs))))


def convolution_with_an_explicit_mask() -> keras.Model:
    """No layer passes a mask on; the pooling is given one."""
    inputs = indices()
    mask = keras.ops.not_equal(inputs, 0)
    hidden = embedded(inputs, mask_zero=False) * keras.ops.cast(mask, "float64")[..., None]
    hidden = layers.Conv1D(2, 3, padding="same", activation="relu", name="first")(hidden)
    return keras.Model(inputs, classified(layers.GlobalAveragePooling1D()(hidden, mask=mask)))


def tokens() -> keras.Model:
    inputs = indices()
    return keras.Model(inputs, classified(layers.Dense(2, "relu", name="first")(embedded(inputs))))


def attending_tokens() -> keras.Model:
    inputs = indices()
    hidden = embedded(inputs)
    # Without a sum of the two: attention takes the mask off its input, and the sum loses it.
    hidden = layers.MultiHeadAttention(1, 3)(hidden, hidden)
    return keras.Model(inputs, classified(layers.Dense(3, "tanh", name="first")(hidden)))


def unmasked_tokens() -> keras.Model:
    inputs = indices()
    hidden = layers.Dense(2, "relu", name="first")(embedded(inputs, mask_zero=False))
    return keras.Model(inputs, classified(hidden))


@dataclass(frozen=True)
class SequenceCase:
    """A model of sequences.

    Attributes
    ----------
    build
        Makes the model.
    of_vectors
        Whether the inputs are vectors, not indices.
    of_tokens
        Whether each position has a label.
    weighted
        Whether weights of zero say where there is padding, and a weight each position counts.
    before
        Whether the padding comes before the sequence.
    """

    id: str
    build: Callable[[], keras.Model]
    of_vectors: bool = False
    of_tokens: bool = False
    weighted: bool = False
    before: bool = False

    def sequences(self) -> list[tuple[np.ndarray, ...]]:
        """Return inputs, labels and, where they count, weights of each example, unpadded."""
        generator = np.random.default_rng(4)
        examples = []
        for length in LENGTHS:
            x = generator.normal(size=(length, 3))
            if not self.of_vectors:
                x = generator.integers(1, VOCABULARY, length).astype("int32")
            y = generator.integers(0, 2, length if self.of_tokens else ()).astype("int32")
            weights = generator.uniform(0.5, 2.0, length)
            examples.append((x, y, weights) if self.weighted else (x, y))
        return examples

    def padded(self, length: int, rows: slice = slice(None)) -> tuple[np.ndarray, ...]:
        """Return the arrays of some examples, padded with zeros."""
        columns = zip(*self.sequences()[rows], strict=True)
        return tuple(np.stack([self._stretched(part, length) for part in c]) for c in columns)

    def dataset(self, length: int, batch_size: int = 3) -> tf.data.Dataset:
        """Return the examples, padded to one length, with a partial last batch."""
        return tf.data.Dataset.from_tensor_slices(self.padded(length)).batch(batch_size)

    def dataset_of_own_lengths(self, batch_size: int = 3) -> tf.data.Dataset:
        """Return batches that are padded to the longest of their own sequences."""
        starts = range(0, N, batch_size)
        rows = [slice(start, start + batch_size) for start in starts]
        batches = [self.padded(int(LENGTHS[r].max()), r) for r in rows]
        specs = [
            tf.TensorSpec([None] * min(part.ndim, 2) + [*part.shape[2:]], part.dtype)
            for part in batches[0]
        ]
        return tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=tuple(specs))

    def _stretched(self, part: np.ndarray, length: int) -> np.ndarray:
        if part.ndim == 0:
            return part
        missing = length - len(part)
        pads = (missing, 0) if self.before else (0, missing)
        return np.pad(part, [pads] + [(0, 0)] * (part.ndim - 1))


SEQUENCE_CASES = [
    SequenceCase("dense", dense),
    SequenceCase("dense-padded-before", dense, before=True),
    SequenceCase("masked-vectors", masked_vectors, of_vectors=True),
    SequenceCase("lstm", lstm),
    SequenceCase("gru-along-the-sequence", gru_along_the_sequence, of_vectors=True),
    SequenceCase("attention", attention),
    SequenceCase("shared", shared),
    SequenceCase("distributed", distributed),
    SequenceCase("convolution-with-an-explicit-mask", convolution_with_an_explicit_mask),
    SequenceCase("tokens", tokens, of_tokens=True),
    SequenceCase("tokens-padded-before", tokens, of_tokens=True, before=True),
    SequenceCase("attending-tokens", attending_tokens, of_tokens=True),
    SequenceCase("weighted-tokens", unmasked_tokens, of_tokens=True, weighted=True),
    SequenceCase("weighted-and-masked-tokens", tokens, of_tokens=True, weighted=True),
]
