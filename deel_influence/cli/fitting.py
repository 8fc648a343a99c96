"""Fitting as a function: fit a strategy, keep it in a file, and say what came out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..datasets.source import DataSource
from ..ihvp.base import InverseHessianVectorProduct
from ..model.influence_model import InfluenceModel
from ..report.contents import Table
from ..utils.memory import human_bytes
from .settings import StrategySettings
from .sharding import finish_fit
from .strategies import damping_of, eigenvalues_of, fit_strategy
from .tables import print_whole, rich_table, watched_rows

# Told in rows of their own, or no part of what was fitted.
_NOT_LISTED = ("damping", "verbose", "on_failure")


def fit_and_save(
    model: InfluenceModel,
    source: DataSource,
    settings: StrategySettings,
    path: Path,
    seed: int,
    progress: int | str,
    console: Console,
    sums: Sequence[Path] = (),
) -> None:
    """Fit a strategy, write it to ``path``, and print what was fitted.

    Parameters
    ----------
    model
        The model, its loss and the watched weights.
    source
        The training set.
    settings
        The strategy.
    path
        The file to write; it appears whole or not at all.
    seed
        Fixes the strategy's random choices.
    progress
        How to show progress, as in Keras.
    console
        Where to print.
    sums
        Files of the merged sums of all stages, of which the fit is made without the data.

    Raises
    ------
    DataSourceError
        If the data cannot be read to their end.
    """
    start = time.perf_counter()
    if sums:
        strategy = finish_fit(model, settings, sums, seed)
    else:
        strategy = fit_strategy(model, source, settings, seed, progress)
    seconds = time.perf_counter() - start
    written = strategy.save(path)
    console.print(rich_table(_table(strategy, source, seconds)))
    size = human_bytes(written.stat().st_size)
    print_whole(f"Curvature: {written} ({size})", console)


def _table(strategy: InverseHessianVectorProduct, source: DataSource, seconds: float) -> Table:
    rows = [
        ("strategy", f"{strategy.name} ({type(strategy).__name__})"),
        *watched_rows(strategy.model).items(),
        ("damping", damping_of(strategy)),
    ]
    eigenvalues = eigenvalues_of(strategy)
    if eigenvalues is not None:
        rows.append(("eigenvalues", eigenvalues))
    rows += [
        (name, str(value))
        for name, value in strategy.get_config().items()
        if value is not None and name not in _NOT_LISTED
    ]
    rows.append(("time to fit", f"{seconds:.1f} s"))
    return Table(title=f"Fitted on {source.name}", columns=("", "value"), rows=rows)
