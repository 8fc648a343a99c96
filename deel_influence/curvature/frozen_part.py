"""The frozen part of a model: computing its outputs, and running the model from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf

from ..errors import UnsupportedModelError
from ..gradients.capture import TRACING, overlaid
from ..model.influence_model import BaseInfluenceModel
from ..types import Batch
from ..utils.kernels import Kernel
from .frozen_calls import LayerCall, recorded_calls


@dataclass(frozen=True)
class KeptOutput:
    """What stands for one output of a call that is replaced.

    Attributes
    ----------
    feature
        The index of the feature that it is, or None where nothing reads its values.
    shape
        Its shape without the batch axis.
    dtype
        Its dtype.
    """

    feature: int | None
    shape: tuple[int, ...]
    dtype: tf.DType

    @property
    def num_bytes(self) -> int:
        """The memory that it takes for one example."""
        return math.prod(self.shape) * self.dtype.size


@dataclass(frozen=True)
class FeatureSource:
    """Where a feature is found in a run of the model.

    Attributes
    ----------
    layer, number, position
        It is the output at that position of that call of the layer, both counted from 0.
    kept
        What it is.
    """

    layer: keras.layers.Layer
    number: int
    position: int
    kept: KeptOutput


@dataclass(frozen=True, eq=False)
class Script:
    """What the calls of one layer return when the frozen part is replayed.

    Attributes
    ----------
    layer
        The layer.
    outputs
        For each call in order, a nest of `KeptOutput`, or None if the layer itself is run.
    """

    layer: keras.layers.Layer
    outputs: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class FrozenPart:
    """What a model computes whatever the watched weights are; made by `find_frozen_part`.

    The features ``(b, ...)`` are tensors that layers return: those from which the rest of the
    model, and so the losses, can be computed. They hold as long as no weight of the model changes.

    Attributes
    ----------
    model
        The wrapped model.
    sources
        Where each feature comes from.
    scripts
        What is returned in place of the frozen calls.
    """

    model: BaseInfluenceModel
    sources: tuple[FeatureSource, ...]
    scripts: tuple[Script, ...]

    @property
    def layers(self) -> list[str]:
        """The names of the layers that give the features."""
        return list(dict.fromkeys(source.layer.name for source in self.sources))

    @property
    def bytes_per_example(self) -> int:
        """The memory that the features of one example take."""
        return sum(source.kept.num_bytes for source in self.sources)

    def compute(self, batch: Batch) -> tuple[tf.Tensor, ...]:
        """Return the features ``(b, ...)`` of a batch of the dataset."""
        return self._kernel(batch)

    @cached_property
    def _kernel(self) -> Kernel:
        # Compiled, the layers after the frozen part are left out, as nothing reads what they give.
        return Kernel(self._compute)

    def _compute(self, batch: Batch) -> tuple[tf.Tensor, ...]:
        inputs = self.model.process_batch_for_loss_fn(batch)[0]
        calls: list[LayerCall] = []
        layers = {id(source.layer): source.layer for source in self.sources}
        with TRACING, recorded_calls(layers.values(), calls):
            self.model(inputs)
        made = {(id(call.layer), call.number): call.tensors for call in calls}
        return tuple(made[id(s.layer), s.number][s.position] for s in self.sources)

    @contextmanager
    def replayed(self, features: Sequence[tf.Tensor]) -> Iterator[None]:
        """Let the model run from the features of a batch instead of computing them.

        Inside, the model gives the losses of that whole batch, and derivatives in the watched
        weights; the frozen layers are not even built. The batch itself is still its argument,
        because later layers, masks and losses may read it. Examples may be taken out of the batch
        if the same rows are taken out of the features.

        Parameters
        ----------
        features
            What `compute` returned for the batch.

        Raises
        ------
        ValueError
            If these are not as many features as the frozen part has.
        """
        if len(features) != len(self.sources):
            message = (
                f"Argument `features` must hold {len(self.sources)} tensors, the outputs of the "
                f"layers {self.layers}. Received: {len(features)}. Pass what `compute` returned."
            )
            raise ValueError(message)
        run = _Run(features)
        with TRACING, ExitStack() as stack:
            for script in self.scripts:
                stack.enter_context(overlaid(script.layer, "call", run.scripted(script)))
            model = self.model.model
            stack.enter_context(overlaid(model, "call", run.started(model.call)))
            yield


class _Run:
    """The state of replaying: how often each layer has been called in this run of the model."""

    def __init__(self, features: Sequence[tf.Tensor]) -> None:
        self._features = features
        self._active = False
        self._counts: dict[int, int] = {}

    def started(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return the model's `call` with the counts reset before it."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self._counts = {}
            self._active = True
            try:
                return original(*args, **kwargs)
            finally:
                self._active = False

        return call

    def scripted(self, script: Script) -> Callable[..., Any]:
        """Return the `call` of a layer that follows its script."""
        layer, original = script.layer, script.layer.call

        def call(*args: Any, **kwargs: Any) -> Any:
            # Outside a run, when a backward pass repeats a piece of the model, for instance, the
            # layer's own answer is as good, and the numbers of the calls mean nothing.
            if not self._active:
                return original(*args, **kwargs)
            number = self._counts.get(id(layer), 0)
            self._counts[id(layer)] = number + 1
            if number >= len(script.outputs):
                message = (
                    f"Layer {layer.name!r} must be called {len(script.outputs)} times in a run, "
                    "as when its frozen part was found. Received: one more call. Run the whole "
                    "model instead."
                )
                raise UnsupportedModelError(message)
            if script.outputs[number] is None:
                return original(*args, **kwargs)
            return tf.nest.map_structure(self._value, script.outputs[number])

        return call

    def _value(self, kept: KeptOutput) -> tf.Tensor:
        if kept.feature is None:
            rows = tf.shape(self._features[0])[0]
            return tf.zeros((rows, *kept.shape), kept.dtype)
        # A tensor of its own, because Keras writes masks on what layers return.
        return tf.identity(self._features[kept.feature])
