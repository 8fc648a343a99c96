"""Random vectors from NumPy's generators: one seed gives the same vectors on every device."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from .linear_operator import LinearOperator


def gaussian_rows(operator: LinearOperator, count: int, seed: int | None) -> tf.Tensor:
    """Return standard normal vectors for an operator, shape ``(count, p)``."""
    precise = operator.dtype == tf.float64
    rows = np.random.default_rng(seed).standard_normal(
        (count, operator.size), dtype=np.float64 if precise else np.float32
    )
    return tf.constant(rows, dtype=operator.dtype)


def rademacher_rows(operator: LinearOperator, count: int, seed: int | None) -> tf.Tensor:
    """Return vectors of independent signs for an operator, shape ``(count, p)``."""
    bits = np.random.default_rng(seed).integers(0, 2, (count, operator.size), dtype=np.int8)
    return tf.cast(2 * bits - 1, operator.dtype)
