"""Two runs of triage beside each other, and two models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from ..baselines.loss import LossScore
from ..errors import DataSourceError
from ..report.contents import Table
from ..report.parquet import read_columns
from ..report.triage import run_triage
from ..utils.formatting import format_number, format_share
from .groups import Inputs
from .loading import load_inputs, named_read_errors
from .tables import rich_table

_ISSUE = "is_issue"
# What a run ranks by: a rank, of which the least comes first, or else a suspicion.
_RANK, _SUSPICION = "rank", "suspicion"
_MISSING = "–"


@dataclass(frozen=True, eq=False)
class Run:
    """The n examples of a run.

    Attributes
    ----------
    ids, labels, ranks
        Shape ``(n,)``; rank 1 is the most suspicious. Labels are the names of classes where they
        have names.
    is_issue
        Which are held to be wrong, shape ``(n,)``, bool; None where the run does not say so.
    """

    ids: np.ndarray
    labels: np.ndarray
    ranks: np.ndarray
    is_issue: np.ndarray | None

    @property
    def columns(self) -> tuple[list, list, list]:
        """Ids, ranks and labels."""
        return self.ids.tolist(), self.ranks.tolist(), self.labels.tolist()

    @classmethod
    def read(cls, path: Path) -> Run:
        """Read the scores of a run.

        Raises
        ------
        DataSourceError
            If the file is none of `triage`.
        """
        found, names = read_columns(path, ("id", "label"))
        if _RANK in found:
            ranks = found[_RANK]
        elif _SUSPICION in found:
            ranks = np.empty(len(found["id"]), np.int64)
            ranks[np.lexsort((found["id"], -found[_SUSPICION]))] = np.arange(1, len(ranks) + 1)
        else:
            message = f"A run must have a column {_RANK} or {_SUSPICION}. Received: {str(path)!r}."
            raise DataSourceError(message)
        labels = found["label"]
        if names is not None:
            labels = np.array(list(names), object)[labels]
        return cls(found["id"], labels, ranks, found.get(_ISSUE))


def print_changes(path_a: Path, path_b: Path, top: int, console: Console) -> None:
    """Print what entered and what left the top of the list, and what is held to be wrong.

    Parameters
    ----------
    path_a, path_b
        The scores of the two runs.
    top
        How many examples are the top of a list.
    console
        Where to print.

    Raises
    ------
    DataSourceError, ValueError
        If they are no runs, or those of other data.
    """
    before, after = Run.read(path_a), Run.read(path_b)
    # Integers and texts have nothing in common.
    alike = (before.ids.dtype.kind == "U") == (after.ids.dtype.kind == "U")
    both = np.intersect1d(before.ids, after.ids) if alike else np.array([])
    if not len(both):
        message = (
            "Two runs must have examples in common to be compared. Received: "
            f"{str(path_a)!r} and {str(path_b)!r} without a common id. Compare runs on the same "
            "data, or on parts of them."
        )
        raise DataSourceError(message)
    labels = [dict(zip(run.columns[0], run.columns[2], strict=True)) for run in (before, after)]
    other = sum(labels[0][name] != labels[1][name] for name in both.tolist())
    console.print(
        f"{len(both):,} examples in both runs, {other:,} of them with another label; "
        f"{len(before.ids) - len(both):,} only in the first, {len(after.ids) - len(both):,} only "
        "in the second.",
        soft_wrap=True,
    )
    chosen = [run.ids[run.ranks <= top] for run in (before, after)]
    _print_moves(f"the top {top}", chosen, (before, after), top, console)
    if before.is_issue is not None and after.is_issue is not None:
        chosen = [before.ids[before.is_issue], after.ids[after.is_issue]]
        _print_moves("what is held to be wrong", chosen, (before, after), top, console)


def _print_moves(
    what: str, chosen: list[np.ndarray], runs: tuple[Run, Run], top: int, console: Console
) -> None:
    """Print which examples are chosen in one run and not in the other."""
    known = [
        {
            name: (str(rank), format_number(label) if isinstance(label, float) else str(label))
            for name, rank, label in zip(*run.columns, strict=True)
        }
        for run in runs
    ]
    absent = (_MISSING, _MISSING)
    for verb, here, there in (("Entered", 1, 0), ("Left", 0, 1)):
        names = np.setdiff1d(chosen[here], chosen[there]).tolist()
        names.sort(key=lambda name, run=known[here]: int(run[name][0]))
        rows = []
        for name in names[:top]:
            (rank_a, label_a), (rank_b, label_b) = (one.get(name, absent) for one in known)
            rows.append((name, rank_a, rank_b, label_a, label_b))
        heads = ("id", "rank before", "rank after", "label before", "label after")
        caption = f"The first {top} of them." if len(names) > top else ""
        console.print(rich_table(Table(f"{verb} {what}: {len(names):,}", heads, rows, caption)))


def print_accuracies(model_a: Inputs, model_b: Inputs, console: Console) -> None:
    """Print the accuracy of two models on the test set that both settings name.

    Raises
    ------
    DeelInfluenceError
        If a model or the test set cannot be used, or has no classes.
    """
    right = [_right(settings) for settings in (model_a, model_b)]
    rows = [
        (str(settings.model), format_share(hits.mean()), f"{hits.sum():,} of {len(hits):,}")
        for settings, hits in zip((model_a, model_b), right, strict=True)
    ]
    caption = (
        f"The second is right where the first was wrong {np.sum(right[1] & ~right[0]):,} times, "
        f"and wrong where it was right {np.sum(right[0] & ~right[1]):,} times."
    )
    table = Table("Accuracy on the test set", ("model", "accuracy", "right"), rows, caption)
    console.print(rich_table(table))


def _right(settings: Inputs) -> np.ndarray:
    """Return which examples of a test set a model predicts the label of, shape ``(n,)``, bool."""
    model, source = load_inputs(settings)
    with named_read_errors(source):
        triage = run_triage(model, LossScore(model), source.dataset, verbose=0)
    if not triage.has_classes:
        message = (
            "--test must have classes as labels, of which an accuracy is told. Received: values, "
            f"for {str(settings.model)!r}. Leave --test out."
        )
        raise DataSourceError(message)
    return triage.labels == triage.predicted
