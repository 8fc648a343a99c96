"""Which calls of layers give the same tensors whatever the watched weights are.

The model is traced once, and the answer is read off the graph: an output is *early* where no path
leads to it from a watched variable. This sees what gradients would not, such as masks and integer
outputs, and needs to know nothing of the way in which the layers are put together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from ..gradients.capture import forward_with_taps, overlaid
from ..model.influence_model import BaseInfluenceModel
from ..model.keras_internals import all_layers, keras_mask
from ..types import Batch
from ..utils.datasets import batch_size_of
from ..utils.kernels import relax

UNKEPT = (tf.resource, tf.variant)


@dataclass(eq=False)
class LayerCall:
    """One call of a layer in a run of the model.

    Attributes
    ----------
    layer
        The layer.
    number
        How many calls of the layer came before.
    outer
        The call inside which it happened, or None.
    outputs
        What it returned: any nest.
    has_own_mask
        Whether an output left `call` with a mask on it, which Keras would not set again.
    """

    layer: keras.layers.Layer
    number: int
    outer: LayerCall | None
    outputs: Any = None
    has_own_mask: bool = False

    @property
    def tensors(self) -> list[Any]:
        """The parts of its outputs."""
        return tf.nest.flatten(self.outputs)

    def is_inside(self, calls: set[LayerCall]) -> bool:
        """Tell whether it happened within one of ``calls``."""
        return self.outer is not None and (self.outer in calls or self.outer.is_inside(calls))


@dataclass(frozen=True, eq=False)
class EarlyCalls:
    """The calls that can be left out of a run of the model once some of their outputs are kept.

    Attributes
    ----------
    calls
        The calls that remain when no replaceable one runs its inside, in order.
    replaceable
        Those among them, and inside them, that can be replaced.
    frontier
        The tensors to keep, by name, each with a call that returns it and its position there.
        Nothing else that a replaceable call returns reaches the losses or the model's outputs.
    unreadable
        Names of layers whose outputs are early but cannot be kept.
    losses_are_late
        Whether the losses depend on the watched weights at all.
    """

    calls: list[LayerCall]
    replaceable: set[LayerCall]
    frontier: dict[str, tuple[LayerCall, int]]
    unreadable: list[str]
    losses_are_late: bool


def find_early_calls(model: BaseInfluenceModel, batch: Batch) -> EarlyCalls:
    """Trace the model on a batch, and find the calls that the watched weights cannot reach.

    Parameters
    ----------
    model
        The wrapped model.
    batch
        A few examples. They are computed once, to tell which tensors have a row per example.
    """
    trace = _Trace(model, batch)
    early = [call for call in trace.calls if trace.is_early(call)]
    replaceable = {call for call in early if trace.can_be_kept(call)}
    sources: dict[str, tuple[LayerCall, int]] = {}
    for call in trace.calls:
        if call in replaceable:
            for position, tensor in enumerate(call.tensors):
                sources.setdefault(tensor.name, (call, position))
    needed = trace.needed(stop_at=sources)
    return EarlyCalls(
        [call for call in trace.calls if not call.is_inside(replaceable)],
        replaceable,
        {name: source for name, source in sources.items() if name in needed},
        list(dict.fromkeys(call.layer.name for call in early if call not in replaceable)),
        trace.losses_are_late,
    )


@contextmanager
def recorded_calls(layers: Iterable[keras.layers.Layer], calls: list[LayerCall]) -> Iterator[None]:
    """Append every call of ``layers`` to ``calls``, in the order in which they start."""
    running: list[LayerCall] = []
    with ExitStack() as stack:
        for layer in layers:
            call = _recorded(layer, calls, running)
            stack.enter_context(overlaid(layer, "call", call))
        yield


def _recorded(
    layer: keras.layers.Layer, calls: list[LayerCall], running: list[LayerCall]
) -> Callable[..., Any]:
    original = layer.call
    numbers = itertools.count()

    def call(*args: Any, **kwargs: Any) -> Any:
        record = LayerCall(layer, next(numbers), running[-1] if running else None)
        calls.append(record)
        running.append(record)
        try:
            record.outputs = original(*args, **kwargs)
        finally:
            running.pop()
        # Keras sets masks on the same tensors once `call` has returned, so this is the moment.
        record.has_own_mask = any(keras_mask(part) is not None for part in record.tensors)
        return record.outputs

    return call


class _Trace:
    """The graph of a run of the model, with the calls of its layers.

    Tensors are told apart by their names, which are unique in a graph.
    """

    def __init__(self, model: BaseInfluenceModel, batch: Batch) -> None:
        self.calls: list[LayerCall] = []
        self._ends: list[tf.Tensor] = []
        flat = tf.nest.flatten(batch)
        specs = [relax(tf.type_spec_from_value(value)) for value in flat]

        def run(*parts: Any) -> dict[str, tf.Tensor]:
            return self._run(model, tf.nest.pack_sequence_as(batch, parts))

        compiled = tf.function(run, input_signature=specs, autograph=False)
        concrete = compiled.get_concrete_function()
        self._graph = concrete.graph
        self._sizes = {name: int(size) for name, size in concrete(*flat).items()}
        self._num_examples = batch_size_of(batch)
        variables, watched = _variable_handles(concrete, model)
        self._weighted = _reached(concrete.graph, variables)
        self._late = _reached(concrete.graph, watched)

    @property
    def losses_are_late(self) -> bool:
        """Whether the losses depend on the watched weights."""
        return self._ends[0].op.name in self._late

    def is_early(self, call: LayerCall) -> bool:
        """Tell whether layers with weights had a part in what a call returned, no watched one."""
        # What is computed inside a loop belongs to another graph, and cannot be judged.
        parts = [part for part in call.tensors if self._is_here(part)]
        weighted = any(part.op.name in self._weighted for part in parts)
        return weighted and not any(part.op.name in self._late for part in parts)

    def can_be_kept(self, call: LayerCall) -> bool:
        """Tell whether all outputs of an early call are tensors with one row per example."""
        return not call.has_own_mask and all(self._has_rows(part) for part in call.tensors)

    def needed(self, stop_at: Container[str]) -> set[str]:
        """Return the names of the tensors from which the losses and outputs are computed.

        Parameters
        ----------
        stop_at
            Names of tensors that are given, so that what lies before them is not needed.
        """
        found: set[str] = set()
        pending = list(self._ends)
        while pending:
            tensor = pending.pop()
            if tensor.name not in found:
                found.add(tensor.name)
                if tensor.name not in stop_at:
                    pending += tensor.op.inputs
        return found

    def _run(self, model: BaseInfluenceModel, batch: Batch) -> dict[str, tf.Tensor]:
        """Run the model; return the size of the first axis of whatever the layers return."""
        with recorded_calls(all_layers(model.model), self.calls):
            forward = forward_with_taps(model, [], batch, [])
        self._graph = forward.losses.graph
        self._ends = [forward.losses, *filter(self._is_here, tf.nest.flatten(forward.outputs))]
        tensors = [part for call in self.calls for part in call.tensors if self._is_here(part)]
        return {part.name: tf.shape(part)[0] for part in tensors if part.shape.rank}

    def _is_here(self, part: Any) -> bool:
        # A ragged tensor counts as symbolic, but is several tensors.
        is_one = isinstance(part, tf.Tensor) and tf.is_symbolic_tensor(part)
        return is_one and part.graph is self._graph

    def _has_rows(self, part: Any) -> bool:
        if not self._is_here(part) or part.dtype in UNKEPT or not part.shape.rank:
            return False
        # A size that is known whatever the batch is that of something else, such as positions.
        is_of_batch = part.shape[0] is None and self._sizes[part.name] == self._num_examples
        return is_of_batch and part.shape[1:].is_fully_defined()


def _variable_handles(concrete: Any, model: BaseInfluenceModel) -> tuple[set[str], set[str]]:
    """Return the names of the operations that give the graph its variables, and the watched."""
    outside = concrete.captured_inputs
    inside = concrete.inputs[len(concrete.inputs) - len(outside) :]
    variables = {tensor.op.name for tensor in inside if tensor.dtype == tf.resource}
    handles = {id(variable.value.handle) for variable in model.weights}
    pairs = zip(outside, inside, strict=True)
    return variables, {tensor.op.name for source, tensor in pairs if id(source) in handles}


def _reached(graph: Any, sources: set[str]) -> set[str]:
    """Return the names of the operations that depend on ``sources``, themselves included."""
    reached = set(sources)
    # A graph lists an operation after those that it reads.
    for operation in graph.get_operations():
        if any(tensor.op.name in reached for tensor in operation.inputs):
            reached.add(operation.name)
    return reached
