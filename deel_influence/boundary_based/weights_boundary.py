"""How little the weights have to change for the model to change its mind on an example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ..curvature.closed_form import has_closed_form
from ..gradients.blocks import OuterBlock
from ..gradients.fallback import batch_of_copies, copies_of_example
from ..model.influence_model import BaseInfluenceModel
from ..types import Batch
from .base import BoundaryCalculator
from .deepfool import BoundaryPoints

MAX_NUMBERS = 2**24
"""How many changed weights to hold at a time, over all examples."""


class WeightsBoundaryCalculator(BoundaryCalculator):
    """Score ``-‖θ - θ_adv‖²``, with θ_adv the nearest watched weights that change the prediction.

    Never above 0, and higher, that is closer to 0, for examples whose prediction changes more
    easily. The search is DeepFool [1]_ in the space of the watched weights, for each example on
    its own: each has weights of its own, side by side in one compiled function. The model itself
    is only read. Where the logits are linear in the watched weights, those of a last Dense layer,
    the answer is known without a search: the difference f of the two highest logits, divided by
    the dual norm of its gradient.

    Parameters
    ----------
    model
        The wrapped classifier; a Keras model is wrapped, with all its weights watched.
    step_nbr
        How many steps to take at most.
    norm_type
        The p of the p-norm ``‖·‖`` that is measured, and made small: a number of at least 1, or
        ``numpy.inf``.
    eps
        Two logits that differ by no more count as the same: the boundary is reached.
    num_classes_considered
        How many classes, the predicted one included, each step considers: those with the highest
        logits. None considers all.

    References
    ----------
    .. [1] S.-M. Moosavi-Dezfooli, A. Fawzi, P. Frossard. DeepFool: A Simple and Accurate Method to
       Fool Deep Neural Networks. CVPR 2016.
    """

    def __init__(
        self,
        model: BaseInfluenceModel | keras.Model,
        step_nbr: int = 100,
        norm_type: Any = 2,
        eps: float = 1e-6,
        *,
        num_classes_considered: int | None = None,
    ) -> None:
        super().__init__(model, step_nbr, eps, norm_type, num_classes_considered)
        self._max_examples = max(MAX_NUMBERS // self.model.nb_params, 1)

    def _points(self, batch: Batch) -> BoundaryPoints:
        known = self._points_of_last_layer(batch)
        return self._points_of_search(batch) if known is None else known

    def _points_of_search(self, batch: Batch) -> BoundaryPoints:
        inputs = self.model.process_batch_for_loss_fn(batch)[0]

        def classifier(rows: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
            # One example too many is computed: TensorFlow's vectorised loops fail on one alone.
            rows = tf.concat([rows, rows[:1]], axis=0)
            examples = tf.nest.map_structure(lambda t: tf.gather(t, rows), inputs)
            logits_of_one = self._logits_of_one(copies_of_example(self.logits, inputs))

            def logits_at(offsets: tf.Tensor) -> tf.Tensor:
                spare = tf.stop_gradient(offsets[:1])
                moves = self._split(tf.concat([offsets, spare], axis=0))
                return tf.vectorized_map(logits_of_one, (examples, moves), warn=False)[:-1]

            return logits_at

        b = tf.shape(tf.nest.flatten(inputs)[0])[0]
        start = tf.zeros((b, self.model.nb_params), self.model.dtype)
        return self.deepfool.search(classifier, start)

    def _split(self, offsets: tf.Tensor) -> list[tf.Tensor]:
        """Split rows ``(r, p)`` into moves ``(r, *shape)``, one for each watched variable.

        The gradient of a split is one concatenation; slices would each give a row of zeros.
        """
        layout = self.model.layout
        parts = tf.split(offsets, layout.sizes, axis=1)
        return [tf.reshape(t, (-1, *s)) for t, s in zip(parts, layout.shapes, strict=True)]

    def _logits_of_one(self, copies: int) -> Callable[[tuple[Any, list[tf.Tensor]]], tf.Tensor]:
        """Return what gives the logits ``(c,)`` of one example under weights that are moved."""

        def compute(example: tuple[Any, list[tf.Tensor]]) -> tf.Tensor:
            inputs, moves = example
            values = [
                (v, v.value + tf.cast(move, v.dtype))
                for v, move in zip(self.model.weights, moves, strict=True)
            ]
            # In this scope, Keras reads these values in place of the variables, and writes nothing.
            with keras.StatelessScope(state_mapping=values):
                return self.logits(batch_of_copies(inputs, copies))[0]

        return compute

    def _points_of_last_layer(self, batch: Batch) -> BoundaryPoints | None:
        """Return the closed form for a watched last Dense layer; None if that is not the case.

        With φ the inputs of the layer, the gradient of ``f_k`` is the outer product of φ and a
        vector of one 1 and one -1, whose dual norm is the same for all classes.
        """
        if not self.engine.prepared or not has_closed_form(self.engine):
            return None
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            forward, raw = self.engine.forward_to_logits(batch, [tape], [])
        seed = tf.ones_like(raw)
        output = forward.taps[0][0].output
        # What comes back unchanged has passed through nothing: the layer gives the logits.
        is_last = tape.gradient(raw, output, output_gradients=seed) is seed
        if not is_last or self.logits.takes_logarithm(forward.outputs, raw):
            return None
        (placed,) = self.engine.assemble(batch, forward, [seed]).blocks
        # With the bias alone watched there is no outer product, and the features are one.
        one = tf.ones((tf.shape(raw)[0], 1), self.model.dtype)
        features = placed.block.inputs if isinstance(placed.block, OuterBlock) else one
        norm, single = self.deepfool.norm, raw.shape[1] == 1
        change = tf.constant([[1.0] if single else [1.0, -1.0]], self.model.dtype)
        slopes = norm.dual(features) * norm.dual(change)
        return self._points_of_line(self.logits.of_classes(forward.outputs, raw), slopes)

    def _points_of_line(self, logits: tf.Tensor, slopes: tf.Tensor) -> BoundaryPoints:
        """Return the points where logits that differ linearly in the weights meet."""
        highest = tf.math.top_k(logits, 2).values
        gaps = highest[:, 0] - highest[:, 1]
        meet, flat = gaps <= self.deepfool.tolerance(logits), slopes == 0.0
        distances = tf.where(meet | flat, tf.zeros_like(gaps), gaps / slopes)
        return BoundaryPoints(distances, tf.cast(~meet & ~flat, tf.int32), meet | ~flat)
