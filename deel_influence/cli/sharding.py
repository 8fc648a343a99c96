"""Shards as functions: what `score`, `index`, `fit` and `merge` do with one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from ..calculators.base import BaseInfluenceCalculator
from ..calculators.scores import Scores
from ..curvature.sums import FitSums, MissingStageError
from ..datasets.source import DataSource
from ..ihvp.base import InverseHessianVectorProduct
from ..model.influence_model import InfluenceModel
from ..shards.data import Shard
from ..shards.merging import merge_files
from ..shards.sending import Sent
from ..shards.tasks import IndexTask, ScoreTask, SumsTask
from ..store.index import Index
from .errors import CommandError
from .groups import Inputs
from .loading import load_inputs, named_read_errors
from .scoring import make_calculator
from .settings import StrategySettings, TriageSettings
from .strategies import strategy_and_settings
from .tables import print_whole

Place = tuple[int, int]
"""Which shard, and of how many."""


def score_shard(inputs: Inputs, settings: TriageSettings, place: Place, console: Console) -> None:
    """Score a shard, and keep its scores in a file.

    Parameters
    ----------
    inputs
        The model and the training set.
    settings
        How to score, and the folder.
    place
        Which shard, and of how many.
    console
        Where to print.

    Raises
    ------
    CommandError, DataSourceError
        If the data cannot be read or cut so, or the method cannot score them.
    """
    model, source = load_inputs(inputs)
    calculator, _ = make_calculator(model, source, settings)
    if place[1] > 1 and not calculator.scores_each_alone:
        message = (
            "--shard is for methods that score each example on its own. Received: --method "
            f"{settings.method.value}, whose scores depend on all others. Leave --shard and "
            "--num-shards out."
        )
        raise CommandError(message)
    task = ScoreTask(Sent(calculator), _shard(source, place), *place, settings.out)
    with named_read_errors(source):
        scores = task.run()
    told = f"Scored {len(scores):,} examples{_of(place)}."
    print_whole(f"{told}\nScores: {settings.out}", console)


def index_shard(
    inputs: Inputs,
    settings: TriageSettings,
    place: Place,
    kept: Mapping[str, Any],
    console: Console,
) -> None:
    """Build the parts of an index that belong to a shard.

    Parameters
    ----------
    inputs, settings, place, console
        As for `score_shard`.
    kept
        What is kept, as `build_index` takes it.

    Raises
    ------
    CommandError, DataSourceError
        As `score_shard`; or if the folder holds another index.
    """
    model, source = load_inputs(inputs)
    calculator, _ = make_calculator(model, source, settings)
    if not isinstance(calculator, BaseInfluenceCalculator) or not calculator.has_products:
        message = (
            "--method must be one whose scores are products. Received: "
            f"{settings.method.value}. Use influence, trak or grad-dot."
        )
        raise CommandError(message)
    shard = _shard(source, place)
    with named_read_errors(source):
        IndexTask(Sent(calculator), shard, *place, settings.out, settings=kept).run()
    built = Index(settings.out)
    print_whole(f"{built}\nIndex: {settings.out}", console)


def sum_shard(
    inputs: Inputs,
    settings: StrategySettings,
    place: Place,
    sums: Sequence[Path],
    out: Path,
    seed: int,
    console: Console,
) -> None:
    """Add up the next stage of a fit over a shard, and keep the sums in a file.

    Parameters
    ----------
    inputs, place, console
        As for `score_shard`.
    settings
        The strategy.
    sums
        The merged sums of the stages before.
    out
        The folder.
    seed
        Fixes the strategy's random choices.

    Raises
    ------
    CommandError, DataSourceError
        As `score_shard`; or if the strategy does not add up over the examples.
    """
    model, source = load_inputs(inputs)
    strategy, arguments = _summed(model, settings, seed)
    subject = Sent((model, tuple(FitSums.load(path) for path in sums)))
    shard = _shard(source, place)
    task = SumsTask(subject, shard, *place, out, strategy=strategy, settings=arguments)
    with named_read_errors(source), _told_by_sums():
        part = task.run()
    told = f"{part.stage}: {part.num_examples:,} examples{_of(place)}."
    print_whole(f"{told}\nSums: {out}", console)


def finish_fit(
    model: InfluenceModel, settings: StrategySettings, sums: Sequence[Path], seed: int
) -> InverseHessianVectorProduct:
    """Return the strategy that the merged sums of all stages give.

    Raises
    ------
    CommandError, DataSourceError
        If a stage is missing, or sums are of another fit.
    """
    strategy, arguments = _summed(model, settings, seed)
    with _told_by_sums():
        return strategy.finish(model, [FitSums.load(path) for path in sums], **arguments)


def merge_parts(parts: Sequence[Path], out: Path, console: Console) -> None:
    """Merge the parts in some files, and write the whole.

    Raises
    ------
    CommandError, DataSourceError
        If they are not of one kind and one run, or one is missing.
    """
    try:
        whole = merge_files(parts)
    except ValueError as error:
        message = f"The parts must be those of one run, each once. {error}"
        raise CommandError(message) from error
    written = whole.save(out)
    size = whole.num_examples if isinstance(whole, FitSums) else len(getattr(whole, "ids", ()))
    what = {FitSums: "Sums", Scores: "Scores"}.get(type(whole), type(whole).__name__)
    print_whole(f"{what} of {size:,} examples: {written}", console)


def _shard(source: DataSource, place: Place) -> Shard:
    """Return a shard that can be opened."""
    if place[1] > 1:
        try:
            source = source.shard(*place)
        except ValueError as error:
            message = f"--num-shards and --batch-size must fit the data. {error}"
            raise CommandError(message) from error
    return Shard(source)


def _of(place: Place) -> str:
    return "" if place[1] == 1 else f" of shard {place[0]} of {place[1]}"


def _summed(model: InfluenceModel, settings: StrategySettings, seed: int) -> tuple[Any, dict]:
    strategy, arguments = strategy_and_settings(model, settings, seed, 0)
    if not strategy.fits_by_sums or settings.samples is not None:
        message = (
            "--shard and --sums are for strategies that add up over all examples: --ihvp exact, "
            f"kfac, ekfac or logra, without --samples. Received: --ihvp {strategy.name}"
            f"{'' if settings.samples is None else ' --samples'}."
        )
        raise CommandError(message)
    return strategy, {n: v for n, v in arguments.items() if n != "n_samples_for_hessian"}


@contextmanager
def _told_by_sums() -> Iterator[None]:
    """Say which option is about stages that are missing, or that are all there."""
    try:
        yield
    except MissingStageError as error:
        message = (
            "--sums must name the merged sums of every stage, in order, where --shard is left out. "
            f"{error}"
        )
        raise CommandError(message) from error
    except ValueError as error:
        if not str(error).startswith(("Argument `given`", "Argument `parts`")):
            raise
        message = f"--sums must name the merged sums of the stages before, in order. {error}"
        raise CommandError(message) from error
