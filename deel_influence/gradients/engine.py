"""The per-example gradient engine: any model, exact, at about the cost of a training step."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from ..errors import BatchError, DeelInfluenceError, UnsupportedModelError
from ..model.influence_model import BaseInfluenceModel
from ..model.keras_internals import all_layers
from ..model.selection import check_watched
from ..types import Batch
from ..utils.datasets import OrderGuard, batch_size_of
from ..utils.derivatives import derivatives_checked
from ..utils.kernels import Kernel
from ..utils.reasons import reason_of
from .batch_gradients import BatchGradients, PlacedBlock
from .blocks import RowsBlock
from .capture import Forward, Tap, forward_to_logits, forward_with_taps
from .fallback import MODES, differentiated_rows
from .padding import NO_MASKS, KnownMasks, known_masks, padding_of
from .rules.base import LayerRule, LayerUse
from .rules.dense import DenseRule
from .rules.registry import find_rule

MAX_PROBES = 5
"""How many batches are probed at most where the first ones prove little."""


@dataclass(frozen=True)
class RuledLayer:
    """A layer whose gradients a rule gives."""

    layer: keras.layers.Layer
    rule: LayerRule

    @property
    def is_linear(self) -> bool:
        """Whether the layer is a plain Dense one."""
        return isinstance(self.rule, DenseRule)


class GradientEngine:
    """Per-example gradients of a wrapped model.

    One forward and one backward pass give, for each watched layer, its inputs and the gradient in
    its pre-activation output; the layer rules turn these into `BatchGradients`. Variables that no
    rule serves are differentiated example by example, vectorised, for themselves alone.

    Call `prepare` with a batch of real data before `gradients` is traced: it compares the rules
    with plain automatic differentiation on the first examples, and moves a layer that disagrees
    to automatic differentiation, with a warning that names it.

    Parameters
    ----------
    model
        The wrapped model.
    """

    def __init__(self, model: BaseInfluenceModel) -> None:
        self.model = model
        self.prepared = False
        self.plan_version = 0
        self._probes_left = MAX_PROBES
        self.fallback_mode = MODES[0]
        self.ruled = _plan(model)
        self.order_guard = OrderGuard()
        self._input_ranks: dict[int, tuple[int, ...]] = {}
        self._kernels: dict[Hashable, tuple[Kernel, Any]] = {}

    @classmethod
    def of(cls, model: BaseInfluenceModel) -> GradientEngine:
        """Return the engine of ``model``, which is built once."""
        return model.resource("gradient_engine", lambda: cls(model))

    def __reduce__(self) -> tuple:
        """Pickle and copy the model alone, whose engine is built again."""
        return GradientEngine.of, (self.model,)

    @property
    def fallback_variables(self) -> list[keras.Variable]:
        """The watched variables that automatic differentiation serves."""
        served = {id(v) for ruled in self.ruled for v in self._watched_by(ruled)}
        return [v for v in self.model.weights if id(v) not in served]

    def prepare(self, batch: Batch) -> None:
        """Probe the rules on the first examples of ``batch``.

        Two examples with a gradient settle it. A batch of one, or one without gradients, proves
        little: the next batches are probed too, until one settles it or some have been tried.

        Raises
        ------
        BatchError
            If TensorFlow or Keras refuses the batch.
        UnsupportedModelError
            If the model does not run on single examples, or has lost a watched weight.
        """
        check_watched(self.model.model, self.model.weights)
        if self._probes_left == 0 or (self.prepared and batch_size_of(batch) < 2):
            return
        from .probe import probe_rules  # noqa: PLC0415 - the probe drives this engine

        with derivatives_checked(), _refusals_explained(self.model, batch):
            settled = probe_rules(self, batch)
        self.prepared = True
        self._probes_left = 0 if settled else self._probes_left - 1

    def note_calls(self, ruled: RuledLayer, taps: Sequence[Tap]) -> None:
        """Remember how a layer was called; for the probe."""
        self._input_ranks[id(ruled.layer)] = tuple(tap.inputs.shape.rank for tap in taps)

    def input_ranks(self, ruled: RuledLayer) -> tuple[int, ...]:
        """Return the ranks of a layer's inputs, one for each of its calls in a forward pass."""
        return self._input_ranks[id(ruled.layer)]

    def drop_rules(self, layers: Sequence[keras.layers.Layer]) -> None:
        """Serve these layers by automatic differentiation from now on."""
        dropped = {id(layer) for layer in layers}
        self.ruled = [ruled for ruled in self.ruled if id(ruled.layer) not in dropped]
        # Kernels that were traced before serve these layers by their rules.
        self.plan_version += 1
        self._kernels.clear()

    def gradients(self, batch: Batch) -> BatchGradients:
        """Return the gradients of a batch; to be called inside the function being traced."""
        if not self.prepared:
            message = (
                "The engine must be prepared before it is used. Call "
                "`engine.prepare(batch)` with a batch of the dataset first."
            )
            raise DeelInfluenceError(message)
        return self.unchecked_gradients(batch)

    def graph_gradients(self, batch: Batch) -> BatchGradients:
        """Do what `gradients` does, in a graph of its own where it is called eagerly.

        Keras finds the logits behind a softmax that is no layer in a graph only, as in `fit`;
        without them it clips the probabilities, and the gradients of confident predictions vanish.
        What comes from that graph are rows, ``(b, p)``, one block for each variable.
        """
        if not tf.executing_eagerly():
            return self.gradients(batch)

        def compiled(examples: Batch) -> tuple[tf.Tensor, tf.Tensor]:
            found = self.gradients(examples)
            return found.losses, found.materialize()

        losses, rows = self.kernel("eager_gradients", compiled)(batch)
        layout = self.model.layout
        parts = tf.split(rows, layout.sizes, axis=1)
        placed = [PlacedBlock((i,), RowsBlock(part)) for i, part in enumerate(parts)]
        return BatchGradients(losses, placed, layout)

    def unchecked_gradients(self, batch: Batch) -> BatchGradients:
        """Do what `gradients` does, also before the probe."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            forward = self.forward(batch, [tape])
            total = tf.reduce_sum(forward.losses)
        flat = [tap.output for taps in forward.taps for tap in taps]
        deltas = tape.gradient(total, flat, unconnected_gradients="zero") if flat else []
        return self.assemble(batch, forward, deltas)

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
        if self.fallback_variables:
            rows = self.fallback_rows(batch, cotangent)
            for variable, values in zip(self.fallback_variables, rows, strict=True):
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
        layer_uses = [self._use(ruled.rule, tap, delta) for tap, delta in uses]
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

        return differentiated_rows(self.model, variables, (batch, cotangent), mode, along_cotangent)

    def kernel(
        self, key: Hashable, function: Callable[..., Any], jit_compile: bool = False
    ) -> Kernel:
        """Return the compiled form of ``function``, kept under ``key`` for later calls.

        Parameters
        ----------
        key
            A name for it.
        function
            A function of tensors.
        jit_compile
            Whether XLA compiles it.

        Raises
        ------
        ValueError
            If another function is kept under that key.
        """
        code = getattr(function, "__code__", function)
        kernel, known = self._kernels.setdefault(key, (Kernel(function, jit_compile), code))
        if known is not code:
            message = f"Argument `key` must be new for another function. Received: {key!r}."
            raise ValueError(message)
        return kernel

    def _use(self, rule: LayerRule, tap: Tap, delta: tf.Tensor) -> LayerUse:
        dtype = self.model.dtype
        inputs = tf.convert_to_tensor(tap.inputs)
        # Keras casts what is floating before a layer is called; the layer itself takes integers
        # and truth values for numbers.
        if not rule.takes_indices:
            inputs = tf.cast(inputs, dtype)
        delta = tf.cast(tf.convert_to_tensor(delta), dtype)
        # The gradient of a loss in Python code (`tf.py_function`) comes without a shape.
        delta.set_shape(tap.output.shape)
        return LayerUse(inputs, delta)

    def _watched_by(self, ruled: RuledLayer) -> list[keras.Variable]:
        return [v for v in ruled.rule.variables(ruled.layer) if v in self.model.layout]


@contextmanager
def _refusals_explained(model: BaseInfluenceModel, batch: Batch) -> Iterator[None]:
    """Say what it is where TensorFlow or Keras refuses to run the model on some examples."""
    try:
        yield
    except DeelInfluenceError:
        raise
    except (ValueError, TypeError, tf.errors.OpError) as error:
        try:
            model.predict_batch(batch)
        except (ValueError, TypeError, tf.errors.OpError):
            message = (
                f"A batch cannot be computed: {reason_of(error)}. Check that its inputs are what "
                "the model takes."
            )
            raise BatchError(message) from error
        message = (
            "The model must run on batches of any size, single examples included. Received: a "
            f"{type(model.model).__name__} that takes a batch of {batch_size_of(batch)}, but not "
            f"its first examples alone: {reason_of(error)}. Read the number of examples off the "
            "inputs instead of fixing it; make recurrent layers with stateful=False."
        )
        raise UnsupportedModelError(message) from error


def _plan(model: BaseInfluenceModel) -> list[RuledLayer]:
    """Choose the layers that rules serve.

    A layer qualifies if a rule explains all of its own watched variables and no other layer holds
    one of them (tied weights add up over layers, which a rule cannot see).
    """
    layers = all_layers(model.model)
    watched = {id(v) for v in model.weights}
    owners: dict[int, int] = {}
    rules = []
    for layer in layers:
        rule = find_rule(layer)
        if rule is None:
            continue
        mine = {id(v) for v in rule.variables(layer)} & watched
        if mine and mine == {id(v) for v in layer.trainable_variables} & watched:
            rules.append((RuledLayer(layer, rule), mine))
            for key in mine:
                owners[key] = owners.get(key, 0) + 1
    return [ruled for ruled, mine in rules if all(owners[key] == 1 for key in mine)]
