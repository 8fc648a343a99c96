"""What influence is, from Keras's own loss of one example at a time and automatic differentiation.

Nothing of the library is used here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

Example = tuple[Any, ...]


class PlainInfluence:
    """Gradients and Hessians of ``model.compute_loss`` of examples alone, in inference mode.

    Parameters
    ----------
    model
        A compiled Keras model.
    variables
        The watched variables, p numbers.
    positions
        By how many positions of targets Keras's loss has divided; None leaves it as it is.
    """

    def __init__(
        self,
        model: keras.Model,
        variables: Sequence[keras.Variable],
        positions: Callable[[Any], Any] | None = None,
    ) -> None:
        self.model = model
        self.variables = list(variables)
        self.positions = positions
        # As `fit` does: Keras finds the logits behind a softmax in a graph only.
        self._gradient = tf.function(self._gradient_of, autograph=False)
        self._hessian = tf.function(self._hessian_of, autograph=False)

    def gradients(self, examples: Sequence[Example]) -> np.ndarray:
        """Return the gradients of the losses, float64, shape ``(n, p)``."""
        return np.stack([self._gradient(example) for example in examples]).astype(float)

    def hessian(self, examples: Sequence[Example]) -> np.ndarray:
        """Return the Hessian of mean loss plus regularisers, float64, shape ``(p, p)``."""
        mean = np.mean([self._hessian(e).numpy().astype(float) for e in examples], axis=0)
        return (mean + mean.T) / 2

    def _loss(self, example: Example) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the loss of one example, and what Keras adds to it: the regularisers."""
        x, y, *weight = example
        outputs = self.model(x, training=False)
        total = self.model.compute_loss(
            x=x, y=y, y_pred=outputs, sample_weight=weight[0] if weight else None, training=False
        )
        terms = [tf.cast(penalty, total.dtype) for penalty in self.model.losses]
        penalty = tf.add_n(terms) if terms else tf.zeros_like(total)
        loss = total - penalty
        if self.positions is not None:
            loss *= tf.cast(self.positions(y), loss.dtype)
        return loss, penalty

    def _gradient_of(self, example: Example) -> tf.Tensor:
        values = [v.value for v in self.variables]
        with tf.GradientTape() as tape:
            loss, _ = self._loss(example)
        return _flat(tape.gradient(loss, values, unconnected_gradients="zero"))

    def _hessian_of(self, example: Example) -> tf.Tensor:
        values = [v.value for v in self.variables]
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                objective = tf.add_n(self._loss(example))
            gradient = _flat(inner.gradient(objective, values, unconnected_gradients="zero"))
        rows = outer.jacobian(
            gradient, values, unconnected_gradients="zero", experimental_use_pfor=False
        )
        p = gradient.shape[0]
        return tf.concat([tf.reshape(row, (p, -1)) for row in rows], axis=1)


def _flat(gradients: Sequence[Any]) -> tf.Tensor:
    """Concatenate gradients, of which embeddings give sparse ones."""
    return tf.concat([tf.reshape(tf.convert_to_tensor(g), (-1,)) for g in gradients], axis=0)
