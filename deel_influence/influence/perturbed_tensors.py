"""Which numbers of an example are moved: inputs of the model, or outputs of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from ..calculators.specs import inputs_spec
from ..errors import UnknownLayerError, UnsupportedModelError
from ..gradients.capture import TRACING, overlaid
from ..model.influence_model import BaseInfluenceModel
from ..model.keras_internals import all_layers, copy_keras_mask
from ..types import Batch

REMEDY = (
    "Name an input with input_name='...', or, where the model reads integers, a layer whose output "
    "is to be moved with layer='...', such as an Embedding."
)


@dataclass(frozen=True)
class PerturbedTensors:
    """The tensors of an example in which a derivative is taken.

    Attributes
    ----------
    model
        The wrapped model.
    inputs
        Names of inputs.
    layers
        Layers whose outputs are moved.
    asked_for
        Whether the user named the layers; others may turn out not to have a row per example.
    """

    model: BaseInfluenceModel
    inputs: tuple[str, ...]
    layers: tuple[keras.layers.Layer, ...]
    asked_for: bool

    def forward(
        self, batch: Batch, tape: tf.GradientTape
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Run the model on a batch, the moved tensors being watched; to be traced.

        Parameters
        ----------
        batch
            A batch of the dataset.
        tape
            A gradient tape that is recording.

        Returns
        -------
        The losses ``(b,)``, and the moved tensors ``(b, ...)`` by name.
        """
        model = self.model
        inputs, targets, sample_weight = model.process_batch_for_loss_fn(batch)
        names = [name for name, _ in named_leaves(inputs)]
        leaves = tf.nest.flatten(inputs)
        moved: dict[str, tf.Tensor] = {}
        for position, name in enumerate(names):
            if name in self.inputs:
                # Integers, such as the pixels of images, are moved as the numbers that they are.
                leaves[position] = _watched(_as_float(leaves[position], model.dtype), tape)
                moved[name] = leaves[position]
        with self._watched_layers(tape, moved):
            outputs = model(tf.nest.pack_sequence_as(inputs, leaves))
        losses = model.loss_function(targets, outputs, sample_weight)
        self._check_found(moved)
        return tf.cast(losses, model.dtype), moved

    def check_connected(self, gradients: dict[str, tf.Tensor | None]) -> None:
        """Refuse tensors on which no loss depends, from the gradients of the losses in them.

        Raises
        ------
        UnsupportedModelError
            If that is so for all of them.
        """
        if all(gradient is None for gradient in gradients.values()):
            message = (
                "The loss must depend smoothly on what is moved. Received: "
                f"{', '.join(map(repr, gradients))}, in which it has no derivative; are these read "
                f"as integers? {REMEDY}"
            )
            raise UnsupportedModelError(message)

    @contextmanager
    def _watched_layers(self, tape: tf.GradientTape, moved: dict[str, tf.Tensor]) -> Iterator[None]:
        """Let the tape watch what the layers return, and note it."""
        with TRACING, ExitStack() as stack:
            for layer in self.layers:
                call = self._watching(layer, tape, moved)
                stack.enter_context(overlaid(layer, "call", call))
            yield

    def _watching(
        self, layer: keras.layers.Layer, tape: tf.GradientTape, moved: dict[str, tf.Tensor]
    ) -> Callable[..., Any]:
        original = layer.call
        calls = 0

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            output = original(*args, **kwargs)
            if not self._has_rows(layer, output):
                return output
            watched = _watched(output, tape)
            copy_keras_mask(output, watched)
            moved[f"{layer.name}:{calls}" if calls else layer.name] = watched
            calls += 1
            return watched

        return call

    def _has_rows(self, layer: keras.layers.Layer, output: Any) -> bool:
        """Tell whether a layer gave one row of floats per example.

        A kernel does not know the size of its batch, so that a known one is that of something
        else: of positions that are looked up once for all examples, for instance.
        """
        is_tensor = isinstance(output, tf.Tensor) and output.dtype.is_floating
        if is_tensor and output.shape.rank and output.shape[0] is None:
            return True
        if self.asked_for:
            message = (
                "Argument `layer` must name a layer that returns one tensor of floats, a row for "
                f"each example. Received: {layer.name!r}, which returns "
                f"{getattr(output, 'shape', type(output).__name__)}."
            )
            raise UnsupportedModelError(message)
        return False

    def _check_found(self, moved: dict[str, tf.Tensor]) -> None:
        if not moved:
            names = [*self.inputs, *(layer.name for layer in self.layers)]
            message = (
                "What is moved must be part of a pass through the model. Received: "
                f"{names}, none of which is. {REMEDY}"
            )
            raise UnsupportedModelError(message)


