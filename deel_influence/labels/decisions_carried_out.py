"""What decisions come to for given labels, and labels of every form corrected by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.table import number_classes
from ..errors import DecisionsError, LabelError
from ..utils.digests import run_digest
from ..utils.label_sets import NO_CLASS, TOGETHER, LabelSets
from .decisions import DROP, RELABEL, Decisions, places_of

# The sums of rows of probabilities may be off by so much.
_OFF = 1e-3


@dataclass(frozen=True, eq=False)
class Corrections:
    """What is to be done with the n examples of a dataset.

    Attributes
    ----------
    ids
        The examples, shape ``(n,)``.
    before, after
        Numbers of their classes, or of sets of classes, shape ``(n,)``.
    kept
        Which of them stay, shape ``(n,)``, bool.
    class_names
        What the classes 0, 1, ... are called, where they have names, or the sets.
    """

    ids: np.ndarray
    before: np.ndarray
    after: np.ndarray
    kept: np.ndarray
    class_names: Sequence[str] | None = None

    @property
    def relabelled(self) -> np.ndarray:
        """Which examples get another label, shape ``(n,)``, bool."""
        return self.kept & (self.before != self.after)

    def name_of(self, label: Any) -> str:
        """Return the name of a class where there is one, or else the number."""
        number = label.item()
        if self.class_names is not None:
            return str(self.class_names[int(number)])
        return str(int(number) if number == int(number) else number)

    def log(self) -> list[tuple[Any, str, str, str]]:
        """Return a row for each example that changes: id, decision, label before and after."""
        return [
            (
                self.ids[i].item(),
                RELABEL if self.kept[i] else DROP,
                self.name_of(self.before[i]),
                self.name_of(self.after[i]) if self.kept[i] else "",
            )
            for i in np.flatnonzero(self.relabelled | ~self.kept)
        ]

    def emptied(self) -> list[str]:
        """Return the classes that have examples before, and none after."""
        if isinstance(self.class_names, LabelSets):
            members = self.class_names.members
            lost = members[self.before].any(axis=0) & ~members[self.after[self.kept]].any(axis=0)
            return [self.class_names.class_texts[k] for k in np.flatnonzero(lost)]
        left = np.setdiff1d(self.before, self.after[self.kept])
        return [self.name_of(label) for label in left]

    def corrected(self, labels: np.ndarray) -> np.ndarray:
        """Return labels ``(n, ...)`` of any form with the new ones in their places, all n of them.

        Parameters
        ----------
        labels
            As `number_labels` takes them; they are left as they are.
        """
        at = np.flatnonzero(self.relabelled)
        new, dtype = self.after[at], labels.dtype
        if isinstance(self.class_names, LabelSets):
            new = self.class_names.members[new]
        elif dtype.kind in "OSU":
            is_bytes = dtype.kind == "S" or isinstance(next(labels.flat, ""), bytes)
            texts = [self.name_of(label) for label in new]
            new = np.array([text.encode() for text in texts] if is_bytes else texts)
            # Wide enough for the longest name, so that none is cut.
            dtype = dtype if dtype.kind == "O" or not len(new) else np.result_type(labels, new)
        elif _are_rows(labels):
            new = np.eye(labels.shape[1])[new.astype(int)]
        result = labels.astype(dtype)
        result[at] = new.reshape(len(at), *labels.shape[1:])
        return result


def correct(
    decisions: Decisions,
    ids: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str] | None = None,
    drop: bool = True,
    relabel: bool = True,
) -> Corrections:
    """Find out what decisions come to.

    Parameters
    ----------
    decisions
        The decisions.
    ids
        Ids of the n examples, shape ``(n,)``.
    labels
        Their labels, shape ``(n, ...)``, as `number_labels` takes them.
    class_names
        What the classes 0, 1, ... are called; None takes the texts that the labels are, if so.
    drop, relabel
        Whether to carry out decisions of these kinds.

    Raises
    ------
    DecisionsError
        If they are about other data, name an example that is not there, or a class. Nothing is
        carried out then.
    LabelError, DataSourceError
        If the labels are not one for each example.
    """
    numbered = _numbered_sets if _are_sets(decisions, ids, labels) else _numbered_classes
    before, new, names, known, run = numbered(decisions, ids, labels, class_names)
    if decisions.run != run:
        message = (
            "Decisions must be about these examples, with these labels, in this order. Received: "
            f"{decisions.source!r} of the run {decisions.run[:80]!r}, for data of the run {run!r}. "
            "Pass the data that the run was made from, with the same ids."
        )
        raise DecisionsError(message)
    places = places_of(ids.tolist())
    at = np.array([places.get(name, -1) for name in decisions.ids.tolist()], int)
    decisions.refuse(at < 0, "must name examples of the data")
    relabels = decisions.decisions == RELABEL
    told = ", ".join(known[:20]) or "none: values"
    decisions.refuse(relabels & np.isnan(new), f"must relabel to a class of the data ({told})")
    _, which, counts = np.unique(at, return_inverse=True, return_counts=True)
    decisions.refuse(counts[which] > 1, "must name each example once")
    after, kept = before.copy(), np.ones(len(before), bool)
    if relabel:
        after[at[relabels]] = new[relabels]
    if drop:
        kept[at[decisions.decisions == DROP]] = False
    return Corrections(ids, before, after, kept, names)


Numbered = tuple[np.ndarray, np.ndarray, Sequence[str] | None, list[str], str]
"""Numbers of the labels ``(n,)``, and of the new ones ``(k,)``, float64 with NaN where there is
none; what the numbers mean; what can be chosen; and the run."""


def _numbered_classes(
    decisions: Decisions, ids: np.ndarray, labels: np.ndarray, class_names: Sequence[str] | None
) -> Numbered:
    before, names, classes = number_labels(labels, class_names)
    choices = classes if names is None else names
    numbers = dict(zip(range(len(choices)), classes, strict=True))
    places = places_of(choices)
    new = [numbers.get(places.get(label, -1), np.nan) for label in decisions.labels.tolist()]
    return before, np.array(new, float), names, list(map(str, choices)), run_digest(ids, before)


def _numbered_sets(
    decisions: Decisions, ids: np.ndarray, labels: np.ndarray, class_names: Sequence[str] | None
) -> Numbered:
    given = labels > 0
    classes = LabelSets(given[:0], None if class_names is None else tuple(map(str, class_names)))
    places = places_of(classes.class_texts)
    wanted, known = np.zeros((len(decisions), given.shape[1]), bool), []
    for row, label in zip(wanted, decisions.labels.tolist(), strict=True):
        found = (
            [places.get(part, -1) for part in label.split(TOGETHER)] if label != NO_CLASS else []
        )
        known.append(-1 not in found)
        row[[place for place in found if place >= 0]] = True
    sets, before, new = LabelSets.numbered(given, wanted, classes.classes)
    numbers = np.where(known, new, np.nan)
    return before, numbers, sets, [NO_CLASS, *classes.class_texts], run_digest(ids, given)


def number_labels(
    labels: np.ndarray, class_names: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...] | None, list[int]]:
    """Return labels ``(n,)`` as numbers, the names of the classes, and the numbers that can be.

    Parameters
    ----------
    labels
        Classes ``(n,)`` or ``(n, 1)``, as numbers, texts or truth values; rows ``(n, c)`` of
        probabilities, of which the largest counts; or values ``(n,)``.
    class_names
        What the classes are called; None takes the texts, in sorted order.

    Returns
    -------
    The numbers; the names of the c classes, or None; and 0 to c - 1, or what the labels are where
    some are below 0. Of values there are no classes.

    Raises
    ------
    LabelError, DataSourceError
        If there is not one for each example, or one is missing or has no name.
    """
    given = None if class_names is None else tuple(map(str, class_names))
    if labels.dtype.kind in "SO":
        texts = [v.decode() if isinstance(v, bytes) else v for v in labels.ravel().tolist()]
        labels = np.array(texts, object).reshape(labels.shape)
    numbers, names = number_classes(labels, "labels", Path("data"), given)
    count = None if names is None else len(names)
    if _are_rows(numbers):
        count = numbers.shape[1]
        numbers = numbers.argmax(axis=1)
    if numbers.ndim > 1 and numbers.size == len(numbers):
        numbers = numbers.reshape(-1)
    if numbers.ndim != 1:
        message = (
            "Decisions are about one label per example: a class (n,) or (n, 1), a row of "
            "probabilities (n, c), or a value (n,); or about a row of 0 and 1 (n, c). Received: "
            f"labels of shape {labels.shape}."
        )
        raise LabelError(message)
    if not np.array_equal(numbers, np.rint(numbers)):
        return numbers.astype(np.float64), names, []
    numbers = numbers.astype(np.int64)
    if len(numbers) and numbers.min() < 0:
        return numbers, names, np.unique(numbers).tolist()
    most = int(numbers.max(initial=-1)) + 1
    if count is not None and most > count:
        message = (
            "Argument `class_names` must name every label, the first one being 0. Received: "
            f"{count} names for labels up to {most - 1}."
        )
        raise LabelError(message)
    return numbers, names, list(range(most if count is None else count))


def _are_sets(decisions: Decisions, ids: np.ndarray, labels: np.ndarray) -> bool:
    """Tell whether labels are rows of 0 and 1 that say of each class whether an example has it."""
    if labels.ndim != 2 or labels.shape[1] < 2 or labels.dtype.kind not in "biuf":
        return False
    # One-hot rows can be either; the run tells what they were taken for.
    is_binary = bool(np.isin(labels, (0, 1)).all())
    return is_binary and (not _are_rows(labels) or decisions.run == run_digest(ids, labels > 0))


def _are_rows(labels: np.ndarray) -> bool:
    """Tell whether labels are rows of probabilities, shape ``(n, c)``."""
    if labels.ndim != 2 or labels.shape[1] < 2 or labels.dtype.kind not in "biuf":
        return False
    return bool(np.all(labels >= 0) and np.allclose(labels.sum(axis=1), 1, atol=_OFF))
