"""Triage as a function: score a training set, and publish what was found."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.text import Text

import deel_influence

from ..baselines.loss import LossScore
from ..calculators.self_influence import SelfInfluenceCalculator
from ..datasets.source import DataSource
from ..ihvp.base import InverseHessianVectorProduct
from ..influence.first_order import FirstOrderInfluenceCalculator
from ..labels.issues import LabelIssues
from ..labels.suspicion import LabelSuspicion
from ..model.class_scores import ClassReader
from ..model.influence_model import BaseInfluenceModel, InfluenceModel
from ..report.contents import Curve, Table
from ..report.page import write_report
from ..report.suspicion import ranked_by
from ..report.triage import Triage, run_triage
from .errors import convergence_in_one_line
from .loading import named_read_errors
from .methods import MethodInputs, Takes
from .settings import TriageSettings
from .strategies import make_strategy, metric_of
from .tables import print_whole, rich_table, suspects_table, watched_rows

_LIBRARIES = (deel_influence, tf, keras, np)


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found in a training set.

    Attributes
    ----------
    triage
        The scores.
    issues
        The label issues, by which it is ordered; None for other methods.
    explainer
        Tells which examples support and oppose a label; None for other methods.
    """

    triage: Triage
    issues: LabelIssues | None = None
    explainer: FirstOrderInfluenceCalculator | None = None


def make_calculator(
    model: InfluenceModel,
    source: DataSource,
    settings: TriageSettings,
    recorders: Mapping[str, Any] | None = None,
) -> tuple[SelfInfluenceCalculator, InverseHessianVectorProduct | None]:
    """Return the calculator that the options ask for, and its strategy if it has one.

    Parameters
    ----------
    model
        The model, its loss and the watched weights.
    source
        The training set.
    settings
        How to score.
    recorders
        The callbacks that watched the training, for methods that need some.

    Raises
    ------
    CommandError, DataSourceError
        If the strategy cannot be fitted or loaded, or the data cannot be read.
    """
    strategy = make_strategy(model, source, settings)
    inputs = MethodInputs(model, source, strategy, settings.seed, recorders or {})
    if Takes.CLASSES in settings.method.takes:
        ClassReader(model)  # which refuses a model of anything but classes
    with named_read_errors(source), convergence_in_one_line(_remedy(settings)):
        return settings.method.make(inputs), strategy


def score_source(
    model: InfluenceModel,
    source: DataSource,
    calculator: SelfInfluenceCalculator,
    settings: TriageSettings,
) -> Findings:
    """Score all examples of ``source``, under a progress bar.

    Parameters
    ----------
    model
        The model, its loss and the watched weights.
    source
        The training set; it is streamed.
    calculator
        What scores them.
    settings
        How to score, and how to show progress.

    Raises
    ------
    CommandError, DataSourceError
        If the data do not fit the model, or cannot be read to their end.
    """
    dataset, verbose = source.dataset, settings.progress
    with named_read_errors(source), convergence_in_one_line(_remedy(settings)):
        if not isinstance(calculator, LabelSuspicion):
            return Findings(run_triage(model, calculator, dataset, verbose=verbose))
        issues = calculator.find_issues(dataset, verbose=verbose)
        read = run_triage(model, LossScore(model), dataset, verbose=verbose)
        triage = ranked_by(read, issues)
        explainer = FirstOrderInfluenceCalculator(model, dataset, "auto")
        return Findings(triage, issues, explainer)


def describe_run(
    triage: Triage,
    model: BaseInfluenceModel,
    source: DataSource,
    strategy: InverseHessianVectorProduct | None,
    settings: TriageSettings,
) -> dict[str, dict[str, str]]:
    """Return what the page says about how its scores came about: sections of names and values."""
    metric = {} if strategy is None else {"metric": _metric(strategy, settings)}
    return {
        "Model": {
            "name": model.model.name,
            "parameters": f"{model.model.count_params():,}",
            **watched_rows(model),
        },
        "Data": {"source": source.name, "examples": f"{len(triage.ids):,}"},
        "Method": {
            "name": settings.method.value,
            "scores": settings.method.scores,
            **metric,
            "seed": str(settings.seed),
        },
        "Versions": {
            "Python": platform.python_version(),
            **{library.__name__: library.__version__ for library in _LIBRARIES},
        },
    }


def publish(
    found: Findings,
    source: DataSource,
    summary: Mapping[str, Mapping[str, str]],
    settings: TriageSettings,
    console: Console,
    told: str = "",
    extra_tables: Sequence[Table] = (),
    curves: Sequence[Curve] = (),
) -> None:
    """Write the scores as Parquet and CSV and the page, and print the most suspicious examples.

    Parameters
    ----------
    found
        The scores, and what goes with them.
    source
        What they were computed from.
    summary
        What `describe_run` says.
    settings
        Where to write, and how much to show.
    console
        Where to print.
    told
        What is said of the choice of the method.
    extra_tables, curves
        What else to print and to show on the page.
    """
    triage, issues = found.triage, found.issues
    scores_path = settings.out / "scores.parquet"
    triage.to_parquet(scores_path)
    triage.to_csv(scores_path.with_suffix(".csv"))
    _write_issues(issues, settings.out / "issues.parquet")
    page = write_report(
        settings.out / "report",
        triage,
        source.dataset,
        summary=summary,
        feature_names=source.feature_names,
        top=settings.top,
        extra_tables=extra_tables,
        curves=curves,
        display=source.file_names,
        issues=issues,
        calculator=found.explainer,
    )
    console.print(suspects_table(triage, settings.top))
    for table in extra_tables:
        console.print(rich_table(table))
    if issues is not None:
        low, high = issues.interval
        console.print(
            f"About {issues.estimated_number:,} labels are wrong by estimate, {low:,} to {high:,}: "
            "begin with so many of the list."
        )
    if triage.doubt is not None:
        console.print(Text(triage.doubt))
    if told:
        console.print(told, soft_wrap=True)
    method = summary["Method"]
    used = ", ".join(method[name] for name in ("name", "metric") if name in method)
    print_whole(f"Method: {used}\nScores: {scores_path}\nPage:   {page}", console)


def _write_issues(issues: LabelIssues | None, path: Path) -> None:
    if issues is None:
        # Those of an earlier run would be taken for some of this one.
        for old in (path, path.with_suffix(".csv")):
            old.unlink(missing_ok=True)
    else:
        issues.to_parquet(path)
        issues.to_csv(path.with_suffix(".csv"))


def _remedy(settings: TriageSettings) -> str:
    """Return what helps against solves that do not converge; nothing where there are no options."""
    return "" if settings.metric is None else "Pass a larger --damping, or another --ihvp. "


def _metric(strategy: InverseHessianVectorProduct, settings: TriageSettings) -> str:
    if isinstance(settings.metric, Path):
        return f"{metric_of(strategy)}, read from {settings.metric}"
    return metric_of(strategy)
