"""Triage as a function: score a training set, and publish what was found."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.text import Text

import deel_influence

from ..datasets.source import DataSource
from ..ihvp.base import InverseHessianVectorProduct
from ..influence.first_order import FirstOrderInfluenceCalculator
from ..model.influence_model import InfluenceModel
from ..report.contents import Curve, Table
from ..report.page import write_report
from ..report.triage import Triage, run_triage
from .errors import CommandError, convergence_in_one_line, one_line
from .loading import named_read_errors
from .settings import TriageSettings
from .strategies import metric_of
from .tables import rich_table, suspects_table

_LIBRARIES = (deel_influence, tf, keras, np)


def score_source(
    model: InfluenceModel,
    source: DataSource,
    strategy: InverseHessianVectorProduct,
    progress: int | str,
) -> Triage:
    """Score all examples of ``source`` by their self-influence, under a progress bar.

    Parameters
    ----------
    model
        The model, its loss and the watched weights.
    source
        The training set; it is streamed.
    strategy
        The metric in which gradients are compared, fitted on the model.
    progress
        How to show progress, as in Keras.

    Raises
    ------
    CommandError, DataSourceError
        If the data do not fit the model, or cannot be read to their end.
    """
    calculator = FirstOrderInfluenceCalculator(model, source.dataset, ihvp_calculator=strategy)
    with named_read_errors(source), convergence_in_one_line():
        triage = run_triage(model, calculator, source.dataset, ids=source.ids, verbose=progress)
    _check_class_names(triage, source)
    return triage


def describe_run(
    triage: Triage,
    model: InfluenceModel,
    source: DataSource,
    strategy: InverseHessianVectorProduct,
    settings: TriageSettings,
) -> dict[str, dict[str, str]]:
    """Return what the page says about how its scores came about: sections of names and values."""
    return {
        "Model": {
            "name": model.model.name,
            "parameters": f"{model.model.count_params():,}",
            "watched weights": one_line(", ".join(weight.path for weight in model.weights), 200),
            "watched parameters": f"{model.nb_params:,}",
        },
        "Data": {"source": source.name, "examples": f"{len(triage.ids):,}"},
        "Method": {
            "scores": "self-influence, the loss gradient's squared norm in the metric below",
            "metric": _metric(strategy, settings),
            "seed": str(settings.seed),
        },
        "Versions": {
            "Python": platform.python_version(),
            **{library.__name__: library.__version__ for library in _LIBRARIES},
        },
    }


def publish(
    triage: Triage,
    source: DataSource,
    summary: Mapping[str, Mapping[str, str]],
    settings: TriageSettings,
    console: Console,
    extra_tables: Sequence[Table] = (),
    curves: Sequence[Curve] = (),
) -> None:
    """Write ``scores.parquet`` and ``report/index.html``, and print the most suspicious examples.

    Parameters
    ----------
    triage
        The scores.
    source
        What they were computed from.
    summary
        What `describe_run` says.
    settings
        Where to write, and how much to show.
    console
        Where to print.
    extra_tables, curves
        What else to print and to show on the page.
    """
    scores_path = settings.out / "scores.parquet"
    triage.to_parquet(scores_path)
    page = write_report(
        settings.out / "report",
        triage,
        source.dataset,
        summary=summary,
        class_names=source.class_names,
        feature_names=source.feature_names,
        top=settings.top,
        extra_tables=extra_tables,
        curves=curves,
    )
    console.print(suspects_table(triage, settings.top, source.class_names))
    for table in extra_tables:
        console.print(rich_table(table))
    # A path must stay whole to be of use, and may hold brackets.
    console.print(Text(f"Scores: {scores_path}\nPage:   {page}"), soft_wrap=True)


def _check_class_names(triage: Triage, source: DataSource) -> None:
    if source.class_names is None:
        return
    values = np.concatenate([triage.labels, triage.predicted])
    num_names = len(source.class_names)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() >= num_names:
        message = (
            f"--data names {num_names} classes, so labels and predictions must be integers from 0 "
            f"to {num_names - 1}. Received: {values.dtype} from {values.min()} to {values.max()}. "
            "Check that the model was trained on these classes."
        )
        raise CommandError(message)


def _metric(strategy: InverseHessianVectorProduct, settings: TriageSettings) -> str:
    if isinstance(settings.metric, Path):
        return f"{metric_of(strategy)}, read from {settings.metric}"
    return metric_of(strategy)
