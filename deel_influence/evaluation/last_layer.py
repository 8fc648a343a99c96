"""The last layer of a network alone: brought to its minimum, and trained again without examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import UnsupportedModelError
from ..model.copies import first_line
from ..model.fingerprint import model_fingerprint
from ..model.influence_model import InfluenceModel
from ..model.selection import find_layer
from ..trac_in.gradient_dot import GradientDot
from ..types import Data, Verbosity
from ..utils.datasets import check_dataset
from ..utils.digests import dataset_digest
from ..utils.order import check_fixed_order
from ..utils.records import Arrays, RecordKind, Settings, differing
from ..utils.takes_data import TakesData
from .convex import ConvexTraining
from .ground_truth import GroundTruth
from .measures import QueryOutputs
from .retraining import retrain
from .scores_folder import OtherScoresError

DEFAULT_L2 = 0.01

LAST_LAYER = RecordKind("last layer", "Choose another folder, or delete it.")


class LastLayer(TakesData):
    """The last Dense layer of a network, on the features that the layers before it give.

    Training it is convex for the usual losses; the layers before it stay as they are. The network
    that is passed is changed: its last layer is brought to the minimum, which is where influence is
    defined, and gets a regulariser if it has none.

    Parameters
    ----------
    model
        A sequential or functional network of one input, whose last layer with weights is a Dense
        layer. Layers without weights to train may follow.
    train_set
        The n training examples, batched.
    queries
        The m queries whose losses are measured, batched.
    l2
        λ of the term ``λ ‖W‖²``, without which separable classes have no minimum; None takes the
        regulariser of the layer, or 0.01 where it has none.
    loss
        A Keras loss, its name, or a callable; None takes the one that the model was compiled with.
    folder
        Where the minimum and each finished retraining are kept, as by `retrain`; None keeps
        nothing.

    Attributes
    ----------
    model
        The network at the minimum, wrapped, with its last layer watched: what calculators take.

    Raises
    ------
    ValueError, DatasetOrderError
        If the data are no batches ``(x, y)`` in a fixed order.
    UnsupportedModelError
        If the last layer cannot be trained alone, or has a regulariser beside ``l2``.
    ConvergenceError
        If the training does not converge.
    DataSourceError
        If the folder is one of another model or of other data.
    MissingExtraError
        If SciPy is not installed.
    """

    def __init__(
        self,
        model: keras.Model,
        train_set: Data,
        queries: Data,
        *,
        l2: float | None = None,
        loss: Any = None,
        folder: str | Path | None = None,
    ) -> None:
        layer = _last_dense(model)
        before, head = _cut(model, layer)
        _regularise(layer, l2)
        # Wrapped now that it has a regulariser, which is all that the training below adds to the
        # mean of the losses.
        self.model = InfluenceModel(
            model, layer.name, loss_function=loss, weight_decay=0.0, regularizer_weight=1.0
        )
        self._folder = None if folder is None else Path(folder)
        self._data = (train_set, queries)
        loss = self.model.loss_function.loss
        self._training = ConvexTraining(head, *_features(before, train_set, "train_set"), loss=loss)
        self._measure = QueryOutputs(*_features(before, queries, "queries"), loss=loss)
        self._settings = {
            "model": model_fingerprint(self.model),
            "train_set": dataset_digest(train_set),
            "queries": dataset_digest(queries),
        }
        layer.set_weights(self._minimum())

    def candidates(self, count: int, seed: int = 0) -> np.ndarray:
        """Return which examples to leave out one by one, positions ``(count,)``, ascending.

        Half of them have the largest products of gradients with the queries, and half are drawn.
        """
        train_set, queries = self._data
        products = GradientDot(self.model).influence_matrix(queries, train_set, verbose=0)
        order = np.argsort(-np.abs(products).mean(axis=0), kind="stable")
        largest, others = np.split(order, [(count + 1) // 2])
        generator = np.random.default_rng(seed)
        return np.sort(np.append(largest, generator.permutation(others)[: count // 2]))

    def retrain(self, kept: np.ndarray, verbose: Verbosity = "auto") -> GroundTruth:
        """Train the layer on each subset, mask ``(s, n)``, and measure the loss of each query.

        Raises
        ------
        ConvergenceError
            If a training does not converge.
        """
        return retrain(
            self._training,
            self._measure,
            kept,
            folder=self._folder,
            settings=self._settings,
            verbose=verbose,
        )

    def _minimum(self) -> list[np.ndarray]:
        """Return the weights of the layer trained on everything, from disk if they are there.

        Threads may add numbers up in another order, and a minimum that differs in its last digit
        would be another model to the files of an evaluation that goes on.
        """
        path = None if self._folder is None else self._folder / "last_layer.npz"
        if path is not None and path.exists():
            settings, weights = LAST_LAYER.read(path, _parsed)
            different = differing(settings, self._settings)
            if different:
                rule = "Argument `folder` must be the folder of the same retrainings, or a new one."
                received = f"{str(path)!r}, whose retrainings have another "
                received += " and another ".join(different)
                raise OtherScoresError(rule, received, LAST_LAYER.remedy)
            return weights
        trained = self._training.full().trainable_variables
        weights = [tf.convert_to_tensor(variable.value).numpy() for variable in trained]
        if path is not None:
            named = {f"weight_{i}": weight for i, weight in enumerate(weights)}
            LAST_LAYER.write(path, {"settings": self._settings}, named)
        return weights


def _parsed(header: Settings, arrays: Arrays) -> tuple[Settings, list[np.ndarray]]:
    """Return what a last layer was trained on, and its weights."""
    return dict(header["settings"]), [arrays[f"weight_{i}"] for i in range(len(arrays))]


def _last_dense(network: keras.Model) -> keras.layers.Dense:
    """Return the last layer with weights, if it is a Dense layer that can be cut off."""
    layer = find_layer(network, None)
    # Others, subclassed models among them, have no tensors at which they could be cut.
    is_graph = len(getattr(network, "inputs", None) or ()) == len(network.outputs or ()) == 1
    if type(layer) is not keras.layers.Dense or not is_graph:
        message = (
            "Argument `model` must be a sequential or functional model of one input, whose last "
            f"layer with weights is a Dense layer. Received: {type(network).__name__} whose last "
            f"one is {layer.name!r}, {type(layer).__name__}. Train it with NetworkTraining."
        )
        raise UnsupportedModelError(message)
    return layer


def _cut(network: keras.Model, layer: keras.layers.Dense) -> tuple[keras.Model, keras.Model]:
    """Return the network up to a layer, and from it on, where there is nothing else to train.

    Raises
    ------
    UnsupportedModelError
        If the layer is called several times, or not all of the way to the output leads through it.
    """
    reason = ""
    try:
        before, head = _parts(network, layer)
    except ValueError as error:  # what Keras says of a graph that lacks an input
        reason = f"which the output does not depend on alone ({first_line(error)})"
    else:
        calls = {one["name"]: len(one["inbound_nodes"]) for one in head.get_config()["layers"]}
        if calls[layer.name] > 1:
            reason = f"which is called {calls[layer.name]} times"
        elif len(head.trainable_variables) > len(layer.trainable_variables):
            reason = "beside which there are others with weights to train"
    if reason:
        message = (
            "Argument `model` must have a last layer that is called once, and through which all "
            f"others lead to the output. Received: {layer.name!r}, {reason}. Train it with "
            "NetworkTraining."
        )
        raise UnsupportedModelError(message)
    return before, head


def _parts(network: keras.Model, layer: keras.layers.Dense) -> tuple[keras.Model, keras.Model]:
    inputs = network.inputs[0]
    if not isinstance(network, keras.Sequential):
        return keras.Model(inputs, layer.input), keras.Model(layer.input, network.outputs[0])
    # One that was loaded has called its layers several times, and `layer.input` is the first of
    # their inputs, which the outputs no longer depend on.
    place = network.layers.index(layer)
    features = _called(network.layers[:place], inputs)
    entry = keras.Input(batch_shape=features.shape, dtype=features.dtype)
    head = keras.Model(entry, _called(network.layers[place:], entry))
    return keras.Model(inputs, features), head


def _called(layers: Sequence[keras.layers.Layer], tensor: keras.KerasTensor) -> keras.KerasTensor:
    for layer in layers:
        tensor = layer(tensor)
    return tensor


def _regularise(layer: keras.layers.Dense, l2: float | None) -> None:
    """Give the layer a penalty where it has none."""
    if layer.kernel_regularizer is None:
        layer.kernel_regularizer = keras.regularizers.L2(DEFAULT_L2 if l2 is None else l2)
        # The layer has handed its regulariser over when it was built.
        layer.kernel.regularizer = layer.kernel_regularizer
    elif l2 is not None:
        message = (
            f"Argument `l2` is for layers without a regulariser. Received: l2={l2:g}, and layer "
            f"{layer.name!r} with {layer.kernel_regularizer.get_config()}. Leave it out."
        )
        raise UnsupportedModelError(message)


def _features(
    before: keras.Model, dataset: tf.data.Dataset, argument: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the layer gets for each example, and the labels."""
    check_dataset(dataset, argument)
    check_fixed_order(dataset, argument)
    if not isinstance(dataset.element_spec, tuple) or len(dataset.element_spec) != 2:
        message = (
            f"Argument `{argument}` must yield batches (x, y), without sample weights. Received: "
            f"{dataset.element_spec}. Map it to (x, y)."
        )
        raise ValueError(message)
    parts = [(before(x, training=False).numpy(), y.numpy()) for x, y in dataset]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
