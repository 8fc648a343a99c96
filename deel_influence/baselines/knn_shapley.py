"""The exact Shapley values of training examples for a nearest-neighbour classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from ..calculators.described import PAIRS, SELF
from ..calculators.self_influence import SelfInfluenceCalculator
from ..errors import LabelError
from ..gradients.passes import Pass, query_and_train_passes
from ..linalg.checks import check_count
from ..model.influence_model import BaseInfluenceModel
from ..model.selection import LayerKey
from ..types import Batch, Data, IdFunction
from .features import Features

Examples: TypeAlias = Sequence[np.ndarray]
"""Features ``(n, d)`` and labels ``(n,)``."""

MAX_PAIRS = 2**19
"""Bound on the pairs of a query and a training example that are sorted at once: 4 MiB of keys,
which stay in the processor's cache."""


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

    Raises
    ------
    ValueError
        If ``k`` is no whole number of at least 1.

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
    ) -> None:
        super().__init__(model)
        self.k = check_count("k", k)
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
        parts = _ranked_in_parts(queries, train, leave_out_self=False)
        rows = [_by_point(order, values_by_rank(right, self.k)) for order, right in parts]
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
        for order, right in _ranked_in_parts(queries, train, leave_out_self):
            values = values_by_rank(right, self.k)
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


def knn_shapley_values(distances: np.ndarray, same_label: np.ndarray, k: int) -> np.ndarray:
    """Return the Shapley values of n points for m queries, shape ``(m, n)``.

    Parameters
    ----------
    distances
        Shape ``(m, n)``; equal ones stand in the order of the points.
    same_label
        Which points have the label of the query, shape ``(m, n)``, bool.
    k
        The number of neighbours.
    """
    order, right = _ranked(np.asarray(distances, np.float64), np.asarray(same_label, bool))
    return _by_point(order, values_by_rank(right, k))


def values_by_rank(right: np.ndarray, k: int) -> np.ndarray:
    """Return the Shapley values of the nearest point to each query, the second, ..., ``(m, n)``.

    With y_j whether the j-th has the query's label, ``s_n = y_n / max(n, k)`` and
    ``s_j = s_{j+1} + (y_j - y_{j+1}) min(k, j) / (k j)`` for j = n - 1, ..., 1.

    Parameters
    ----------
    right
        y as 0 and 1, shape ``(m, n)``.
    k
        The number of neighbours.
    """
    ranks = np.arange(1, right.shape[1] + 1)
    steps = right.astype(np.float64)
    steps[:, :-1] -= steps[:, 1:]
    steps *= np.minimum(k, ranks) / (k * ranks)  # the last is 1 / max(n, k)
    return steps[:, ::-1].cumsum(axis=1)[:, ::-1]


def _by_point(order: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return values that are in the order of distance in that of the points, ``(m, n)``."""
    found = np.empty_like(values)
    np.put_along_axis(found, order, values, axis=1)
    return found


def _ranked_in_parts(
    queries: Examples, train: Examples, leave_out_self: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield what `_ranked` gives for one part of the queries after another."""
    (rows, classes), (features, labels) = queries, train
    size = max(MAX_PAIRS // len(features), 1)
    points = tf.constant(features, tf.float64)
    squares = tf.reduce_sum(tf.square(points), axis=1)
    for start in range(0, len(rows), size):
        part = tf.constant(rows[start : start + size], tf.float64)
        # The norm of the query itself, left out, does not change the order.
        distances = (squares - 2 * tf.matmul(part, points, transpose_b=True)).numpy()
        same = classes[start : start + size, None] == labels
        own = start + np.arange(len(same)) if leave_out_self else None
        yield _ranked(distances, same, own)


def _ranked(
    distances: np.ndarray, same_label: np.ndarray, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return which point is the nearest to each query, the second, ..., and whether it is right.

    Whole numbers are sorted several times as fast as distances with their places. So a key is
    made of the first bits of a distance, the place of the point, and whether the point has the
    query's label. Where the first bits do not decide, all of them do.

    Parameters
    ----------
    distances
        float64, shape ``(m, n)``; equal ones stand in the order of the points.
    same_label
        bool, shape ``(m, n)``.
    own
        For each query a point that is left out, shape ``(m,)``.

    Returns
    -------
    Places of the points, and 1 where the label is the same, both int64, ``(m, n)``, or
    ``(m, n - 1)`` where one is left out.
    """
    n = distances.shape[1]
    positive = np.iinfo(np.int64).max
    low = (1 << n.bit_length() + 1) - 1
    keys = (distances + 0.0).view(np.int64)  # -0.0 + 0.0 is 0.0
    keys ^= (keys >> 63) & positive  # the larger the bits of a negative number, the lower it is
    keys &= ~low
    keys |= np.arange(n) << 1
    keys |= same_label
    if own is not None:
        keys[np.arange(len(keys)), own] = positive
    keys.sort(axis=1)
    keys = keys if own is None else keys[:, :-1]
    differing = (keys[:, 1:] ^ keys[:, :-1]).view(np.uint64)
    undecided = np.flatnonzero((differing <= low).any(axis=1))
    order, right = (keys & low) >> 1, keys & 1
    if len(undecided):
        found = np.take_along_axis(distances[undecided], order[undecided], axis=1)
        again = np.argsort(found, axis=1, kind="stable")
        for ranked in (order, right):
            ranked[undecided] = np.take_along_axis(ranked[undecided], again, axis=1)
    return order, right
