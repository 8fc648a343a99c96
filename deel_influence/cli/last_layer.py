"""Ground truth that the command line makes itself: the last layer, trained again to the minimum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from ..datasets.source import DataSource
from ..errors import ConvergenceError
from ..evaluation.convex import ConvexTraining
from ..evaluation.ground_truth import GroundTruth
from ..evaluation.measures import QueryOutputs
from ..evaluation.retraining import retrain
from ..evaluation.subsets import leave_one_out, random_subsets
from ..model.fingerprint import model_fingerprint
from ..model.influence_model import InfluenceModel
from ..model.selection import find_layer
from ..trac_in.gradient_dot import GradientDot
from ..utils.digests import dataset_digest
from ..utils.records import Arrays, RecordKind, Settings
from .errors import CommandError, one_line
from .evaluation_settings import DEFAULT_L2, EvaluationSettings

LEAVE_ONE_OUT, HALF_DATA = "leave-one-out", "half-data"
"""The names of the truths, and of their files."""

LAST_LAYER = RecordKind("last layer", "Choose another --out, or delete it.")


class LastLayer:
    """The last layer of a model, on the features that the layers before it give.

    Training it is convex for the usual losses; the layers before it stay as they are. The model is
    one that the command loaded itself, so that it may be changed: its last layer is brought to the
    minimum, which is where influence is defined.

    Parameters
    ----------
    model
        The model, its loss and the watched weights.
    source
        The training set.
    queries
        The queries.
    settings
        What to retrain, with which penalty, and where to keep it.

    Raises
    ------
    CommandError
        If there is no such layer, or its training does not converge.
    """

    def __init__(
        self,
        model: InfluenceModel,
        source: DataSource,
        queries: DataSource,
        settings: EvaluationSettings,
    ) -> None:
        self._settings = settings
        self._folder = settings.out / "retraining"
        self._data = (source.dataset, queries.dataset)
        layer = _last_dense(model)
        network, loss = model.model, model.loss_function.loss
        before, head = _cut(network, layer)
        _regularise(layer, settings.l2)
        # Wrapped anew, now that it has a regulariser, which is all that the training below adds to
        # the mean of the losses.
        self.model = InfluenceModel(
            network, layer.name, loss_function=loss, weight_decay=0.0, regularizer_weight=1.0
        )
        self._described = {
            "model": model_fingerprint(self.model),
            "train_set": dataset_digest(source.dataset),
            "queries": dataset_digest(queries.dataset),
        }
        self._training = ConvexTraining(head, *_features(before, source.dataset), loss=loss)
        self._measure = QueryOutputs(*_features(before, queries.dataset), loss=loss)
        layer.set_weights(self._minimum())

    def truths(self) -> dict[str, GroundTruth]:
        """Retrain as the options ask for it, and keep the truths in files of their own."""
        settings, num_examples = self._settings, self._training.num_examples
        kept = {}
        if settings.leave_one_out is not None:
            kept[LEAVE_ONE_OUT] = leave_one_out(num_examples, self._chosen(settings.leave_one_out))
        if settings.subsets is not None:
            kept[HALF_DATA] = random_subsets(num_examples, settings.subsets, seed=settings.seed)
        truths = {name: self._retrained(mask) for name, mask in kept.items()}
        for name, truth in truths.items():
            truth.save(settings.out / f"{name}.npz")
        return truths

    def _minimum(self) -> list[np.ndarray]:
        """Return the weights of the layer trained on everything, from disk if they are there.

        Threads may add numbers up in another order, and a minimum that differs in its last digit
        would be another model to the files of an evaluation that goes on.
        """
        path = self._folder / "last_layer.npz"
        if path.exists():
            described, weights = LAST_LAYER.read(path, _parsed)
            different = [k for k in self._described if described.get(k) != self._described[k]]
            if different:
                message = (
                    "--out must be the folder of the same evaluation, or a new one. Received: "
                    f"{str(self._settings.out)!r}, whose retrainings have another "
                    f"{' and another '.join(different)}."
                )
                raise CommandError(message)
            return weights
        with _explained_convergence():
            trained = self._training.full().trainable_variables
        weights = [tf.convert_to_tensor(variable.value).numpy() for variable in trained]
        named = {f"weight_{i}": weight for i, weight in enumerate(weights)}
        LAST_LAYER.write(path, {"settings": self._described}, named)
        return weights

    def _retrained(self, kept: np.ndarray) -> GroundTruth:
        with _explained_convergence():
            return retrain(
                self._training,
                self._measure,
                kept,
                folder=self._folder,
                settings=self._described,
                verbose=self._settings.progress,
            )

    def _chosen(self, count: int) -> np.ndarray:
        """Return positions: half of the largest products of gradients, half at random."""
        train_set, queries = self._data
        products = GradientDot(self.model).influence_matrix(queries, train_set, verbose=0)
        order = np.argsort(-np.abs(products).mean(axis=0), kind="stable")
        largest, others = np.split(order, [(count + 1) // 2])
        generator = np.random.default_rng(self._settings.seed)
        return np.sort(np.append(largest, generator.permutation(others)[: count // 2]))


def _parsed(header: Settings, arrays: Arrays) -> tuple[Settings, list[np.ndarray]]:
    """Return what a last layer was trained on, and its weights."""
    return dict(header["settings"]), [arrays[f"weight_{i}"] for i in range(len(arrays))]


def _last_dense(model: InfluenceModel) -> keras.layers.Dense:
    """Return the last layer with weights, if it is a Dense layer that can be cut off.

    Raises
    ------
    CommandError
        Says what stands in the way.
    """
    network = model.model
    layer = find_layer(network, None)
    others = [w.path for w in model.weights if not any(w is own for own in layer.weights)]
    if others:
        message = (
            "--leave-one-out and --subsets train the last layer again, and --weights must name no "
            f"other. Received: {', '.join(others)}. Leave --weights out."
        )
        raise CommandError(message)
    # Others, subclassed models among them, have no tensors at which they could be cut.
    is_graph = len(getattr(network, "inputs", None) or ()) == len(network.outputs or ()) == 1
    if type(layer) is not keras.layers.Dense or not is_graph:
        message = (
            "--leave-one-out and --subsets need a sequential or functional model of one input, "
            f"whose last layer with weights is a Dense layer. Received: {type(network).__name__} "
            f"whose last one is {layer.name!r}, {type(layer).__name__}. Make the ground truth in "
            "Python with NetworkTraining, and pass it by --truth."
        )
        raise CommandError(message)
    return layer


def _cut(network: keras.Model, layer: keras.layers.Dense) -> tuple[keras.Model, keras.Model]:
    """Return the network up to a layer, and from it on, where there is nothing else to train.

    Raises
    ------
    CommandError
        If the layer is called several times, or not all of the way to the output leads through it.
    """
    reason = ""
    try:
        before, head = _parts(network, layer)
    except ValueError as error:  # what Keras says of a graph that lacks an input
        reason = f"which the output does not depend on alone ({one_line(error, 200)})"
    else:
        calls = {one["name"]: len(one["inbound_nodes"]) for one in head.get_config()["layers"]}
        if calls[layer.name] > 1:
            reason = f"which is called {calls[layer.name]} times"
        elif len(head.trainable_variables) > len(layer.trainable_variables):
            reason = "beside which there are others with weights to train"
    if reason:
        message = (
            "--leave-one-out and --subsets need a last layer that is called once, and through "
            f"which all others lead to the output. Received: {layer.name!r}, {reason}. Make the "
            "ground truth in Python with NetworkTraining, and pass it by --truth."
        )
        raise CommandError(message)
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
    """Give the layer a penalty, without which separable classes have no minimum.

    Raises
    ------
    CommandError
        If one is asked for, and the layer has its own.
    """
    if layer.kernel_regularizer is None:
        layer.kernel_regularizer = keras.regularizers.L2(DEFAULT_L2 if l2 is None else l2)
        # The layer has handed its regulariser over when it was built.
        layer.kernel.regularizer = layer.kernel_regularizer
    elif l2 is not None:
        message = (
            "--l2 is for layers without a regulariser. Received: --l2 "
            f"{l2:g}, and layer {layer.name!r} with {layer.kernel_regularizer.get_config()}. "
            "Leave it out."
        )
        raise CommandError(message)


def _features(before: keras.Model, dataset: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return what the layer gets for each example, and the labels."""
    parts = [(before(x, training=False).numpy(), y.numpy()) for x, y in dataset]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


@contextmanager
def _explained_convergence() -> Iterator[None]:
    """Say by which option the training of the body comes to a minimum."""
    try:
        yield
    except ConvergenceError as error:
        message = f"--l2 must be large enough for the last layer to have a minimum. {error}"
        raise CommandError(message) from error
