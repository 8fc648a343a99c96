"""The exact Shapley values of training examples for a nearest-neighbour classifier."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from ..calculators.described import PAIRS, SELF
from ..calculators.self_influence import SelfInfluenceCalculator
from ..errors import LabelError
from ..gradients.passes import Pass, query_and_train_passes
from ..linalg.checks import check_count
from ..linalg.eigen import blas_threads
from ..model.influence_model import BaseInfluenceModel
from ..model.selection import LayerKey
from ..types import Batch, Data, IdFunction
from .features import Features

Examples: TypeAlias = Sequence[np.ndarray]
"""Features ``(n, d)`` and labels ``(n,)``."""

Ranked: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Places of points, the farthest from the query first, and 1 where the label is the same, else 0:
int64 and int8, ``(m, n)``, or ``(m, n - 1)`` where one is left out."""

MAX_PAIRS = 2**19
"""Bound on the pairs of a query and a training example that are sorted at once: 4 MiB of keys,
which stay in the processor's cache."""

LARGEST = float(np.finfo(np.float64).max)


class KNNShapley(SelfInfluenceCalculator):
    """Value of training examples for the k nearest neighbours in the model's representation [1]_.

    The value of z_i for query z is its Shapley value in the game whose pay-off is the share of the
    k nearest neighbours of z, among a set of training examples, that have the label of z.
    Positive: z_i helps. The values of all n examples for a query add up to that share. The
    classifier stands in for the network, whose inputs to a layer are compared; no gradient is
    taken.

    `influence_matrix` gives the values for queries. `score` gives minus the mean value for
    `reference_set`, so that a high score makes an example suspicious.

    The features of the training set and of the queries are held in memory: ``(n + m) d`` numbers.
    Values depend on the whole training set, so that every call is given all of it.

    Parameters
    ----------
    model
        The wrapped model of a classifier.
    k
        The number of neighbours.
    layer
        Name or index of the layer whose inputs are compared; None takes the last one that has
        trainable weights.
    reference_set
        Examples with trusted labels, batched, for which `score` takes values. None takes the
        training set itself, where no example is its own neighbour.
    max_error
        0 gives exact values. Above, only the ``max(k, 1 / max_error)`` nearest examples of a query
        have a value and all others 0, and a value is off by `max_error` at most (theorem 2 of
        [1]_); nothing has to be sorted beyond these.

    Raises
    ------
    ValueError
        If ``k`` is no whole number of at least 1, or `max_error` not from 0 to 1.

    References
    ----------
    .. [1] R. Jia, D. Dao, B. Wang, F. A. Hubis, N. M. Gurel, B. Li, C. Zhang, C. J. Spanos,
       D. Song. Efficient Task-Specific Data Valuation for Nearest Neighbor Algorithms. VLDB 2019.
    """

    answers = frozenset({SELF, PAIRS})

    _eager_hooks = frozenset({"_self_scores"})
    scores_each_alone = False

    _needed_data = frozenset({"reference_set"})

    def __init__(
        self,
        model: BaseInfluenceModel,
        k: int = 5,
        layer: LayerKey = None,
        reference_set: Data | None = None,
        max_error: float = 0.0,
    ) -> None:
        super().__init__(model)
        self.k = check_count("k", k)
        self.max_error = max_error
        self._nearest = _neighbours_needed(k, max_error)
        self.reference_set = reference_set
        self._features = Features(model, layer)

    def influence_matrix(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        device: str | None = None,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Return the value of every training example for every query, shape ``(m, n)``.

        Parameters
        ----------
        dataset_to_evaluate
            The m queries, batched.
        train_set
            The n training examples, batched: all of them.
        device, verbose
            As for `score`.
        """
        passes = query_and_train_passes(
            self.engine, dataset_to_evaluate, train_set, None, device, verbose, "Features"
        )
        (*queries, _), (*train, _) = (self._read(data) for data in passes)
        parts = _ranked_in_parts(queries, train, False, self._nearest)
        rows = [_by_point(ranked, self.k, len(train[0])) for ranked in parts]
        return np.concatenate(rows).astype(self._dtype)

    def scored_batches(
        self,
        train_set: Data,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
    ) -> Iterator[tuple[Batch, np.ndarray, tf.Tensor]]:
        data = Pass(train_set, "train_set", "Features", id_fn, device, verbose)
        *train, known = self._read(data.checked(self.engine))
        if self.reference_set is None:
            scores = self._scores(train, train, leave_out_self=True)
        else:
            reference_data = Pass(self.reference_set, "reference_set", device=device)
            *reference, _ = self._read(reference_data.checked(self.engine))
            scores = self._scores(reference, train, leave_out_self=False)
        yield from self._handed_out(data, known, scores)

    def _self_scores(self, batch: Batch) -> tf.Tensor:
        """Return the scores of a batch that is the whole training set."""
        rows = self._features.of_batch(batch).numpy(), self._labels_of(batch).numpy()
        return tf.constant(self._scores(rows, rows, leave_out_self=True))

    def _scores(self, queries: Examples, train: Examples, leave_out_self: bool) -> np.ndarray:
        """Return minus the mean value over queries that are other examples, shape ``(n,)``."""
        total = np.zeros(len(train[0]))
        others = len(total) - leave_out_self
        for order, right in _ranked_in_parts(queries, train, leave_out_self, self._nearest):
            values = _values(right, self.k, order.shape[1] < others)
            total += np.bincount(order.ravel(), values.ravel(), minlength=len(total))
        return (-total / max(len(queries[0]) - leave_out_self, 1)).astype(self._dtype)

    def _read(self, data: Pass) -> list[np.ndarray]:
        """Return the features ``(n, d)``, labels ``(n,)`` and ids ``(n,)`` of a dataset."""
        computed = self._computed(data, self._features_and_labels, axis=0)
        parts = [(*(t.numpy() for t in found), item.ids) for item, found in computed]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _features_and_labels(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        return self._features.of_batch(batch), self._labels_of(batch)

    def _labels_of(self, batch: Batch) -> tf.Tensor:
        """Return the classes ``(b,)``, of indices or of one-hot rows."""
        targets = tf.convert_to_tensor(self.model.process_batch_for_loss_fn(batch)[1])
        if targets.shape.rank == 2 and targets.shape[1] != 1:
            # A row of several labels, or of tokens, is no class.
            check = tf.debugging.Assert(_are_one_hot(targets), ["labels must be one-hot rows"])
            with tf.control_dependencies([] if check is None else [check]):
                return tf.argmax(targets, axis=1)
        if targets.shape.rank not in (1, 2):
            message = (
                "Labels must be one class for each example, shape (b,), (b, 1) or one-hot (b, c). "
                f"Received: shape {targets.shape}."
            )
            raise LabelError(message)
        labels = tf.reshape(targets, (-1,))
        if targets.dtype.is_floating:
            whole = tf.reduce_all(labels == tf.round(labels))
            check = tf.debugging.Assert(whole, ["labels must be classes, which are whole numbers"])
            with tf.control_dependencies([] if check is None else [check]):
                labels = tf.identity(labels)
        return tf.cast(tf.round(labels), tf.int64)

    @property
    def _dtype(self) -> np.dtype:
        return self.model.dtype.as_numpy_dtype


def _are_one_hot(rows: tf.Tensor) -> tf.Tensor:
    """Tell whether every row has a single one and else zeros."""
    ones = tf.cast(rows == 1, tf.int32)
    zeros = tf.cast(rows == 0, tf.int32)
    count = tf.shape(rows)[1]
    single = tf.reduce_sum(ones, axis=1) == 1
    return tf.reduce_all(single & (tf.reduce_sum(zeros, axis=1) == count - 1))


def knn_shapley_values(
    distances: np.ndarray, same_label: np.ndarray, k: int, max_error: float = 0.0
) -> np.ndarray:
    """Return the Shapley values of n points for m queries, shape ``(m, n)``.

    With y_j whether the j-th nearest point has the query's label, ``s_n = y_n / max(n, k)`` and
    ``s_j = s_{j+1} + (y_j - y_{j+1}) / max(j, k)`` for j = n - 1, ..., 1.

    Parameters
    ----------
    distances
        At least 0, shape ``(m, n)``; equal ones stand in the order of the points.
    same_label
        Which points have the label of the query, shape ``(m, n)``, bool.
    k
        The number of neighbours.
    max_error
        See `KNNShapley`.

    Raises
    ------
    ValueError
        If a distance is below 0 or NaN, or another argument is out of its range.
    """
    distances = np.asarray(distances, np.float64)
    if not np.all(distances >= 0):
        message = (
            "Argument `distances` must hold numbers >= 0. Received: an array with "
            f"{np.sum(~(distances >= 0))} that are not. Pass norms of differences or their squares."
        )
        raise ValueError(message)
    nearest = _neighbours_needed(check_count("k", k), max_error)
    ranked = _ranked(distances, np.asarray(same_label, bool), None, nearest)
    return _by_point(ranked, k, distances.shape[1])


def _neighbours_needed(k: int, max_error: float) -> int | None:
    """Return how many neighbours of a query have a value, None for all."""
    if not (isinstance(max_error, numbers.Real) and 0 <= max_error <= 1):
        message = (
            "Argument `max_error` must be a number from 0, which is exact, to 1. Received: "
            f"max_error={max_error!r}."
        )
        raise ValueError(message)
    return max(k, math.ceil(1 / max_error)) if max_error else None


def _values(right: np.ndarray, k: int, is_part: bool) -> np.ndarray:
    """Return the Shapley values of points that stand in the order of their distance, ``(m, n)``.

    Parameters
    ----------
    right
        Whether the farthest, the second farthest, ... point has the query's label, ``(m, n)``.
    k
        The number of neighbours.
    is_part
        Whether there are points beyond. The farthest that is given then counts as 0, as they do.
    """
    steps = np.diff(right, axis=1, prepend=np.int8(0))
    steps[:, :1] *= not is_part
    values = steps / np.maximum(np.arange(right.shape[1], 0, -1), k)
    return np.cumsum(values, axis=1, out=values)


def _by_point(ranked: Ranked, k: int, n: int) -> np.ndarray:
    """Return the values in the order of the n points, ``(m, n)``."""
    order, right = ranked
    found = np.zeros((len(order), n))
    np.put_along_axis(found, order, _values(right, k, order.shape[1] < n), axis=1)
    return found


def _ranked_in_parts(
    queries: Examples, train: Examples, leave_out_self: bool, nearest: int | None
) -> Iterator[Ranked]:
    """Yield what `_ranked` gives for one part of the queries after another."""
    (rows, classes), (features, labels) = queries, train
    size = max(MAX_PAIRS // len(features), 1)
    points = _with_squares(features)
    points[:, :-2] *= -2
    for start in range(0, len(rows), size):
        part = _with_squares(rows[start : start + size])
        part[:, [-2, -1]] = part[:, [-1, -2]]  # what meets the squares of the points is one
        same = classes[start : start + size, None] == labels
        own = start + np.arange(len(same)) if leave_out_self else None
        with blas_threads(1):  # half as long as TensorFlow's product of float64
            distances = part @ points.T
        yield _ranked(distances, same, own, nearest)


def _with_squares(rows: np.ndarray) -> np.ndarray:
    """Return rows ``(m, d)`` in float64 with their squared norms and ones as two more columns."""
    rows = rows.astype(np.float64)
    squares = np.einsum("ij,ij->i", rows, rows)
    return np.column_stack([rows, squares, np.ones(len(rows))])


def _ranked(
    distances: np.ndarray, same_label: np.ndarray, own: np.ndarray | None, nearest: int | None
) -> Ranked:
    """Return which point is the farthest from each query, the next, ..., and whether it is right.

    Numbers are sorted several times as fast as numbers with their places. So a key is made of the
    first bits of minus the distance, the place of the point, and whether the point has the query's
    label. Where the first bits do not decide, all of them do.

    Parameters
    ----------
    distances
        float64, shape ``(m, n)``; of equal ones, the first point is the nearest. Those that
        rounding makes negative count by their magnitude.
    same_label
        bool, shape ``(m, n)``.
    own
        For each query a point that is left out, shape ``(m,)``.
    nearest
        How many of the nearest are returned; None for all.
    """
    n = distances.shape[1]
    low = (1 << n.bit_length() + 1) - 1
    keys = np.minimum(distances, LARGEST).view(np.int64)  # infinity has no bits to spare
    keys &= ~low
    keys |= np.arange(n) << 1 | np.iinfo(np.int64).min
    keys |= same_label
    if own is not None:
        np.put_along_axis(keys.view(np.float64), own[:, None], -LARGEST, axis=1)
    count = min(n - (own is not None), n if nearest is None else nearest)
    if nearest is not None:
        keys.view(np.float64).partition(n - count, axis=1)
        keys = keys[:, n - count :].copy()
    keys.view(np.float64).sort(axis=1)
    keys = keys[:, keys.shape[1] - count :]
    undecided = np.flatnonzero(((keys[:, 1:] ^ keys[:, :-1]) <= low).any(axis=1))
    order = keys & low
    right = (order & 1).astype(np.int8)
    order >>= 1
    if len(undecided):
        found = -np.abs(np.take_along_axis(distances[undecided], order[undecided], axis=1))
        again = np.argsort(found, axis=1, kind="stable")
        for ranked in (order, right):
            ranked[undecided] = np.take_along_axis(ranked[undecided], again, axis=1)
    return order, right
