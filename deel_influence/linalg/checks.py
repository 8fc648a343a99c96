"""Checks of arguments that several solvers share."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import NonFiniteError
from .linear_operator import LinearOperator


def check_count(name: str, value: Any, minimum: int = 1) -> int:
    """Return ``value`` as an int.

    Raises
    ------
    ValueError
        If it is no whole number of at least ``minimum``.
    """
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or value < minimum:
        message = (
            f"Argument `{name}` must be a whole number >= {minimum}. Received: {name}={value!r}."
        )
        raise ValueError(message)
    return int(value)


def check_shard(shard: int, num_shards: int) -> tuple[int, int]:
    """Return which shard it is, from 0, and of how many.

    Raises
    ------
    ValueError
        If there is no such shard.
    """
    check_count("num_shards", num_shards)
    if check_count("shard", shard, 0) >= num_shards:
        message = (
            f"Argument `shard` must be below `num_shards`, counting from 0. Received: {shard} of "
            f"{num_shards}."
        )
        raise ValueError(message)
    return int(shard), int(num_shards)


def check_positive(name: str, value: Any) -> float:
    """Return ``value`` as a float.

    Raises
    ------
    ValueError
        If it is no finite number above 0.
    """
    if not (np.ndim(value) == 0 and np.isfinite(float(value)) and float(value) > 0):
        message = f"Argument `{name}` must be a finite number > 0. Received: {name}={value!r}."
        raise ValueError(message)
    return float(value)


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Refuse what is none of the choices.

    Raises
    ------
    ValueError
        If it is something else.
    """
    if value not in choices:
        message = f"Argument `{name}` must be one of {tuple(choices)}. Received: {value!r}."
        raise ValueError(message)


def as_rows(name: str, value: Any, operator: LinearOperator) -> tf.Tensor:
    """Return vectors ``(k, p)`` that fit an operator, in its dtype.

    Raises
    ------
    ValueError
        If the shape is another.
    NonFiniteError
        If a vector holds NaN or infinity, or overflows.
    """
    rows = tf.cast(tf.convert_to_tensor(value), operator.dtype)
    if rows.shape.rank != 2 or rows.shape[1] != operator.size:
        message = (
            f"Argument `{name}` must have shape (k, p) with p = {operator.size}, one vector in "
            f"each row. Received: shape {rows.shape}."
        )
        raise ValueError(message)
    finite = np.isfinite(tf.reduce_sum(tf.abs(rows), axis=1).numpy())
    if not finite.all():
        message = (
            f"Argument `{name}` must be finite. Received: NaN or infinity, first in row "
            f"{np.argmin(finite)}."
        )
        raise NonFiniteError(message)
    return rows


def check_products(values: np.ndarray, where: str) -> None:
    """Refuse NaN and infinity in numbers that were computed from an operator's products.

    Raises
    ------
    NonFiniteError
        Says where they came up.
    """
    if not np.isfinite(values).all():
        message = (
            f"Products with the operator must be finite. Received: NaN or infinity in {where}. "
            "Check that the weights, the data and the operator's own settings are finite."
        )
        raise NonFiniteError(message)
