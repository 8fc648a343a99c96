"""How the gradients of each watched variable are found: by a rule, or by differentiation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import keras
import tensorflow as tf

from ..errors import UnsupportedModelError
from ..model.influence_model import BaseInfluenceModel
from ..model.keras_internals import all_layers
from ..types import Batch
from .batch_gradients import BatchGradients, PlacedBlock
from .blocks import RowsBlock
from .capture import Forward, Tap, forward_to_logits, forward_with_taps
from .fallback import MODES, differentiated_rows
from .padding import NO_MASKS, KnownMasks, known_masks, padding_of
from .rules.base import LayerRule, LayerUse
from .rules.dense import DenseRule
from .rules.registry import find_rule


@dataclass(frozen=True)
class RuledLayer:
    """A layer whose gradients a rule gives.

    Attributes
    ----------
    layer, rule
        The layer and its rule.
    input_ranks
        The ranks of its inputs, one for each of its calls in a forward pass; empty before the
        probe.
    """

    layer: keras.layers.Layer
    rule: LayerRule
    input_ranks: tuple[int, ...] = ()

    @property
    def is_linear(self) -> bool:
        """Whether the layer is a plain Dense one."""
        return isinstance(self.rule, DenseRule)


@dataclass(frozen=True)
class Plan:
    """A model and how its per-example gradients are found; a value, which nothing changes.

    One forward and one backward pass give, for each ruled layer, its inputs and the gradient in
    its pre-activation output; the rules turn these into `BatchGradients`. Variables that no rule
    serves are differentiated example by example, vectorised, for themselves alone.

    Attributes
    ----------
    model
        The wrapped model.
    ruled
        The layers that rules serve.
    fallback_mode
        How the other variables go through the examples, one of `MODES`.
    is_settled
        Whether real examples have confirmed it.
    """

    model: BaseInfluenceModel
    ruled: tuple[RuledLayer, ...]
    fallback_mode: str = MODES[0]
    is_settled: bool = field(default=False, compare=False)

    @classmethod
    def of(cls, model: BaseInfluenceModel) -> Plan:
        """Choose the layers that rules serve.

        A layer qualifies if a rule explains all of its own watched variables and no other layer
        holds one of them (tied weights add up over layers, which a rule cannot see).
        """
        watched = {id(v) for v in model.weights}
        owners: dict[int, int] = {}
        rules = []
        for layer in all_layers(model.model):
            rule = find_rule(layer)
            if rule is None:
                continue
            mine = {id(v) for v in rule.variables(layer)} & watched
            if mine and mine == {id(v) for v in layer.trainable_variables} & watched:
                rules.append((RuledLayer(layer, rule), mine))
                for key in mine:
                    owners[key] = owners.get(key, 0) + 1
        ruled = (ruled for ruled, mine in rules if all(owners[key] == 1 for key in mine))
        return cls(model, tuple(ruled))

    def without(self, layers: Iterable[keras.layers.Layer]) -> Plan:
        """Return the plan in which automatic differentiation serves these layers."""
        left = {id(layer) for layer in layers}
        return replace(self, ruled=tuple(r for r in self.ruled if id(r.layer) not in left))

    @property
    def fallback_variables(self) -> list[keras.Variable]:
        """The watched variables that automatic differentiation serves."""
        served = {id(v) for ruled in self.ruled for v in ruled.rule.variables(ruled.layer)}
        return [v for v in self.model.weights if id(v) not in served]

    @property
    def is_flat(self) -> bool:
        """Whether every layer gives one vector for each example, and Dense ones are watched alone.

        Batches may be joined then: an example takes little more memory than its inputs.
        """
        plain = all(ruled.is_linear and ruled.input_ranks == (2,) for ruled in self.ruled)
        within = all(map(_gives_vectors, all_layers(self.model.model)))
        return plain and within and not self.fallback_variables

    def forward(self, batch: Batch, tapes: Sequence[tf.GradientTape]) -> Forward:
        """Run the forward pass with taps on the ruled layers."""
        return forward_with_taps(self.model, [r.layer for r in self.ruled], batch, tapes)

    def forward_to_logits(
        self,
        batch: Batch,
        tapes: Sequence[tf.GradientTape],
        logits_tapes: Sequence[tf.GradientTape],
    ) -> tuple[Forward, tf.Tensor]:
        """Run the forward pass, with taps, and return the outputs before the last activation.

        Parameters
        ----------
        batch
            A batch of the dataset.
        tapes
            Tapes that watch the ruled layers.
        logits_tapes
            Tapes that watch the logits alone: the model's outputs or, where the layer that gives
            them has an activation, the tensor before it.
        """
        layers = [ruled.layer for ruled in self.ruled]
        return forward_to_logits(self.model, layers, batch, tapes, logits_tapes)

    def gradients(self, batch: Batch) -> BatchGradients:
        """Return the gradients of a batch; traceable."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            forward = self.forward(batch, [tape])
            total = tf.reduce_sum(forward.losses)
        flat = [tap.output for taps in forward.taps for tap in taps]
        deltas = tape.gradient(total, flat, unconnected_gradients="zero") if flat else []
        return self.assemble(batch, forward, deltas)

    def assemble(
        self,
        batch: Batch,
        forward: Forward,
        deltas: Sequence[tf.Tensor],
        cotangent: tf.Tensor | None = None,
    ) -> BatchGradients:
        """Turn the gradients in the taps, in the order of the taps, into blocks.

        Parameters
        ----------
        batch
            A batch of the dataset.
        forward
            Its forward pass.
        deltas
            Gradients in the taps.
        cotangent
            Where the deltas are not of the loss but of ``Σ cotangent · logits``: the cotangent.
        """
        remaining = iter(deltas)
        placed = []
        known = known_masks(self.model, batch, forward)
        for ruled, taps in zip(self.ruled, forward.taps, strict=True):
            placed += self.blocks_of(ruled, [(tap, next(remaining)) for tap in taps], known)
        variables = self.fallback_variables
        if variables:
            rows = self.fallback_rows(batch, cotangent)
            for variable, values in zip(variables, rows, strict=True):
                part = self.model.layout.position(variable)
                placed.append(PlacedBlock((part,), RowsBlock(values)))
        placed.sort(key=lambda item: item.parts)
        return BatchGradients(forward.losses, placed, self.model.layout)

    def blocks_of(
        self,
        ruled: RuledLayer,
        uses: Sequence[tuple[Tap, tf.Tensor]],
        known: KnownMasks = NO_MASKS,
    ) -> list[PlacedBlock]:
        """Return the blocks of one ruled layer.

        Parameters
        ----------
        ruled
            The layer.
        uses
            Its calls, and the gradients in them.
        known
            The masks of the forward pass.
        """
        layout = self.model.layout
        layer_uses = [_use(ruled.rule, self.model.dtype, tap, delta) for tap, delta in uses]
        blocks = ruled.rule.blocks(ruled.layer, layer_uses, layout.__contains__)
        return [
            PlacedBlock(
                tuple(layout.position(v) for v in owned.variables),
                owned.block,
                padding_of(uses, owned.block.matrix_shape[1], known)
                if owned.block.matrix_shape
                else None,
            )
            for owned in blocks
        ]

    def blocks_in_training(self, taps: Sequence[Sequence[Tap]]) -> list[PlacedBlock]:
        """Return the blocks of a training step, of whose objective each example has a part.

        The gradients are those of the objective of the step: they add up over the examples to that
        of the batch, regularisers apart. Variables that no rule serves have no block.

        Parameters
        ----------
        taps
            What `listening` noted of each ruled layer.

        Raises
        ------
        UnsupportedModelError
            If the step does not call one of the layers.
        """
        placed = []
        for ruled, seen in zip(self.ruled, taps, strict=True):
            if not seen:
                message = (
                    "A training step must call all watched layers. Received: one that does not "
                    f"call {ruled.layer.name!r}. Watch other layers."
                )
                raise UnsupportedModelError(message)
            deltas = (tf.zeros_like(t.output) if t.gradient is None else t.gradient for t in seen)
            placed += self.blocks_of(ruled, list(zip(seen, deltas, strict=True)))
        return sorted(placed, key=lambda item: item.parts)

    def fallback_rows(self, batch: Batch, cotangent: tf.Tensor | None = None) -> list[tf.Tensor]:
        """Return the gradient rows ``(b, size)`` of each of the `fallback_variables`.

        Parameters
        ----------
        batch
            A batch of the dataset.
        cotangent
            Of the shape of the logits: take the gradients of ``Σ cotangent · logits`` of each
            example instead of those of its loss.
        """
        variables, mode = self.fallback_variables, self.fallback_mode
        if cotangent is None:
            return differentiated_rows(self.model, variables, batch, mode)

        def along_cotangent(single: tuple[Batch, tf.Tensor]) -> tf.Tensor:
            example, direction = single
            return direction * self.forward_to_logits(example, [], [])[1]

        function: Callable[..., tf.Tensor] = along_cotangent
        return differentiated_rows(self.model, variables, (batch, cotangent), mode, function)


def _gives_vectors(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.layers.InputLayer | keras.Model):
        return True
    try:
        outputs = tf.nest.flatten(layer.output)
    except (AttributeError, ValueError):  # outside of a functional model that is not known
        return False
    return all(len(output.shape) == 2 for output in outputs)


def _use(rule: LayerRule, dtype: tf.DType, tap: Tap, delta: tf.Tensor) -> LayerUse:
    inputs = tf.convert_to_tensor(tap.inputs)
    # Keras casts what is floating before a layer is called; the layer itself takes integers and
    # truth values for numbers.
    if not rule.takes_indices:
        inputs = tf.cast(inputs, dtype)
    delta = tf.cast(tf.convert_to_tensor(delta), dtype)
    # The gradient of a loss in Python code (`tf.py_function`) comes without a shape.
    delta.set_shape(tap.output.shape)
    return LayerUse(inputs, delta, tap.in_training, tap.mask)
