"""One row of an evaluation's table: what the scores of a calculator are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .calculator_scores import CHANGES, FIT, PAIRS, SINGLE, CalculatorScores, removed_groups
from .ground_truth import GroundTruth
from .lds import linear_datamodelling_score
from .mislabel import average_precision, recall_at_budget, roc_auc
from .removals import predicted_changes, removal_correlation

LDS = ("LDS", "LDS low", "LDS high")
REMOVAL = ("Pearson", "Spearman", "slope")
SECONDS = ("fit seconds", "score seconds")
"""Names of columns."""


@dataclass
class Row:
    """The measures of one calculator, and why some are not there.

    Attributes
    ----------
    values
        Numbers by the names of their columns; NaN where there is none.
    missing
        For columns of NaN, the reason.
    """

    values: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, names: Sequence[str], values: Sequence[float]) -> None:
        """Enter measures under the names of their columns."""
        self.values.update(zip(names, map(float, values), strict=True))

    def leave_out(self, names: Sequence[str], reason: str) -> None:
        """Enter that there are no such measures."""
        self.values.update(dict.fromkeys(names, np.nan))
        self.missing.update(dict.fromkeys(names, reason))


@dataclass(frozen=True, eq=False)
class Comparison:
    """What all calculators are compared with.

    Attributes
    ----------
    truths
        Outputs of retrained models, by name; one alone has the empty name.
    mislabelled
        Which labels are wrong, shape ``(n,)``, bool, or None.
    budgets
        Shares of the list of which the recall is told.
    num_resamples
        Of the bootstrap of an interval.
    seed
        Fixes the draws of the bootstrap.
    """

    truths: Mapping[str, GroundTruth]
    mislabelled: np.ndarray | None
    budgets: Sequence[float]
    num_resamples: int
    seed: int

    @cached_property
    def removals(self) -> dict[str, np.ndarray]:
        """Masks ``(s, n)`` of the truths that leave out one example or group at a time."""
        return {
            name: truth.kept
            for name, truth in self.truths.items()
            if removed_groups(truth.kept) is not None
        }

    def row(self, scores: CalculatorScores) -> Row:
        """Measure the scores of one calculator."""
        row = Row()
        for name, truth in self.truths.items():
            if name in self.removals:
                self._add_removals(row, name, truth, scores)
            else:
                self._add_lds(row, name, truth, scores)
        if self.mislabelled is not None:
            self._add_detection(row, self.mislabelled, scores)
        row.add(SECONDS, (scores.fit_seconds, scores.score_seconds))
        untimed = [column for column in SECONDS if np.isnan(row.values[column])]
        row.missing.update(dict.fromkeys(untimed, scores.missing.get(FIT, "")))
        return row

    def _add_lds(self, row: Row, name: str, truth: GroundTruth, scores: CalculatorScores) -> None:
        columns = _columns(name, LDS)
        if scores.pairs is None:
            row.leave_out(columns, scores.missing[PAIRS])
            return
        found = linear_datamodelling_score(
            scores.pairs,
            truth.kept,
            truth.mean_outputs,
            higher_is_better=truth.higher_is_better,
            num_resamples=self.num_resamples,
            seed=self.seed,
        )
        row.add(columns, (found.score, *found.interval))

    def _add_removals(
        self, row: Row, name: str, truth: GroundTruth, scores: CalculatorScores
    ) -> None:
        columns = _columns(name, REMOVAL)
        if name in scores.changes:
            found = removal_correlation(scores.changes[name], truth.changes)
            row.add(columns, (found.pearson, found.spearman, found.slope))
            if scores.predicts_quality != truth.higher_is_better:
                row.leave_out(columns[2:], "it predicts another number than that of the truth")
            elif np.isnan(found.slope):
                row.leave_out(columns[2:], "it predicts the same change for all removals")
        elif scores.pairs is not None:
            predicted = predicted_changes(scores.pairs, truth.kept)
            found = removal_correlation(predicted, truth.changes)
            row.add(columns[:2], (found.pearson, found.spearman))
            row.leave_out(columns[2:], scores.missing[CHANGES])
        else:
            row.leave_out(columns, scores.missing[PAIRS])

    def _add_detection(self, row: Row, mislabelled: np.ndarray, scores: CalculatorScores) -> None:
        columns = ("ROC AUC", "average precision", *recall_columns(self.budgets))
        if scores.single is None:
            row.leave_out(columns, scores.missing[SINGLE])
            return
        values = scores.single
        recalls = recall_at_budget(values, mislabelled, self.budgets)
        areas = (roc_auc(values, mislabelled), average_precision(values, mislabelled))
        row.add(columns, (*areas, *recalls))


def recall_columns(budgets: Sequence[float]) -> list[str]:
    """Return the names of the columns that tell the recall at these budgets."""
    return [f"recall at {100 * budget:g}%" for budget in budgets]


def _columns(truth: str, names: Sequence[str]) -> list[str]:
    return [f"{truth}: {name}" if truth else name for name in names]