def choose_perturbed(
    model: BaseInfluenceModel,
    dataset: tf.data.Dataset,
    input_name: str | int | None,
    layer: str | None,
) -> PerturbedTensors:
    """Return the tensors that the arguments name or, without any, all that can be moved.

    Those are the inputs that hold floats; and of integers the outputs of the Embedding layers or,
    in a model without such layers, the integers themselves, as images have them.

    Parameters
    ----------
    model
        The wrapped model.
    dataset
        A batched dataset, whose element spec tells the inputs.
    input_name
        Key or position of an input in the nest that the model takes.
    layer
        Name of a layer, whose output is moved.

    Raises
    ------
    ValueError
        If there is no such input, or none that holds numbers.
    UnknownLayerError
        If there is not one layer of that name.
    """
    dtypes = {
        name: spec.dtype
        for name, spec in named_leaves(inputs_spec(model, dataset))
        if isinstance(spec, tf.TensorSpec) and (spec.dtype.is_floating or spec.dtype.is_integer)
    }
    if input_name is not None or layer is not None:
        names = () if input_name is None else (_known_input(input_name, dtypes),)
        layers = () if layer is None else (_layer_named(model, layer),)
        return PerturbedTensors(model, names, layers, asked_for=True)
    embeddings = [x for x in all_layers(model.model) if isinstance(x, keras.layers.Embedding)]
    floats = tuple(name for name, dtype in dtypes.items() if dtype.is_floating)
    if len(floats) == len(dtypes):
        embeddings = []  # there are no indices to look up
    elif not embeddings:
        floats = tuple(dtypes)
    if not floats and not embeddings:
        message = (
            "Argument `model` must take numbers as inputs for them to be moved. Received: none "
            "that do. Name a layer whose output is to be moved: layer='...'."
        )
        raise ValueError(message)
    return PerturbedTensors(model, floats, tuple(embeddings), asked_for=False)


def named_leaves(nest: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Return the parts of a nest with their names, in the order of `tf.nest.flatten`.

    A name is a key or position, nested ones are joined by slashes; a single tensor is
    ``"inputs"``.
    """
    if isinstance(nest, dict):
        parts: Sequence[tuple[Any, Any]] = sorted(nest.items())
    elif isinstance(nest, (list, tuple)):
        parts = list(enumerate(nest))
    else:
        return [(prefix.rstrip("/") or "inputs", nest)]
    return [leaf for key, part in parts for leaf in named_leaves(part, f"{prefix}{key}/")]


def _known_input(input_name: str | int, dtypes: dict[str, tf.DType]) -> str:
    if str(input_name) not in dtypes:
        message = (
            f"Argument `input_name` must be one of {list(dtypes)}, an input of the model that "
            f"holds numbers. Received: {input_name!r}."
        )
        raise ValueError(message)
    return str(input_name)


def _layer_named(model: BaseInfluenceModel, name: str) -> keras.layers.Layer:
    found = [layer for layer in all_layers(model.model) if layer.name == name]
    if len(found) != 1:
        names = [layer.name for layer in all_layers(model.model)[1:]]
        message = (
            f"Argument `layer` must name one layer of the model, among {names}. Received: "
            f"{name!r}, the name of {len(found) or 'none'}."
        )
        raise UnknownLayerError(message)
    return found[0]


def _as_float(tensor: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    tensor = tf.convert_to_tensor(tensor)
    return tensor if tensor.dtype.is_floating else tf.cast(tensor, dtype)


def _watched(tensor: tf.Tensor, tape: tf.GradientTape) -> tf.Tensor:
    # A tensor of its own, which nothing else reads.
    tensor = tf.identity(tensor)
    tape.watch(tensor)
    return tensor
