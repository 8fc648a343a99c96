"""A triage by label issues: its order, its suggestions, and what is said of it at the top."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..utils.formatting import format_number
from ..utils.label_sets import LabelSets
from .contents import Table
from .triage import Triage

Issues = Any
"""`deel_influence.labels.LabelIssues`, which builds on the modules here, so that they have no name
for it."""


def ranked_by(triage: Triage, issues: Issues) -> Triage:
    """Return a triage with the suspicions and the order of label issues of the same examples.

    Raises
    ------
    TypeError
        If they are no label issues.
    ValueError
        If they are of other examples.
    """
    if not hasattr(issues, "estimated_number"):
        message = (
            "Argument `issues` must be what `find_label_issues` returns. Received: "
            f"{type(issues).__name__}."
        )
        raise TypeError(message)
    if not np.array_equal(triage.ids, issues.ids) or not np.array_equal(
        triage.labels, issues.labels
    ):
        message = (
            "Argument `issues` must be of the examples of the triage, in the same order. Received: "
            f"{issues!r} beside {triage!r}. Find them again in the same dataset."
        )
        raise ValueError(message)
    ranks = np.empty(len(triage), np.int64)
    ranks[issues.order] = np.arange(1, len(triage) + 1)
    return replace(triage, scores=issues.suspicion, ranks=ranks)


def suggesting(triage: Triage, issues: Issues) -> Triage:
    """Return a triage with the suggestions of label issues in the place of predictions."""
    names = triage.class_names
    if isinstance(names, LabelSets):
        # Other sets are suggested than are predicted; the given ones have the same numbers.
        names = issues.class_names.renamed(names.classes)
    return replace(
        ranked_by(triage, issues),
        class_names=names,
        predicted=issues.suggested,
        given_probability=issues.given_probability,
        predicted_probability=issues.suggested_probability,
    )


def entries_of(triage: Triage, issues: Issues | None) -> list[Table]:
    """Return a table of the wrong entries of each class, where labels are sets of classes."""
    names = triage.class_names
    if issues is None or not isinstance(names, LabelSets):
        return []
    counts = zip(
        names.class_texts,
        issues.given_sets.sum(axis=0).tolist(),
        (issues.given_sets < issues.suggested_sets).sum(axis=0).tolist(),
        (issues.given_sets > issues.suggested_sets).sum(axis=0).tolist(),
        issues.wrong_entries.tolist(),
        strict=True,
    )
    heads = ("class", "given", "suggested where not given", "given, not suggested", "wrong")
    caption = "Numbers of examples; wrong: that have the class or lack it wrongly, by estimate."
    return [Table("Classes of the sets", heads, list(counts), caption)]


def number_of(issues: Issues) -> tuple[str, str, str]:
    """Return the estimated number of wrong labels as a figure of the page."""
    low, high = (format_number(end) for end in issues.interval)
    number = format_number(issues.estimated_number)
    return f"about {number}", "labels are wrong, by estimate", f"between {low} and {high}"
