"""An index of a training set, which is asked without the training set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ..calculators.base import BaseInfluenceCalculator
from ..calculators.blocks import InfluenceBlock
from ..calculators.parts import Part, parts_in
from ..calculators.sample_pool import examples_with
from ..calculators.scores import Scores
from ..calculators.top_k import TopK
from ..gradients.passes import Pass
from ..linalg.checks import check_count
from ..types import Data, IdFunction
from ..utils.memory import human_bytes
from ..utils.takes_data import TakesData
from ..utils.top_k import ORDER, check_k, check_order
from .parts import INDEX, Header
from .query_vectors import QueryVectors
from .search import Search
from .state import IndexState, state_of


class Index(TakesData):
    """What `build_index` computed of a training set, read where it lies.

    Neither the training data nor the model are needed: queries are `QueryVectors`. With a
    calculator at hand, they may be data as well.

    Parameters
    ----------
    path
        The folder.
    calculator
        The calculator that it was built with, or one with the same fit, for queries that are data.

    Raises
    ------
    DataSourceError
        If the folder holds no index, or one of another calculator.
    """

    def __init__(self, path: str | Path, calculator: BaseInfluenceCalculator | None = None) -> None:
        self.path = Path(path)
        self.header = Header.read(self.path)
        self.calculator = calculator
        if calculator is not None and calculator.origin() != self.header.origin:
            raise INDEX.refused(
                self.path, "is of other weights, another calculator or other settings"
            )

    @property
    def model(self) -> Any:
        """The model of the calculator; None without one."""
        return getattr(self.calculator, "model", None)

    @property
    def parts(self) -> list[Part]:
        """The parts that are there now, by shard and place."""
        return parts_in(self.path)

    def __len__(self) -> int:
        """Return the number of examples."""
        return sum(map(len, self.parts))

    def __repr__(self) -> str:
        """Tell what is in it."""
        size = human_bytes(sum(part.path.stat().st_size for part in self.parts))
        header = self.header
        return (
            f"<Index of {len(self):,} examples, {header.dimension} {header.dtype} numbers each, of "
            f"{header.calculator}, {size}>"
        )

    @property
    def ids(self) -> np.ndarray:
        """The ids of all examples, by shard and place, shape ``(n,)``."""
        return self._joined("ids")

    def self_scores(self) -> Scores:
        """Return the score of each example for itself, as `score` does.

        Raises
        ------
        DataSourceError
            If the index has none: those of calculators with several checkpoints, and those built
            with ``self_scores=False``.
        """
        return Scores(self.ids, self._joined("scores"))

    def top_k(
        self,
        queries: Data,
        k: int = 5,
        order: ORDER = ORDER.DESCENDING,
        layers: list[str] | None = None,
    ) -> TopK:
        """Find, for each query, the examples with the best scores.

        Parameters
        ----------
        queries
            `QueryVectors`; with a calculator, data.
        k
            How many for each query; all where there are fewer.
        order
            `ORDER.DESCENDING` finds the examples that help most, `ORDER.ASCENDING` those that
            hurt most.
        layers
            The layers that count, by the names in ``header.layers``; None takes all.

        Returns
        -------
        Best first; ties go to the smaller id.

        Raises
        ------
        DataSourceError
            If a part is damaged, or of another index.
        TypeError
            If queries are data, and there is no calculator.
        ValueError
            If queries are of another calculator, or an argument out of its range.
        """
        k, order = check_k(k), check_order(order)
        asked = self._queries(queries)
        values, ids = self._search(asked, layers).best(k, order)
        return TopK(asked.ids, ids, values, k, order)

    def refined_top_k(
        self,
        queries: Data,
        calculator: BaseInfluenceCalculator,
        train_set: Data,
        k: int = 5,
        candidates: int = 100,
        order: ORDER = ORDER.DESCENDING,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
        query_id_fn: IdFunction | None = None,
    ) -> TopK:
        """Find the best examples by a calculator that scores the candidates of the index alone.

        The index proposes the best of each query; the calculator scores all that any query was
        proposed. Where they are among these, the result is that of its own `find_top_k`, at the
        cost of a part of the training set.

        Parameters
        ----------
        queries
            Data; the index has to have its calculator for them.
        calculator
            The calculator that decides, fitted on whatever it needs.
        train_set
            The training set of the index, of which the candidates are read.
        k
            How many for each query.
        candidates
            How many the index proposes for each query; at least k.
        order
            As for `top_k`.
        id_fn
            As for `build_index`.
        device, verbose, query_id_fn
            As for `find_top_k`.

        Returns
        -------
        Best first, with the scores of ``calculator``.

        Raises
        ------
        TypeError
            If the index has no calculator, or queries are no data.
        ValueError
            If an argument is out of its range, or ``train_set`` lacks a candidate.
        """
        count = max(check_count("candidates", candidates), check_k(k))
        if isinstance(queries, QueryVectors):
            message = (
                "Argument `queries` must be data, which the calculator is to look at. Received: "
                "QueryVectors."
            )
            raise TypeError(message)
        proposed = np.unique(self.top_k(queries, count, order).train_ids)
        engine = calculator.engine
        data = Pass(train_set, "train_set", "Candidates", id_fn, device, verbose).checked(engine)
        read = ((item.batch, item.ids) for item in data.items(engine))
        return calculator.find_top_k(
            *(queries, examples_with(proposed, read, train_set), k, order),
            device=device,
            verbose=verbose,
            query_id_fn=query_id_fn,
        )

    def scores(self, queries: Data, layers: list[str] | None = None) -> InfluenceBlock:
        """Return the score of every example for every query.

        Parameters
        ----------
        queries, layers
            As for `top_k`.

        Raises
        ------
        DataSourceError, TypeError, ValueError
            As `top_k`.
        """
        asked = self._queries(queries)
        found = list(self._search(asked, layers).scores())
        ids = np.concatenate([ids for ids, _ in found])
        return InfluenceBlock(asked.ids, ids, np.concatenate([v for _, v in found], axis=1))

    def check(self) -> IndexState:
        """Read all of it, and tell what is missing, twice there, or damaged."""
        return state_of(self.header, self.parts)

    def _queries(self, queries: Any) -> QueryVectors:
        if isinstance(queries, tf.data.Dataset) and self.calculator is not None:
            queries = QueryVectors.of(self.calculator, queries, verbose=0)
        if not isinstance(queries, QueryVectors):
            message = (
                "Argument `queries` must be QueryVectors where an index has no calculator. "
                f"Received: {type(queries).__name__}. Compute them with `QueryVectors.of`, or open "
                "the index with `calculator=`."
            )
            raise TypeError(message)
        if queries.origin != self.header.origin:
            message = (
                "Argument `queries` must be of the calculator of the index. Received: queries of "
                "other weights, another calculator or other settings."
            )
            raise ValueError(message)
        return queries

    def _search(self, queries: QueryVectors, layers: list[str] | None) -> Search:
        asked = queries.vectors.astype(np.float32)
        if layers is not None:
            asked = asked * self._mask(layers)
        return Search(self.header, self._parts_with_examples(), asked)

    def _mask(self, layers: list[str]) -> np.ndarray:
        """Return one for the columns of some layers, zero for the others."""
        known = {name: (first, end) for name, first, end in self.header.layers}
        unknown = sorted(set(layers) - set(known))
        if unknown or not layers:
            message = (
                f"Argument `layers` must name some of {sorted(known)}, the layers that columns of "
                f"the index belong to. Received: {list(layers)}."
            )
            raise ValueError(message)
        mask = np.zeros(self.header.dimension, np.float32)
        for name in layers:
            mask[slice(*known[name])] = 1
        return mask

    def _joined(self, name: str) -> np.ndarray:
        found = []
        for part in self._parts_with_examples():
            _, arrays = part.read(self.header)
            if name not in arrays:
                reason = (
                    f"has parts without {name}: they were built so, or the calculator gives none"
                )
                raise INDEX.refused(self.path, reason)
            found.append(np.asarray(arrays[name]))
        return np.concatenate(found)

    def _parts_with_examples(self) -> list[Part]:
        parts = [part for part in self.parts if len(part)]
        if not parts:
            raise INDEX.refused(self.path, "has no examples yet")
        return parts
