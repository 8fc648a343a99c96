"""Training anew on all folds of the examples but one, for what each model says of the others."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..linalg.checks import check_count
from ..model.acceptance import check_compiled
from ..model.class_scores import ClassReader
from ..model.computations import describe
from ..model.influence_model import BaseInfluenceModel
from ..model.reading import default_process_batch
from ..report.labels import read_labels
from ..types import Data, IdFunction, Verbosity
from ..utils.datasets import check_dataset, numbered_batches
from ..utils.digests import array_digest, settings_digest
from ..utils.example_ids import check_unique
from ..utils.progress import progress_bar
from ..utils.records import Settings
from ..utils.seeding import seeded
from ..utils.takes_data import takes_data
from .head import stratified_folds
from .held_out import CrossFit, EpochMeans, EpochSums
from .reading import check_classes

PREDICTED_AT_ONCE = 512


@takes_data
def cross_fit(
    build: Callable[[], keras.Model],
    data: Data,
    folds: int = 5,
    *,
    epochs: int,
    batch_size: int = 32,
    seed: int = 0,
    path: str | os.PathLike[str] | None = None,
    id_fn: IdFunction | None = None,
    verbose: Verbosity = "auto",
) -> CrossFit:
    """Train K models, each on all folds but one, and keep what they say after each epoch.

    The inputs are held in memory. On one machine, the same arguments give the same numbers.

    Parameters
    ----------
    build
        Returns a new, compiled model of a classifier each time. It is called and trained with all
        generators seeded.
    data
        The n training examples, ``(x, y)`` or ``(x, y, sample_weight)``, in a fixed order.
    folds
        The number K of models, from 2 to n.
    epochs, batch_size
        As for `fit`. As many epochs as the model that is looked at had is a good choice.
    seed
        Fixes the folds, which all have their share of each class, the weights and the orders.
    path
        A folder where what each model says is written once it is trained. Called again with the
        same arguments, a run that was cut off goes on where it stopped. None keeps nothing.
    id_fn
        As for `SelfInfluenceCalculator.score`.
    verbose
        As in Keras.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    UnsupportedModelError
        If ``build`` returns no compiled classifier with one label for each example.
    LabelError
        If the labels are no classes of the model.
    NonFiniteError
        If a model gives NaN or infinity after an epoch.
    DataSourceError
        If the folder holds models of other data or arguments, or a damaged file.
    """
    check_dataset(data, "data")
    ids, x, y, weights = _read_all(data, id_fn)
    count = check_count("folds", folds, 2)
    if count > len(ids):
        message = (
            f"Argument `folds` must be at most the number of examples, {len(ids)}. Received: "
            f"folds={count}."
        )
        raise ValueError(message)
    epochs, batch_size = check_count("epochs", epochs), check_count("batch_size", batch_size)
    with seeded(seed):
        labels, num_classes = _labels_for(check_compiled(build(), "build"), x, y)
    training = _Training(build, x, y, weights, epochs, batch_size)
    settings: Settings = {"folds": count, "epochs": epochs, "batch_size": batch_size, "seed": seed}
    settings |= {} if path is None else training.digests(ids)
    means = EpochMeans(labels, stratified_folds(labels, count, seed), count, num_classes)
    for fold in progress_bar(range(count), "Cross-fit", count, verbose, "model"):
        sums = EpochSums(labels, num_classes, fold)
        file = None if path is None else Path(path) / f"fold_{fold}.npz"
        if file is not None and file.exists():
            sums.read(file, settings)
        else:
            with seeded(seed * count + fold):
                training.run(np.flatnonzero(means.folds != fold), sums)
            if file is not None:
                sums.write(file, settings)
        means.add(sums)
    return means.finished(ids, epochs)


@dataclass(frozen=True)
class _Training:
    """Data in memory, and how a model is trained on a part of them."""

    build: Callable[[], keras.Model]
    x: Any
    y: Any
    weights: np.ndarray | None
    epochs: int
    batch_size: int

    def digests(self, ids: np.ndarray) -> Settings:
        """Return what tells data and models from others."""
        parts = tf.nest.flatten((ids, self.x, self.y, self.weights))
        data = array_digest(*(part for part in parts if part is not None))
        return {"data": data, "build": settings_digest(describe(self.build))}

    def run(self, rows: np.ndarray, sums: EpochSums) -> None:
        """Train a new model on some rows, and add what it says of all."""
        model = check_compiled(self.build(), "build")
        model.fit(
            _rows(self.x, rows),
            _rows(self.y, rows),
            sample_weight=None if self.weights is None else self.weights[rows],
            epochs=self.epochs,
            batch_size=self.batch_size,
            verbose=0,
            callbacks=[_AfterEpochs(model, self.x, sums.add)],
        )


class _Predictor:
    """What a model says of examples, in inference mode."""

    def __init__(self, model: keras.Model, x: Any) -> None:
        self.wrapped = BaseInfluenceModel(model)
        self.reader = ClassReader(self.wrapped)
        self._x = x
        self._compiled = tf.function(lambda batch: model(batch, training=False), autograph=False)

    def outputs(self) -> tf.Tensor:
        """Return the outputs, shape ``(n, ...)``."""
        n = len(tf.nest.flatten(self._x)[0])
        starts = range(0, n, PREDICTED_AT_ONCE)
        parts = [self._compiled(_rows(self._x, slice(s, s + PREDICTED_AT_ONCE))) for s in starts]
        return tf.concat(parts, axis=0)

    def scores(self) -> tf.Tensor:
        """Return the classes' scores, float64, shape ``(n, c)``."""
        return tf.cast(self.reader.scores(self.outputs()), tf.float64)


class _AfterEpochs(keras.callbacks.Callback):
    """Hand over logarithms of probabilities ``(n, c)`` after each epoch."""

    def __init__(self, model: keras.Model, x: Any, take: Callable[[np.ndarray], None]) -> None:
        super().__init__()
        self._predictor, self._take = _Predictor(model, x), take

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Predict all examples."""
        self._take(tf.nn.log_softmax(self._predictor.scores()).numpy())


def _labels_for(model: keras.Model, x: Any, y: Any) -> tuple[np.ndarray, int]:
    """Return the classes ``(n,)``, and how many the model knows."""
    predictor = _Predictor(model, x)
    outputs, loss = predictor.outputs(), predictor.wrapped.loss_function.loss
    num_classes = int(predictor.reader.scores(outputs).shape[1])
    labels, _ = read_labels(y, outputs, loss, predictor.reader.from_logits)
    return check_classes(labels, num_classes), num_classes


def _read_all(data: tf.data.Dataset, id_fn: IdFunction | None) -> tuple[np.ndarray, Any, Any, Any]:
    """Return ids, inputs, labels and sample weights, or None, of all examples."""
    batches, ids = [], []
    for batch, found in numbered_batches(data, id_fn, "data"):
        batches.append(default_process_batch(batch))
        ids.append(found)
    x, y, weights = tf.nest.map_structure(_joined, *batches)
    return check_unique(np.concatenate(ids), "data"), x, y, weights


def _joined(*parts: Any) -> Any:
    return None if parts[0] is None else np.concatenate(parts)


def _rows(nest: Any, rows: Any) -> Any:
    return tf.nest.map_structure(lambda part: part[rows], nest)
