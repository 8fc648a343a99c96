"""Triage as a function: score a training set, and publish what was found."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.text import Text

import deel_influence

from ..datasets.reading import READ_ERRORS, reading_error
from ..datasets.source import DataSource
from ..ihvp.base import InverseHessianVectorProduct
from ..ihvp.exact import ExactIHVP
from ..ihvp.identity import IdentityIHVP
from ..influence.first_order import FirstOrderInfluenceCalculator
from ..model.influence_model import InfluenceModel
from ..report.contents import Curve, Table
from ..report.page import write_report
from ..report.triage import Triage, run_triage
from ..types import Verbosity
from .errors import CommandError, one_line
from .loading import check_fit
from .options import Ihvp
from .tables import rich_table, suspects_table

DEFAULT_DAMPING = 1e-3

_LIBRARIES = (deel_influence, tf, keras, np)


@dataclass(frozen=True)
class TriageSettings:
    """How to score, and where to put the results.

    Attributes
    ----------
    ihvp
        The metric in which gradients are compared.
    damping
        What is added to the Hessian's diagonal; None means `DEFAULT_DAMPING` where there is one.
    top
        How many examples to show.
    out
        Folder of the results.
    seed
        Seed of the random numbers.
    verbose
        Whether to show progress where no terminal is watching.
    """

    ihvp: Ihvp
    damping: float | None
    top: int
    out: Path
    seed: int
    verbose: bool = False

    @property
    def progress(self) -> Verbosity:
        """How to show progress, as in Keras."""
        return 1 if self.verbose else "auto"

    def __post_init__(self) -> None:
        """Refuse values that no triage can use, before anything is computed."""
        if self.top < 1:
            message = f"--top must be at least 1. Received: {self.top}."
            raise CommandError(message)
        if self.damping is not None and not 0.0 <= self.damping < float("inf"):
            message = f"--damping must be finite and not negative. Received: {self.damping}."
            raise CommandError(message)
        if self.damping is not None and self.ihvp is Ihvp.identity:
            message = (
                "--damping belongs to --ihvp exact; the identity has no Hessian to damp. "
                f"Received: --damping {self.damping} --ihvp identity. Leave one of them out."
            )
            raise CommandError(message)


def score_source(model: InfluenceModel, source: DataSource, settings: TriageSettings) -> Triage:
    """Score all examples of ``source`` by their self-influence, under a progress bar.

    Parameters
    ----------
    model
        The model, its loss and the watched weights.
    source
        The training set; it is streamed.
    settings
        How to score.

    Raises
    ------
    CommandError, DataSourceError
        If the data do not fit the model, or cannot be read to their end.
    """
    try:
        check_fit(model, source)
        calculator = FirstOrderInfluenceCalculator(
            model,
            source.dataset,
            ihvp_calculator=_make_ihvp(model, source.dataset, settings),
            seed=settings.seed,
        )
        triage = run_triage(
            model,
            calculator,
            source.dataset,
            ids=source.ids,
            verbose=settings.progress,
        )
    except READ_ERRORS as error:
        raise reading_error(source, error) from error
    _check_class_names(triage, source)
    return triage


def publish(
    triage: Triage,
    model: InfluenceModel,
    source: DataSource,
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
    model, source, settings
        What they were computed from, and how.
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
        summary=_summary(triage, model, source, settings),
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


def _make_ihvp(
    model: InfluenceModel, dataset: tf.data.Dataset, settings: TriageSettings
) -> InverseHessianVectorProduct:
    if settings.ihvp is Ihvp.identity:
        return IdentityIHVP(model)
    return ExactIHVP(model, dataset, damping=_damping(settings), verbose=settings.progress)


def _damping(settings: TriageSettings) -> float:
    return DEFAULT_DAMPING if settings.damping is None else settings.damping


def _metric(settings: TriageSettings) -> str:
    if settings.ihvp is Ihvp.identity:
        return "identity"
    return f"exact inverse Hessian, damping {_damping(settings):g}"


def _summary(
    triage: Triage, model: InfluenceModel, source: DataSource, settings: TriageSettings
) -> dict[str, dict[str, str]]:
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
            "metric": _metric(settings),
            "seed": str(settings.seed),
        },
        "Versions": {
            "Python": platform.python_version(),
            **{library.__name__: library.__version__ for library in _LIBRARIES},
        },
    }
