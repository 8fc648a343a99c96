"""Shards in a pipeline of Apache Beam, which the extra ``beam`` installs.

A pipeline goes from shards to parts, and merges them::

    with beam.Pipeline() as pipeline:
        pipeline | beam.Create(split("train.npz", 64)) | Score(calculator) | Merge() | ...
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any

from ..calculators.base import BaseInfluenceCalculator
from ..calculators.scores import Scores
from ..calculators.self_influence import SelfInfluenceCalculator
from ..calculators.top_k import TopK
from ..curvature.sums import FitSums
from ..extras import require
from ..ihvp.base import InverseHessianVectorProduct
from ..model.influence_model import BaseInfluenceModel
from ..types import IdFunction
from ..utils.top_k import ORDER
from .data import Shard
from .sending import Received, SavedCalculator, Sent
from .tasks import ScoreTask, SumsTask

beam: Any = require("apache_beam", "beam", "Pipelines need")

Subject = Sent | Received

SEVERAL = 2
"""As many shards, or more: scores of each have to be those of the whole."""


class Score(beam.PTransform):
    """From `Shard` values to the `Scores` of each.

    Parameters
    ----------
    calculator
        The calculator, or a `SavedCalculator`.
    id_fn
        As for `score`.
    """

    def __init__(
        self,
        calculator: SelfInfluenceCalculator | SavedCalculator,
        id_fn: IdFunction | None = None,
    ) -> None:
        super().__init__()
        self._arguments = Sent(calculator), id_fn

    def expand(self, shards: Any) -> Any:
        """Score each shard."""
        return shards | beam.Map(_scores, *self._arguments)


class FindTopK(beam.PTransform):
    """From `Shard` values to the `TopK` of each: the best training examples for each query.

    Parameters
    ----------
    calculator
        The calculator.
    queries
        Arrays, a path, or a function without arguments, as ``data`` of a `Shard`.
    k, order, id_fn
        As for `find_top_k`.
    """

    def __init__(
        self,
        calculator: BaseInfluenceCalculator,
        queries: Any,
        k: int = 5,
        order: ORDER = ORDER.DESCENDING,
        id_fn: IdFunction | None = None,
    ) -> None:
        super().__init__()
        self._arguments = Sent((calculator, Shard(queries))), k, order, id_fn

    def expand(self, shards: Any) -> Any:
        """Search each shard."""
        return shards | beam.Map(_top_k, *self._arguments)


class SumFit(beam.PTransform):
    """From `Shard` values to the `FitSums` of each, in the next stage of a fit.

    Parameters
    ----------
    strategy
        The class of the strategy.
    model
        The wrapped model.
    given
        The merged sums of the stages before.
    id_fn
        As for `score`.
    **settings
        Other arguments of the constructor.
    """

    def __init__(
        self,
        strategy: type[InverseHessianVectorProduct],
        model: BaseInfluenceModel,
        given: Iterable[FitSums] = (),
        id_fn: IdFunction | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self._arguments = Sent((model, tuple(given))), strategy, id_fn, settings

    def expand(self, shards: Any) -> Any:
        """Add up over each shard."""
        return shards | beam.Map(_sums, *self._arguments)


class Merge(beam.PTransform):
    """From parts, at least one, to the whole: what their ``merge`` gives.

    Scores and best examples do not depend on the order in which Beam merges them; sums of a fit
    do, to rounding, and the next stage has to be given one of them.
    """

    def expand(self, parts: Any) -> Any:
        """Merge all parts."""
        return parts | beam.CombineGlobally(_Merging()).without_defaults()


class _Merging(beam.CombineFn):
    def create_accumulator(self) -> list:
        return []

    def add_input(self, merged: list, part: Any) -> list:
        return self.merge_accumulators([merged, [part]])

    def merge_accumulators(self, accumulators: Iterable[list]) -> list:
        parts = [part for accumulator in accumulators for part in accumulator]
        return [reduce(lambda one, other: one.merge(other), parts)] if parts else []

    def extract_output(self, merged: list) -> Any:
        return merged[0]


def _scores(shard: Shard, calculator: Subject, id_fn: IdFunction | None) -> Scores:
    return ScoreTask(calculator, shard, 0, SEVERAL, None, id_fn).run()


def _top_k(shard: Shard, subject: Subject, k: int, order: ORDER, id_fn: IdFunction | None) -> TopK:
    calculator, queries = subject.get()
    asked, data = (one.open(calculator.model) for one in (queries, shard))
    return calculator.find_top_k(asked, data, k, order, id_fn, verbose=0)


def _sums(
    shard: Shard, subject: Subject, strategy: Any, id_fn: IdFunction | None, settings: dict
) -> FitSums:
    return SumsTask(subject, shard, 0, SEVERAL, None, id_fn, strategy, settings).run()
