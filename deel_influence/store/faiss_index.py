"""An index that is searched by FAISS, which looks at a part of the examples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..calculators.base import BaseInfluenceCalculator
from ..extras import require
from ..utils.top_k import ORDER
from .index import Index
from .query_vectors import QueryVectors
from .search import Search

TRAINED_ON = 64
"""How many examples for each list the clusters are made of."""


class FaissIndex(Index):
    """An `Index` whose `top_k` asks FAISS [1]_, which is held in memory.

    By default the examples fall into about √n clusters, and a query is compared with those of the
    sixteenth of the clusters that is nearest to it: scores are exact, and a best example may be
    missed. `refined_top_k` takes its candidates from there too. `scores` looks at every example, as
    that of `Index`. It needs the extra ``faiss``.

    Parameters
    ----------
    path, calculator
        As for `Index`.
    factory
        What FAISS is to make, in the words of its `index_factory`, such as ``"HNSW32"`` or
        ``"IVF1024,PQ64"``; None makes clusters. Its metric is the inner product.

    Attributes
    ----------
    faiss
        What FAISS has made, for its own settings, such as ``index.faiss.nprobe``.

    Raises
    ------
    MissingExtraError
        If FAISS is not installed.
    DataSourceError
        As `Index`.

    References
    ----------
    .. [1] M. Douze, A. Guzhva, C. Deng, J. Johnson, G. Szilvasy, P.-E. Mazaré, M. Lomeli, L.
       Hosseini, H. Jégou. The Faiss Library. arXiv:2401.08281, 2024.
    """

    def __init__(
        self,
        path: str | Path,
        calculator: BaseInfluenceCalculator | None = None,
        factory: str | None = None,
    ) -> None:
        super().__init__(path, calculator)
        faiss = require("faiss", "faiss", "`FaissIndex` needs")
        self._known = self.ids
        lists = max(math.isqrt(len(self._known)), 1)
        made = faiss.index_factory(
            self.header.dimension, factory or f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT
        )
        if factory is None:
            made.nprobe = math.ceil(lists / 16)
        if not made.is_trained:
            step = max(len(self._known) // (TRAINED_ON * lists), 1)
            made.train(np.concatenate([rows[::step] for rows in self._rows()]))
        for rows in self._rows():
            made.add(rows)
        self.faiss: Any = made

    def _rows(self) -> Iterator[np.ndarray]:
        """Yield the vectors ``(b, d)`` of some examples after others, float32."""
        asked = np.empty((0, self.header.dimension), np.float32)
        for _, vectors, lengths in Search(self.header, self._parts_with_examples(), asked).blocks():
            yield vectors.astype(np.float32) * lengths[:, None]

    def _search(self, queries: QueryVectors, layers: list[str] | None) -> Search:
        plain = super()._search(queries, layers)
        return _FaissSearch(plain, self.faiss, self._known)


class _FaissSearch(Search):
    """A search whose best are FAISS's."""

    def __init__(self, plain: Search, made: Any, ids: np.ndarray) -> None:
        super().__init__(plain.header, plain.parts, plain.asked)
        self._made, self._ids = made, ids

    def best(self, k: int, order: ORDER) -> tuple[np.ndarray, np.ndarray]:
        sign = np.float32(1 if order is ORDER.DESCENDING else -1)
        values, places = self._made.search(sign * self.asked, min(k, len(self._ids)))
        if places.min() < 0:
            found = int((places >= 0).sum(axis=1).min())
            message = (
                "Argument `k` must not exceed what FAISS finds for each query. Received: "
                f"{k}, and {found} were found for one. Look at more clusters: raise "
                "`index.faiss.nprobe`."
            )
            raise ValueError(message)
        return sign * values, self._ids[places]
