"""Weights that are numbers."""

from __future__ import annotations

import keras
import tensorflow as tf

from ..errors import NonFiniteError


def check_finite_weights(model: keras.Model) -> None:
    """Refuse a model with NaN among its weights, which a ReLU, for one, would hide.

    Raises
    ------
    NonFiniteError
        Names the first such weight.
    """
    for variable in model.weights:
        value = tf.convert_to_tensor(variable.value)
        if not value.dtype.is_floating:
            continue
        # A constant mask may hold an infinity.
        bad = tf.math.is_nan(value)
        if variable.trainable:
            bad |= ~tf.math.is_finite(value)
        count = int(tf.math.count_nonzero(bad))
        if count:
            message = (
                f"The model's weights must be finite. Received: {variable.path!r} with {count} of "
                f"{int(tf.size(value))} entries NaN or infinite. Load weights from before the "
                "training went wrong."
            )
            raise NonFiniteError(message)
