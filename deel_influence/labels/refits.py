"""Training anew on all folds of the examples but one, for what each model says of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import NonFiniteError
from ..linalg.checks import check_count
from ..model.acceptance import check_compiled
from ..model.class_scores import ClassReader
from ..model.influence_model import BaseInfluenceModel
from ..model.reading import default_process_batch
from ..report.labels import read_labels
from ..types import Data, IdFunction, Verbosity
from ..utils.datasets import check_dataset, numbered_batches
from ..utils.example_ids import check_unique
from ..utils.files import npz_path
from ..utils.progress import progress_bar
from ..utils.records import RecordKind
from ..utils.seeding import seeded
from ..utils.takes_data import takes_data
from .head import stratified_folds
from .reading import check_classes, losses_of, margins_of

CROSS_FIT = RecordKind("cross-fit", "Train again with `cross_fit`.")

PREDICTED_AT_ONCE = 512
_ARRAYS = (
    "ids",
    "labels",
    "folds",
    "held_out",
    "held_out_losses",
    "in_sample",
    "in_sample_margins",
)


@dataclass(frozen=True, eq=False)
class CrossFit:
    """What K models, each trained without one fold, said of n examples, averaged over the epochs.

    Attributes
    ----------
    ids
        int64 or texts, shape ``(n,)``.
    labels
        Given classes, int64, shape ``(n,)``.
    folds
        Which model has not seen the example, from 0, shape ``(n,)``.
    held_out
        Mean probabilities of that model, shape ``(n, c)``.
    held_out_losses
        The mean of its ``-log π_y``, shape ``(n,)``.
    in_sample
        Mean probabilities of the other models, shape ``(n, c)``.
    in_sample_margins
        The mean of their ``log π_y - max_{j≠y} log π_j``, shape ``(n,)``.
    """

    ids: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    held_out: np.ndarray
    held_out_losses: np.ndarray
    in_sample: np.ndarray
    in_sample_margins: np.ndarray

    def __len__(self) -> int:
        """Return n."""
        return len(self.ids)

    def __repr__(self) -> str:
        """Tell how many examples and models there are."""
        return f"<CrossFit of {len(self)} examples, {len(np.unique(self.folds))} models>"

    def of(self, ids: np.ndarray, labels: np.ndarray) -> CrossFit:
        """Return it for examples ``(m,)`` in their order.

        Raises
        ------
        ValueError
            If some have not been trained on, or have other labels.
        """
        if self.ids.dtype.kind == ids.dtype.kind:
            order = np.argsort(self.ids, kind="stable")
            places = np.searchsorted(self.ids[order], ids)
            found = order[np.minimum(places, len(order) - 1)]
            missing = self.ids[found] != ids
        else:  # texts beside integers
            found, missing = np.zeros(len(ids), np.int64), np.ones(len(ids), bool)
        other = ~missing & (self.labels[found] != labels)
        if missing.any() or other.any():
            first = ids[missing | other][0].item()
            message = (
                "Argument `cross_fit` must be of the same examples and labels. Received: "
                f"{int(missing.sum())} examples that it has not, and {int(other.sum())} with "
                f"another label, such as id {first!r}. Train again with `cross_fit` on these data."
            )
            raise ValueError(message)
        return replace(self, **{name: getattr(self, name)[found] for name in _ARRAYS})

    def save(self, path: str | Path) -> Path:
        """Write it to an ``.npz`` file, which appears whole or not at all."""
        return CROSS_FIT.write(npz_path(path), {}, {n: getattr(self, n) for n in _ARRAYS})

    @classmethod
    def load(cls, path: str | Path) -> CrossFit:
        """Read what `save` wrote.

        Raises
        ------
        DataSourceError
            If the file is missing, damaged, or holds no cross-fit.
        """
        return CROSS_FIT.read(npz_path(path), lambda _, found: cls(*(found[n] for n in _ARRAYS)))


@takes_data
def cross_fit(
    build: Callable[[], keras.Model],
    data: Data,
    folds: int = 5,
    *,
    epochs: int,
    batch_size: int = 32,
    seed: int = 0,
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
    means = EpochMeans(labels, num_classes, stratified_folds(labels, count, seed), count)
    for fold in progress_bar(range(count), "Cross-fit", count, verbose, "model"):
        rows = np.flatnonzero(means.folds != fold)
        with seeded(seed * count + fold):
            model = check_compiled(build(), "build")
            model.fit(
                _rows(x, rows),
                _rows(y, rows),
                sample_weight=None if weights is None else weights[rows],
                epochs=epochs,
                batch_size=batch_size,
                verbose=0,
                callbacks=[_AfterEpochs(model, x, partial(means.add, fold))],
            )
    return means.finished(ids, epochs)


class EpochMeans:
    """What models say after each epoch, summed up.

    Parameters
    ----------
    labels
        Given classes, int64, shape ``(n,)``.
    num_classes
        The number c of classes.
    folds
        Which model has not seen the example, from 0, shape ``(n,)``.
    num_folds
        The number of models.
    """

    def __init__(
        self, labels: np.ndarray, num_classes: int, folds: np.ndarray, num_folds: int
    ) -> None:
        self.labels, self.folds, self.num_folds = labels, folds, num_folds
        self._held_out, self._in_sample = np.zeros((2, len(labels), num_classes))
        self._losses, self._margins = np.zeros((2, len(labels)))

    def add(self, fold: int, log_probabilities: np.ndarray) -> None:
        """Add what the model of a fold says after an epoch, shape ``(n, c)``.

        Raises
        ------
        NonFiniteError
            If some of it is NaN.
        """
        if not np.isfinite(log_probabilities).all():
            message = (
                "A training must end with finite outputs. Received: NaN or infinity from the model "
                f"without fold {fold}. Lower the learning rate, or clip the gradients."
            )
            raise NonFiniteError(message)
        held_out = self.folds == fold
        probabilities = np.exp(log_probabilities)
        self._held_out[held_out] += probabilities[held_out]
        self._in_sample[~held_out] += probabilities[~held_out]
        self._losses[held_out] += losses_of(log_probabilities, self.labels)[held_out]
        self._margins[~held_out] += margins_of(log_probabilities, self.labels)[~held_out]

    def finished(self, ids: np.ndarray, epochs: int) -> CrossFit:
        """Return the means."""
        others = epochs * (self.num_folds - 1)
        return CrossFit(
            ids,
            self.labels,
            self.folds,
            self._held_out / epochs,
            self._losses / epochs,
            self._in_sample / others,
            self._margins / others,
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
    num_classes = int(predictor.scores().shape[1])
    loss = predictor.wrapped.loss_function.loss
    labels, _ = read_labels(y, predictor.outputs(), loss, predictor.reader.from_logits)
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
