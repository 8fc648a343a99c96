"""A model with chosen weights, a calculator with known scores, and ready-made triages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_influence.labels import LabelIssues
from deel_influence.model.influence_model import InfluenceModel
from deel_influence.report.triage import Triage
from deel_influence.utils.datasets import numbered_batches


class KnownScores:
    """A calculator whose score of an example is a known function of its batch."""

    def __init__(self, score: Callable[..., tf.Tensor]) -> None:
        self.score = score

    def scored_batches(self, train_set: tf.data.Dataset, verbose: str | int = 0) -> Iterator[tuple]:
        for batch, ids in numbered_batches(train_set, argument="dataset"):
            yield batch, ids, self.score(*batch)


def linear_model(weights: np.ndarray, loss: Any, **kwargs: Any) -> InfluenceModel:
    """A linear model with weights ``(d, c)`` and no bias."""
    model = keras.Sequential(
        [keras.Input((weights.shape[0],)), keras.layers.Dense(weights.shape[1], use_bias=False)]
    )
    model.set_weights([weights])
    return InfluenceModel(model, loss_function=loss, **kwargs)


def make_triage(
    labels: np.ndarray, scores: np.ndarray, predicted: np.ndarray | None = None
) -> Triage:
    """A triage with losses that fall where the ids rise, and ids that are not positions."""
    count = len(labels)
    return Triage(
        ids=np.arange(count) + 1000,
        labels=np.asarray(labels),
        predicted=np.asarray(labels if predicted is None else predicted),
        losses=np.linspace(2.0, 0.5, count),
        scores=np.asarray(scores, float),
        ranks=np.argsort(np.argsort(-np.asarray(scores), kind="stable")) + 1,
    )


def make_issues(triage: Triage, suspicion: np.ndarray, **columns: Any) -> LabelIssues:
    """Label issues of a triage, that suggest the next of three classes; two labels are wrong."""
    count = len(triage)
    order = np.argsort(-np.asarray(suspicion), kind="stable")
    known = {
        "ids": triage.ids,
        "labels": triage.labels,
        "suggested": (triage.labels + 1) % 3,
        "given_probability": np.full(count, 0.25),
        "suggested_probability": np.full(count, 0.5),
        "suspicion": np.asarray(suspicion, float),
        "is_issue": np.isin(np.arange(count), order[:2]),
        "outlier_score": np.linspace(0, 1, count),
        "duplicate_of": np.full(count, None),
        "neighbours": triage.ids[(np.arange(count)[:, None] + np.arange(1, 6)) % count],
        "signals": {"head": np.asarray(suspicion, float)},
        "class_names": triage.class_names,
        "estimated_number": 2,
        "interval": (1, 4),
    }
    return LabelIssues(**{**known, **columns})


class KnownInfluence:
    """A calculator whose influence of example j on example i is entry (i, j) of a matrix.

    The examples are known by the first number of their input, their position.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = matrix

    def influence_matrix(self, queries: tf.data.Dataset, train_set: tf.data.Dataset) -> np.ndarray:
        rows = [x.numpy().reshape(len(x), -1)[:, 0] for x, _ in queries]
        columns = [x.numpy().reshape(len(x), -1)[:, 0] for x, _ in train_set]
        return self.matrix[np.ix_(*(np.concatenate(p).astype(int) for p in (rows, columns)))]


def batches(*arrays: np.ndarray, batch_size: int = 4) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size)


class CountedPasses:
    """A dataset of batches that counts how many were read."""

    def __init__(self, *arrays: np.ndarray, batch_size: int = 4) -> None:
        self.num_read = 0
        self._arrays = arrays
        self._batch_size = batch_size
        signature = tuple(tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in arrays)
        self.dataset = tf.data.Dataset.from_generator(self._read, output_signature=signature)

    def _read(self) -> Any:
        for start in range(0, len(self._arrays[0]), self._batch_size):
            self.num_read += 1
            yield tuple(a[start : start + self._batch_size] for a in self._arrays)
