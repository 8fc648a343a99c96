"""Long runs in shards: scores, an index, a fit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from ..calculators.base import BaseInfluenceCalculator
from ..calculators.scores import Scores
from ..calculators.self_influence import SelfInfluenceCalculator
from ..curvature.sums import FitSums, MissingStageError
from ..ihvp.base import InverseHessianVectorProduct
from ..ihvp.registry import strategy_named
from ..model.influence_model import BaseInfluenceModel
from ..store.index import Index
from ..types import IdFunction
from ..utils.example_ids import check_unique
from .data import Shard
from .running import Executor, run_tasks
from .sending import SavedCalculator, Sent
from .tasks import IndexTask, ScoreTask, SumsTask


def score_in_shards(
    calculator: SelfInfluenceCalculator | SavedCalculator,
    shards: Sequence[Shard],
    executor: Executor | None = None,
    path: str | Path | None = None,
    id_fn: IdFunction | None = None,
    retries: int = 2,
) -> Scores:
    """Score every example, shard by shard, as `score` does in one process.

    Of shards that `split` cut, scores are the same to the last bit, where workers have as many
    threads and the same processor.

    Parameters
    ----------
    calculator
        The calculator; a `SavedCalculator` spares workers a large pickle.
    shards
        The shards, see `split`.
    executor, retries
        As for `run_tasks`.
    path
        A folder, shared with the workers, in which finished shards are kept: a run that was cut
        off goes on where it was. Their data are read again, and not computed with. None keeps none.
    id_fn
        As for `score`.

    Returns
    -------
    Ids and scores, in the order of the shards.

    Raises
    ------
    ShardError
        If the executor does not bring a shard to its end.
    ValueError
        If an id is in two shards, or scores depend on other examples.

    Warns
    -----
    NoGradientWarning
        If all scores are 0.
    """
    sent = Sent(calculator)
    tasks = [
        ScoreTask(sent, shard, place, len(shards), path, id_fn)
        for place, shard in enumerate(shards)
    ]
    parts = list(run_tasks(tasks, executor, retries))
    ids = check_unique(np.concatenate([part.ids for part in parts]), "id_fn")
    values = np.concatenate([part.values for part in parts])
    if not np.any(values):
        first = tasks[0]
        first.calculator(first.shard.open(first.model)).warn_of_zeros(values)
    return Scores(ids, values)


def build_index_in_shards(
    calculator: BaseInfluenceCalculator | SavedCalculator,
    shards: Sequence[Shard],
    path: str | Path,
    executor: Executor | None = None,
    id_fn: IdFunction | None = None,
    retries: int = 2,
    **settings: Any,
) -> Index:
    """Build an index, shard by shard; see `deel_influence.store.build_index`.

    Parameters
    ----------
    calculator
        As for `build_index`; a `SavedCalculator` spares workers a large pickle.
    shards
        The shards, see `split`.
    path
        The folder, shared with the workers. A run that was cut off goes on where it was.
    executor, retries
        As for `run_tasks`.
    id_fn
        As for `score`.
    **settings
        ``dtype``, ``part_size``, ``self_scores`` and ``device`` of `build_index`.

    Returns
    -------
    The index, with the calculator at hand for queries unless it was saved.

    Raises
    ------
    DataSourceError
        If the folder holds something else, an index of other weights, settings or data.
    ShardError
        If the executor does not bring a shard to its end.
    ValueError
        If an argument is out of its range, or scores are no products.
    """
    sent = Sent(calculator)
    tasks = [
        IndexTask(sent, shard, place, len(shards), path, id_fn, settings)
        for place, shard in enumerate(shards)
    ]
    for _ in run_tasks(tasks, executor, retries):
        pass
    return Index(path, None if isinstance(calculator, SavedCalculator) else calculator)


def fit_in_shards(
    strategy: str | type[InverseHessianVectorProduct],
    model: BaseInfluenceModel,
    shards: Sequence[Shard],
    executor: Executor | None = None,
    path: str | Path | None = None,
    id_fn: IdFunction | None = None,
    retries: int = 2,
    **settings: Any,
) -> InverseHessianVectorProduct:
    """Fit a strategy that adds up over the examples, shard by shard.

    The sums of shards are added in their order, whoever computes them, so that every executor
    gives the same fit; it equals that of one process to rounding.

    Parameters
    ----------
    strategy
        Its class or name: ``"exact"``, ``"kfac"``, ``"ekfac"`` or ``"logra"``.
    model
        The wrapped model.
    shards
        The shards, see `split`.
    executor, retries
        As for `run_tasks`.
    path
        A folder, shared with the workers, in which finished sums are kept, as of `score_in_shards`.
    id_fn
        As for `score`; random draws depend on the ids.
    **settings
        Other arguments of the constructor.

    Returns
    -------
    The fitted strategy.

    Raises
    ------
    ShardError
        If the executor does not bring a shard to its end.
    ValueError
        If the strategy does not add up over the examples, or an id is in two shards.
    """
    kind = strategy_named(strategy, model) if isinstance(strategy, str) else strategy
    stages: list[FitSums] = []
    while True:
        try:
            return kind.finish(model, stages, **settings)
        except MissingStageError:
            sent = Sent((model, tuple(stages)))
        tasks = [
            SumsTask(sent, shard, place, len(shards), path, id_fn, kind, settings)
            for place, shard in enumerate(shards)
        ]
        stages.append(reduce(FitSums.merge, run_tasks(tasks, executor, retries)))
