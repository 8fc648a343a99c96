"""Search strategies for the training examples with the best scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import numpy as np

from .top_k import ORDER, BatchSort

OnBatch = Callable[[object, np.ndarray, np.ndarray], None]


class BaseNearestNeighbors(ABC):
    """How the k best of all training examples are found for each query.

    To be implemented by subclasses: `search`.
    """

    @abstractmethod
    def search(
        self,
        scored: Iterable[tuple[object, np.ndarray, np.ndarray]],
        num_queries: int,
        k: int,
        order: ORDER,
        on_batch: OnBatch,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and ids, best first.

        Parameters
        ----------
        scored
            For each training batch: the batch, its ids ``(b,)``, the scores ``(m, b)``.
        num_queries
            The number m of queries.
        k
            How many to find for each.
        order
            Which end of the scores is best.
        on_batch
            To be called after each batch with the batch, its ids, and the ids found so far.

        Returns
        -------
        Scores and ids, each ``(m, min(k, n))``.
        """


class LinearNearestNeighbors(BaseNearestNeighbors):
    """Look at every training example; exact."""

    def search(
        self,
        scored: Iterable[tuple[object, np.ndarray, np.ndarray]],
        num_queries: int,
        k: int,
        order: ORDER,
        on_batch: OnBatch,
    ) -> tuple[np.ndarray, np.ndarray]:
        best = BatchSort(num_queries, k, order)
        for batch, ids, values in scored:
            best.add(values, ids)
            on_batch(batch, ids, best.get()[1])
        return best.get()


def check_nearest_neighbors(nearest_neighbors: object) -> BaseNearestNeighbors:
    """Return how to search; None is a `LinearNearestNeighbors`.

    Raises
    ------
    TypeError
        For anything else than a `BaseNearestNeighbors`.
    """
    if nearest_neighbors is None:
        return LinearNearestNeighbors()
    if isinstance(nearest_neighbors, BaseNearestNeighbors):
        return nearest_neighbors
    remedy = "Pass LinearNearestNeighbors(), or leave it out."
    if isinstance(nearest_neighbors, ORDER):
        remedy = f"Pass the order by its name: order={nearest_neighbors}."
    message = (
        "Argument `nearest_neighbors` must be None or a BaseNearestNeighbors object. Received: "
        f"{nearest_neighbors!r}. {remedy}"
    )
    raise TypeError(message)
