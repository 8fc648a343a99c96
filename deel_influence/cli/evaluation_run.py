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
from ..errors import ConvergenceError, UnsupportedModelError
from ..evaluation.comparison import LDS, REMOVAL, SECONDS, recall_columns
from ..evaluation.correlations import is_constant
from ..evaluation.evaluating import BUDGETS, evaluate
from ..evaluation.evaluation import TABLE, Evaluation
from ..evaluation.ground_truth import GroundTruth
from ..evaluation.last_layer import LastLayer
from ..evaluation.scores_folder import OtherScoresError
from ..evaluation.subsets import leave_one_out, random_subsets
from ..model.influence_model import InfluenceModel
from ..model.selection import find_layer
from ..report.contents import Table
from ..texts import printable
from ..utils.datasets import count_examples
from .errors import CommandError, convergence_in_one_line
from .evaluation_settings import EvaluationSettings
from .loading import named_read_errors
from .scoring import make_calculator
from .settings import TriageSettings
from .tables import print_whole, rich_table
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
        model, truths = _retrained(model, source, queries, settings, num_examples)
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


def _retrained(
    model: InfluenceModel,
    source: DataSource,
    queries: DataSource,
    settings: EvaluationSettings,
    num_examples: int,
) -> tuple[InfluenceModel, dict[str, GroundTruth]]:
    """Bring the last layer to its minimum, train it again, and keep the truths in files."""
    own = find_layer(model.model, None).weights
    others = [w.path for w in model.weights if not any(w is one for one in own)]
    if others:
        message = (
            "--leave-one-out and --subsets train the last layer again, and --weights must name no "
            f"other. Received: {', '.join(others)}. Leave --weights out."
        )
        raise CommandError(message)
    folder = settings.out / "retraining"
    with _same_evaluation(folder), _told_by_options():
        last_layer = LastLayer(
            model.model,
            source.dataset,
            queries.dataset,
            l2=settings.l2,
            loss=model.loss_function.loss,
            folder=folder,
        )
        kept = {}
        if settings.leave_one_out is not None:
            positions = last_layer.candidates(settings.leave_one_out, settings.seed)
            kept["leave-one-out"] = leave_one_out(num_examples, positions)
        if settings.subsets is not None:
            kept["half-data"] = random_subsets(num_examples, settings.subsets, seed=settings.seed)
        truths = {name: last_layer.retrain(mask, settings.progress) for name, mask in kept.items()}
    for name, truth in truths.items():
        truth.save(settings.out / f"{name}.npz")
    return last_layer.model, truths


@contextmanager
def _told_by_options() -> Iterator[None]:
    """Say which options are about a last layer that cannot be trained again."""
    try:
        yield
    except ConvergenceError as error:
        message = f"--l2 must be large enough for the last layer to have a minimum. {error}"
        raise CommandError(message) from error
    except UnsupportedModelError as error:
        message = (
            "--leave-one-out, --subsets and --l2 are for a last layer that can be trained alone; "
            f"another ground truth is passed by --truth. {error}"
        )
        raise CommandError(message) from error


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
    print_whole(f"Table:   {settings.out / TABLE}\nPicture: {picture}", console)


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
