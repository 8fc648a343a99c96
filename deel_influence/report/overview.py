"""What a page says of the labels that it shows, and what people can choose among."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..utils.label_sets import LabelSets, run_of
from .triage import Triage

# A matrix of more classes is no overview.
_MOST_IN_MATRIX = 24
# Cells have so many shades.
_SHADES = 4


@dataclass(frozen=True)
class Choice:
    """A class: its number, its name, and how many of those shown have it."""

    number: Any
    name: str
    count: int = 0


@dataclass(frozen=True)
class Matrix:
    """How many of those shown have which given and which predicted label.

    Attributes
    ----------
    classes
        The k classes that occur.
    rows
        For each given class and each predicted one the count, and a shade from 0 to 4.
    """

    classes: list[Choice]
    rows: list[list[tuple[int, int]]]


def describe_labels(triage: Triage, positions: np.ndarray) -> dict[str, Any]:
    """Return what the page says of labels: all there are, and those at positions ``(k,)``."""
    given, predicted = triage.labels[positions], triage.predicted[positions]
    names = triage.class_names
    return {
        "run": run_of(triage.ids, triage.labels, triage.class_names),
        "classes": all_classes(triage, np.union1d(given, predicted)),
        "parts": names.class_texts if isinstance(names, LabelSets) else (),
        "given": count_classes(triage, given),
        "predicted": count_classes(triage, predicted),
        "matrix": label_matrix(triage, given, predicted),
    }


def all_classes(triage: Triage, shown: np.ndarray) -> list[Choice]:
    """Return the classes that a label can be; none where labels are values.

    Of sets, of which there may be as many as examples, those that are among the labels shown.
    """
    if not triage.has_classes:
        return []
    if isinstance(triage.class_names, LabelSets):
        return [Choice(number, triage.label_text(number)) for number in shown.tolist()]
    if triage.class_names is not None:
        return [Choice(number, str(name)) for number, name in enumerate(triage.class_names)]
    numbers = np.union1d(triage.labels, triage.predicted)
    return [Choice(number.item(), triage.label_text(number)) for number in numbers]


def count_classes(triage: Triage, labels: np.ndarray) -> list[Choice]:
    """Return the classes that are among labels ``(k,)`` of a triage; none where they are values."""
    if not triage.has_classes:
        return []
    numbers, counts = np.unique(labels, return_counts=True)
    return [
        Choice(number.item(), triage.label_text(number), int(count))
        for number, count in zip(numbers, counts, strict=True)
    ]


def label_matrix(triage: Triage, given: np.ndarray, predicted: np.ndarray) -> Matrix | None:
    """Count pairs of given and predicted labels ``(k,)``; None where that is no overview."""
    classes = count_classes(triage, np.concatenate([given, predicted]))
    if not 1 < len(classes) <= _MOST_IN_MATRIX:
        return None
    numbers = np.array([choice.number for choice in classes])
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (np.searchsorted(numbers, given), np.searchsorted(numbers, predicted)), 1)
    shades = np.ceil(_SHADES * counts / counts.max()).astype(int)
    rows = [
        list(zip(*row, strict=True)) for row in zip(counts.tolist(), shades.tolist(), strict=True)
    ]
    return Matrix(classes, rows)
