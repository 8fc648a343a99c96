"""Streaming top-k that merges in any order into the same answer."""

from __future__ import annotations

from enum import Enum

import numpy as np


class ORDER(Enum):
    """Which end of the scores comes first."""

    ASCENDING = 1
    DESCENDING = 2


def check_order(order: object) -> ORDER:
    """Return ``order`` as an `ORDER`; the names of its members are accepted too.

    Raises
    ------
    ValueError
        For anything else.
    """
    if isinstance(order, ORDER):
        return order
    if isinstance(order, str) and order.upper() in ORDER.__members__:
        return ORDER[order.upper()]
    message = f"Argument `order` must be ORDER.DESCENDING or ORDER.ASCENDING. Received: {order!r}."
    raise ValueError(message)


def check_k(k: object) -> int:
    """Return ``k`` if it is an integer of at least one.

    Raises
    ------
    ValueError
        For anything else.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        message = f"Argument `k` must be an integer of at least 1. Received: k={k!r}."
        raise ValueError(message)
    return int(k)


class BatchSort:
    """Keep the k best of a stream of scores, for each of m rows.

    Ties go to the smaller id, so that the result depends neither on the order of the batches nor
    on how they were cut, and the results of shards merge by `add` into that of the whole.

    Parameters
    ----------
    num_rows
        Number m of independent lists, one for each query.
    k
        How many to keep; fewer come back where fewer were added.
    order
        `ORDER.DESCENDING` keeps the largest, largest first.
    """

    def __init__(self, num_rows: int, k: int, order: ORDER = ORDER.DESCENDING) -> None:
        self.k = check_k(k)
        self.order = check_order(order)
        self._values = np.empty((num_rows, 0))
        self._ids: np.ndarray | None = None

    def add(self, values: np.ndarray, ids: np.ndarray) -> None:
        """Take in scores.

        Parameters
        ----------
        values
            Shape ``(m, b)``.
        ids
            Ids of the columns, integers or texts, shape ``(b,)``, or of every entry, ``(m, b)``.
        """
        values = np.asarray(values)
        ids = np.broadcast_to(ids, values.shape)
        if self._ids is None:
            self._ids = ids[:, :0]
        last = self.last(values)
        if last is not None:
            better = values >= last if self.order is ORDER.DESCENDING else values <= last
            hopeful = better.any(axis=0)
            values, ids = values[:, hopeful], ids[:, hopeful]
        if not values.shape[1]:
            return
        values = np.concatenate([self._values.astype(values.dtype), values], axis=1)
        ids = np.concatenate([self._ids, ids], axis=1)
        keys = -values if self.order is ORDER.DESCENDING else values
        best = np.lexsort((ids, keys), axis=1)[:, : self.k]
        self._values = np.take_along_axis(values, best, axis=1)
        self._ids = np.take_along_axis(ids, best, axis=1)

    def get(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the kept scores and ids, best first, each of shape ``(m, min(k, n))``."""
        ids = np.empty(self._values.shape, np.int64) if self._ids is None else self._ids
        return self._values, ids

    def last(self, values: np.ndarray) -> np.ndarray | None:
        """Return what a score must reach to be kept, ``(m, 1)``: the k-th best kept, or of those.

        Parameters
        ----------
        values
            Scores that are about to be added, shape ``(m, b)``, or bounds that these reach.

        Returns
        -------
        None where there are fewer than k of either.
        """
        if self._values.shape[1] >= self.k:
            return self._values[:, -1:]
        if values.shape[1] < self.k:
            return None
        place = values.shape[1] - self.k if self.order is ORDER.DESCENDING else self.k - 1
        return np.partition(values, place, axis=1)[:, place : place + 1]
