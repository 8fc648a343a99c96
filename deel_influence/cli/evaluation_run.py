"""Evaluation as a function: ground truth, scores, tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from ..calculators.self_influence import SelfInfluenceCalculator
from ..datasets.source import DataSource
from ..evaluation.comparison import LDS, REMOVAL, SECONDS, recall_columns
from ..evaluation.correlations import is_constant
from ..evaluation.evaluating import BUDGETS, evaluate
from ..evaluation.evaluation import TABLE, Evaluation
from ..evaluation.ground_truth import GroundTruth
from ..evaluation.scores_folder import OtherScoresError
from ..model.influence_model import InfluenceModel
from ..report.contents import Table
from ..texts import printable
from ..utils.datasets import count_examples
from .errors import CommandError, convergence_in_one_line
from .evaluation_settings import EvaluationSettings
from .last_layer import LastLayer
from .loading import named_read_errors
from .scoring import make_calculator
from .settings import TriageSettings
from .tables import rich_table
from .wrong_labels import read_wrong_labels

PICTURE = "evaluation.png"
_REMEDY = "Pass a larger --damping, or another --ihvp. "
_MISSING = "NA"


def run_evaluation(
    model: InfluenceModel,
    source: DataSource,
    queries: DataSource | None,
    settings: EvaluationSettings,
    console: Console,
) -> None:
    """Make or read the ground truth, judge the methods, and publish what was found.

    Parameters
    ----------
    model
        The model, its loss and the watched weights.
    source
        The training set.
    queries
        The examples whose losses are looked at, where there are some.
    settings
        What to judge, by what, and where to put the results.
    console
        Where to print.

    Raises
    ------
    CommandError, DataSourceError
        If files cannot be read or do not fit, or the folder is one of another evaluation.
    """
    num_examples = _count(source)
    if (settings.leave_one_out or 0) > num_examples:
        message = (
            f"--leave-one-out must be at most the number of examples, {num_examples}. "
            f"Received: {settings.leave_one_out}."
        )
        raise CommandError(message)
    wrong = None
    if settings.wrong_labels is not None:
        ids = np.arange(num_examples) if source.ids is None else source.ids
        wrong = read_wrong_labels(settings.wrong_labels, ids)
    truths: dict[str, GroundTruth] = {}
    if queries is not None and settings.retrains:
        last_layer = LastLayer(model, source, queries, settings)
        model, truths = last_layer.model, last_layer.truths()
    elif queries is not None:
        truths = _loaded(settings, num_examples, queries)
    folder = _scores_folder(settings, truths, wrong)
    with named_read_errors(source), convergence_in_one_line(_REMEDY), _same_evaluation(folder):
        evaluation = evaluate(
            {name: _maker(model, source, one) for name, one in settings.calculators.items()},
            source.dataset,
            queries.dataset if queries is not None and truths else None,
            truth=truths,
            mislabelled=wrong,
            model=model,
            seed=settings.seed,
            folder=folder,
            settings=_described(settings),
            verbose=settings.progress,
        )
    _publish(evaluation, settings, console)


def _maker(
    model: InfluenceModel, source: DataSource, settings: TriageSettings
) -> Callable[[], SelfInfluenceCalculator]:
    return lambda: make_calculator(model, source, settings)[0]


def _scores_folder(
    settings: EvaluationSettings, truths: Mapping[str, GroundTruth], wrong: np.ndarray | None
) -> Path:
    """Return where scores are kept: more retrainings make another truth, and need others."""
    parts = [f"{name}-{len(truth.kept)}" for name, truth in truths.items()]
    parts += [] if wrong is None else ["wrong"]
    return settings.out / "-".join(["scores", *parts])


@contextmanager
def _same_evaluation(folder: Path) -> Iterator[None]:
    """Say which option is about a folder with scores of another evaluation."""
    try:
        yield
    except OtherScoresError as error:
        message = (
            "--out must be the folder of the same evaluation, or a new one. Received: "
            f"{error.received}. Choose another --out, or delete {str(folder)!r}."
        )
        raise CommandError(message) from error


def _described(settings: EvaluationSettings) -> dict[str, Any]:
    """Return what the scores depend on besides the data and the model."""
    return {"damping": settings.damping, "samples": settings.samples, "seed": settings.seed}


def _loaded(
    settings: EvaluationSettings, num_examples: int, queries: DataSource
) -> dict[str, GroundTruth]:
    """Read the files of ``--truth``.

    Raises
    ------
    CommandError
        If one is of other data, or there is nothing in it to compare.
    """
    num_queries = _count(queries)
    truths = {}
    for path in settings.truths:
        truth = GroundTruth.load(path)
        found = (truth.kept.shape[1], truth.full_outputs.shape[1])
        if found != (num_examples, num_queries):
            message = (
                f"--truth must be of the {num_examples} examples of --data and the {num_queries} "
                f"of --queries. Received: {str(path)!r} of {found[0]} examples and {found[1]} "
                "queries."
            )
            raise CommandError(message)
        if len(truth.kept) < 2 or is_constant(truth.mean_outputs.T).all():
            message = (
                "--truth must hold at least two retrainings, whose outputs differ. Received: "
                f"{str(path)!r} of {len(truth.kept)}, which give each query one output. Retrain on "
                "more subsets, or without more of the examples."
            )
            raise CommandError(message)
        truths[path.stem] = truth
    return truths


def _count(source: DataSource) -> int:
    """Return the number of examples, all of which can be read."""
    with named_read_errors(source):
        return count_examples(source.dataset)


def _publish(evaluation: Evaluation, settings: EvaluationSettings, console: Console) -> None:
    """Write table and picture, and print what they say."""
    evaluation.save(settings.out)
    picture = settings.out / PICTURE
    evaluation.plot(picture)
    for table in _tables(evaluation):
        console.print(rich_table(table))
    for note in evaluation.notes():
        console.print(Text(printable(f"{_MISSING}: {note}")))
    # A path must stay whole to be of use, and may hold brackets.
    files = f"Table:   {settings.out / TABLE}\nPicture: {picture}"
    console.print(Text(files), soft_wrap=True)


def _tables(evaluation: Evaluation) -> list[Table]:
    """Return a table for each ground truth, one for the wrong labels, and one for the times."""
    found = evaluation.settings
    tables = []
    for truth, count in found["truth"].items():
        is_lds = f"{truth}: {LDS[0]}" in evaluation.table
        measures = LDS if is_lds else REMOVAL
        title = f"{truth}: {count:,} retrainings, {found['queries']:,} queries"
        columns = {f"{truth}: {name}": name for name in measures}
        tables.append(_table(evaluation, title, columns))
    if found["mislabelled"] is not None:
        title = f"Finding the {found['mislabelled']:,} wrong labels of {found['examples']:,}"
        budgets = zip(recall_columns(BUDGETS), BUDGETS, strict=True)
        columns = {name: f"{budget:.0%}" for name, budget in budgets}
        columns |= {"ROC AUC": "ROC AUC", "average precision": "avg. precision"}
        tables.append(_table(evaluation, title, columns))
    tables.append(_table(evaluation, "Time in seconds", {SECONDS[0]: "fit", SECONDS[1]: "score"}))
    return tables


def _table(evaluation: Evaluation, title: str, columns: dict[str, str]) -> Table:
    part = evaluation.table[list(columns)].dropna(how="all")
    rows = [
        (name, *(_MISSING if math.isnan(cell) else f"{cell:.3f}" for cell in row))
        for name, *row in part.itertuples(name=None)
    ]
    return Table(title=title, columns=("method", *columns.values()), rows=rows)
