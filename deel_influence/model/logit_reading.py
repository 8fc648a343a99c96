"""Whether a loss takes logits or probabilities, in whatever form it was given."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import tensorflow as tf

FLAT = 1e-3
"""A loss of probabilities that changes by less beyond 0 and 1 is clipped there."""


def only_loss(loss: Any) -> Any:
    """Return the one loss of a list or dict of one, and any other as it is."""
    parts = tf.nest.flatten(loss)
    return parts[0] if len(parts) == 1 else loss


def told_from_logits(loss: Any) -> bool | None:
    """Return what a loss itself says of ``from_logits``; None where it says nothing.

    An object says so by its attribute, a function or a partial by the default of its parameter.
    """
    loss = only_loss(loss)
    told = getattr(loss, "from_logits", None)
    if told is None and callable(loss) and not hasattr(loss, "call"):
        try:
            parameter = inspect.signature(loss).parameters.get("from_logits")
        except ValueError:  # a function that is not written in Python
            return None
        told = None if parameter is None else parameter.default
    return None if told in (None, inspect.Parameter.empty) else bool(told)


def seems_from_logits(loss: Any) -> bool | None:
    """Try out what a loss of one output takes, where it does not say so.

    For the label 1, a loss of logits goes on falling beyond 1 and rising below 0; one of
    probabilities is clipped there. Others, such as squared errors, are least at the label.

    Returns
    -------
    Whether it takes logits; None if it takes neither, or no single output.
    """
    evaluate = getattr(only_loss(loss), "call", only_loss(loss))
    outputs = np.array([[-3.0], [-1.0], [0.5], [1.0], [3.0]], np.float32)
    try:
        values = evaluate(tf.ones_like(outputs), tf.constant(outputs))
        low, zero, half, one, high = np.reshape(values, (5, -1)).sum(axis=1)
    except Exception:  # what a user's function raises on numbers that it was not made for
        return None
    if high > one + FLAT or not half > one + FLAT:
        return None
    if low > zero + FLAT:
        return True
    return False if abs(low - zero) <= FLAT and abs(high - one) <= FLAT else None
