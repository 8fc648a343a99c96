"""Texts that change with arrays, settings and data."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import tensorflow as tf

from ..types import Batch
from .content_keys import content_keys

_READ_AT_ONCE = 1024


def array_digest(*arrays: np.ndarray) -> str:
    """Return a digest of arrays: their types, shapes and contents."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(_bytes_of(array))
    return digest.hexdigest()


def run_digest(ids: np.ndarray, labels: np.ndarray) -> str:
    """Return 16 digits that change with the ids of examples, their given labels, and their order.

    Decisions that are made about labels tell by it which data they are about.

    Parameters
    ----------
    ids
        Ids, shape ``(n,)``, integers or texts.
    labels
        Classes or values, shape ``(n,)``, of any numeric type.
    """
    # As objects and in one type, so that neither the longest text nor the type of numbers matters.
    names = np.array([str(one).encode("utf-8", "surrogatepass") for one in ids.tolist()], object)
    return array_digest(names, np.asarray(labels, np.float64))[:16]


def settings_digest(settings: Any) -> str:
    """Return a digest of what JSON can hold, the order of dicts apart."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def dataset_digest(dataset: tf.data.Dataset) -> dict[str, Any]:
    """Return the number of examples of a batched dataset and a digest of all of them, as JSON.

    It changes with their order, and not with their batches.
    """
    count, digest = 0, hashlib.sha256()
    for batch in dataset:
        keys = example_digests(batch).numpy()
        count += len(keys)
        digest.update(keys.tobytes())
    return {"examples": count, "digest": digest.hexdigest()}


def digest_of_examples(dataset: tf.data.Dataset, in_order: bool = True) -> str:
    """Return a digest of a dataset of single examples.

    Parameters
    ----------
    dataset
        Read in one pass.
    in_order
        Whether the digest changes with their order as well.
    """
    parts = dataset.map(_digest_alone).batch(_READ_AT_ONCE)
    keys = np.concatenate([np.empty(0, np.int64), *(part.numpy() for part in parts)])
    return array_digest(keys if in_order else np.sort(keys))


def example_digests(batch: Batch) -> tf.Tensor:
    """Return a number for each example that changes with its content, int64, shape ``(b,)``.

    As `content_keys`, of which it is one, it does not depend on the batch that an example is in,
    nor on the padding there. Of float64 and complex numbers it sees all digits.
    """
    return _digests([_dense(part) for part in tf.nest.flatten(batch)])


@tf.function(reduce_retracing=True)
def _digests(parts: list[tf.Tensor]) -> tf.Tensor:
    return content_keys(parts, [_beyond_float32(part) for part in parts])


def _digest_alone(*example: Any) -> tf.Tensor:
    alone = tf.nest.map_structure(lambda part: tf.expand_dims(part, 0), example)
    return example_digests(alone)[0]


def _dense(part: Any) -> tf.Tensor:
    if isinstance(part, tf.RaggedTensor):
        return part.to_tensor()
    if isinstance(part, tf.SparseTensor):
        return tf.sparse.to_dense(part)
    values = tf.convert_to_tensor(part)
    if values.dtype.is_complex:
        return tf.stack([tf.math.real(values), tf.math.imag(values)], axis=-1)
    return values


def _beyond_float32(values: tf.Tensor) -> tf.Tensor | None:
    """Return what float32 leaves of float64; None for other types."""
    if values.dtype != tf.float64:
        return None
    rounded = tf.cast(tf.cast(values, tf.float32), tf.float64)
    rest = tf.where(tf.math.is_finite(rounded), values - rounded, values)
    return tf.bitcast(rest, tf.int32)


def _bytes_of(array: np.ndarray) -> bytes:
    if array.dtype == object:
        # The bytes of an array of texts are addresses.
        return b"".join(repr(value).encode() + b"," for value in array.ravel().tolist())
    return np.ascontiguousarray(array).tobytes()
