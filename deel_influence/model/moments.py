"""Means and variances of layers that have right second derivatives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from .overlay import TRACING, overlaid


@contextmanager
def exact_moments() -> Iterator[None]:
    """Let the normalisation layers that run meanwhile have right derivatives of all orders.

    `tf.nn.moments`, from which Keras takes the statistics of a batch, a layer or a group, holds the
    mean constant in the variance. The first derivative is right all the same, because there the
    mean has no part in it; the second lacks that part.
    """
    with TRACING, overlaid(tf.nn, "moments", _moments):
        yield


def _moments(
    x: tf.Tensor,
    axes: Any,
    shift: Any = None,  # noqa: ARG001 - as little used by TensorFlow
    keepdims: bool = False,
    name: str | None = None,  # noqa: ARG001 - the form of TensorFlow
) -> tuple[tf.Tensor, tf.Tensor]:
    mean = tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axes, keepdims=keepdims)
    return mean if keepdims else tf.squeeze(mean, axes), variance
