"""A table of the examples whose labels may be wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..extras import require
from ..report.parquet import (
    check_class_names,
    check_columns,
    names_beside,
    write_columns,
    write_csv,
)
from ..utils.example_ids import shared_ids
from ..utils.files import npz_path
from ..utils.formatting import format_number
from ..utils.html import Html, html_table
from ..utils.label_sets import LabelSets, names_as_json, names_of_json
from ..utils.records import Arrays, RecordKind, Settings

ISSUES = RecordKind("table of label issues", "Find them again with `find_label_issues`.", 2)

_SHOWN = 10
_SIGNAL = "signal_"

# Name in files and data frames, and name of the attribute.
_COLUMNS = {
    "id": "ids",
    "label": "labels",
    "suggested": "suggested",
    "given_probability": "given_probability",
    "suggested_probability": "suggested_probability",
    "suspicion": "suspicion",
    "is_issue": "is_issue",
    "outlier_score": "outlier_score",
    "duplicate_of": "duplicate_of",
}
# Of these, a table of values has none.
_PROBABILITIES = ("given_probability", "suggested_probability")


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """What is known of the labels of n examples, in the order of the data.

    Attributes
    ----------
    ids
        int64 or texts, shape ``(n,)``, all different.
    labels
        Given classes, int64, or values, float64, shape ``(n,)``. Where an example can have several
        classes, the numbers of sets in `class_names`; `given_sets` tells of the classes.
    suggested
        The most probable class of each example, shape ``(n,)``; where the label is not disputed,
        the label. Of values, what a model says that has not seen the label.
    given_probability, suggested_probability
        Of the two classes, by a model that has not seen the label, shape ``(n,)``; None for values.
        Of sets, as if their classes were independent.
    suspicion
        Made of the ranks that the signals give, as `LabelSuspicion` tells, from 0 to 1, shape
        ``(n,)``; larger is more suspicious.
    is_issue
        Which labels are taken to be wrong, bool, shape ``(n,)``: the ``estimated_number`` most
        suspicious ones.
    outlier_score
        From 0 to 1, shape ``(n,)``; larger is more unlike all other examples, whatever the label.
    duplicate_of
        The id of the nearest near-duplicate that has another label, else None, shape ``(n,)``,
        objects.
    neighbours
        The ids of the nearest examples, the nearest first, shape ``(n, 5)``; fewer where there are
        no more.
    signals
        Each signal by its name, shape ``(n,)``; larger is more suspicious.
    class_names
        What the labels 0, 1, ... mean, where it is known; of sets of classes, the sets.
    estimated_number
        How many labels are estimated to be wrong.
    interval
        Between what and what that number is thought to be.
    wrong_entries
        Of sets, for each class how many examples are estimated to have it or to lack it wrongly,
        int64, shape ``(c,)``; else None.

    Raises
    ------
    ValueError
        If the columns are not of one length, or the names do not fit the labels.
    """

    ids: np.ndarray
    labels: np.ndarray
    suggested: np.ndarray
    given_probability: np.ndarray | None
    suggested_probability: np.ndarray | None
    suspicion: np.ndarray
    is_issue: np.ndarray
    outlier_score: np.ndarray
    duplicate_of: np.ndarray
    neighbours: np.ndarray
    signals: Mapping[str, np.ndarray]
    class_names: Sequence[str] | None
    estimated_number: int
    interval: tuple[int, int]
    wrong_entries: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check that the columns are of one length, and that every class has a name."""
        check_columns(self._numbers() | {"neighbours": np.zeros(len(self.neighbours))})
        if self.class_names is not None:
            check_class_names(self.class_names, self.labels, self.suggested)

    def __len__(self) -> int:
        """Return the number n of examples."""
        return len(self.ids)

    def __repr__(self) -> str:
        """Tell how many examples there are, and how many labels are thought to be wrong."""
        low, high = self.interval
        return (
            f"<LabelIssues of {len(self)} examples: about {self.estimated_number} wrong labels "
            f"({low} to {high})>"
        )

    def _repr_html_(self) -> Html:
        """Show the most suspicious labels in a notebook."""
        shares = {
            "of the label": self.given_probability,
            "of the suggested": self.suggested_probability,
            "suspicion": self.suspicion,
        }
        known = {head: column for head, column in shares.items() if column is not None}
        shown = self.order[:_SHOWN]
        rows = [
            (
                self.ids[i],
                self.label_text(self.labels[i]),
                self.label_text(self.suggested[i]),
                *(format_number(float(column[i]), True) for column in known.values()),
            )
            for i in shown
        ]
        low, high = (format_number(end) for end in self.interval)
        title = (
            f"About {format_number(self.estimated_number)} of {len(self):,} labels are wrong "
            f"({low} to {high}); the {len(shown)} most suspicious"
        )
        return html_table(("id", "label", "suggested", *known), rows, title)

    @property
    def order(self) -> np.ndarray:
        """The positions ``(n,)`` of the examples, the most suspicious first; ties go by id."""
        return np.lexsort((self.ids, -self.suspicion))

    @property
    def given_sets(self) -> np.ndarray | None:
        """Which classes each example has, bool, shape ``(n, c)``; None where it has one label."""
        return self._members(self.labels)

    @property
    def suggested_sets(self) -> np.ndarray | None:
        """Which classes are suggested, bool, shape ``(n, c)``; None where it has one label."""
        return self._members(self.suggested)

    def _members(self, labels: np.ndarray) -> np.ndarray | None:
        sets = self.class_names
        return sets.members[labels] if isinstance(sets, LabelSets) else None

    def label_text(self, label: Any) -> str:
        """Return the name of a class where there is one, or else the number."""
        if self.labels.dtype.kind == "f":
            return format_number(float(label))
        return str(int(label)) if self.class_names is None else str(self.class_names[int(label)])

    def merge(self, other: LabelIssues) -> LabelIssues:
        """Join the tables of two shards, ordered by id, so that merges commute.

        Suspicions stay ranks within their shard, whose examples alone are neighbours, and the
        estimates are added up.

        Raises
        ------
        ValueError
            If an id is in both, or they have other signals or class names.
        """
        both = shared_ids(self.ids, other.ids)
        if len(both):
            message = (
                "Argument `other` must hold other examples. Received: "
                f"{len(both)} ids that are in both, such as {both[:3].tolist()}. Read shards "
                "with `id_fn=`, so that positions in them are no ids."
            )
            raise ValueError(message)
        mine, theirs = ((sorted(t.signals), _classes_of(t.class_names)) for t in (self, other))
        if mine != theirs:
            message = (
                "Argument `other` must have the same signals and class names. Received: "
                f"{theirs[0]} of {theirs[1]} beside {mine[0]} of {mine[1]}."
            )
            raise ValueError(message)
        width, names = min(self.neighbours.shape[1], other.neighbours.shape[1]), self.class_names
        theirs_by_name = other._kept(width)
        joined = {n: np.concatenate([c, theirs_by_name[n]]) for n, c in self._kept(width).items()}
        if isinstance(names, LabelSets):
            given, suggested = (
                np.concatenate([t._members(getattr(t, name)) for t in (self, other)])
                for name in ("labels", "suggested")
            )
            names, *numbers = LabelSets.numbered(given, suggested, names.classes)
            joined["label"], joined["suggested"] = numbers
        order = np.argsort(joined["id"], kind="stable")
        entries = [t.wrong_entries for t in (self, other) if t.wrong_entries is not None]
        return self._of_columns(
            {name: column[order] for name, column in joined.items()},
            names,
            self.estimated_number + other.estimated_number,
            [mine + theirs for mine, theirs in zip(self.interval, other.interval, strict=True)],
            sum(entries) if entries else None,
        )

    def to_pandas(self) -> Any:
        """Return a data frame with a row for each example.

        Its columns are id, label, suggested, given_probability, suggested_probability, suspicion,
        is_issue, outlier_score, duplicate_of, and ``signal_`` with the name of each signal. Where
        the classes have names, label_name and suggested_name stand beside the numbers; values have
        no probabilities.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        return require("pandas", "report", "Data frames need").DataFrame(self._columns())

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the columns of `to_pandas` to a CSV file, whole or not at all."""
        write_csv(path, self._columns())

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the columns of `to_pandas` to a Parquet file, whole or not at all."""
        write_columns(path, self._columns(), self.class_names)

    def save(self, path: str | Path) -> Path:
        """Write all of it to an ``.npz`` file, which appears whole or not at all."""
        settings = {
            "class_names": names_as_json(self.class_names),
            "estimated_number": self.estimated_number,
            "interval": self.interval,
        }
        if self.wrong_entries is not None:
            settings["wrong_entries"] = self.wrong_entries.tolist()
        return ISSUES.write(npz_path(path), settings, self._kept())

    @classmethod
    def load(cls, path: str | Path) -> LabelIssues:
        """Read what `save` wrote.

        Raises
        ------
        DataSourceError
            If the file is missing, damaged, or holds no label issues.
        """
        return ISSUES.read(npz_path(path), cls._parsed)

    @classmethod
    def _parsed(cls, settings: Settings, arrays: Arrays) -> LabelIssues:
        names = names_of_json(settings["class_names"])
        number, interval = settings["estimated_number"], settings["interval"]
        return cls._of_columns(arrays, names, number, interval, settings.get("wrong_entries"))

    @classmethod
    def _of_columns(
        cls,
        columns: Mapping[str, np.ndarray],
        class_names: Sequence[str] | None,
        number: int,
        interval: Any,
        entries: Any = None,
    ) -> LabelIssues:
        signals = {
            name.removeprefix(_SIGNAL): column
            for name, column in columns.items()
            if name.startswith(_SIGNAL)
        }
        low, high = interval
        needed = [name for name in _COLUMNS if name in columns or name not in _PROBABILITIES]
        plain: dict[str, Any] = dict.fromkeys(_PROBABILITIES)
        plain |= {_COLUMNS[name]: columns[name] for name in needed}
        copied = columns["duplicate_of"].astype(object)
        copied[copied == columns["id"]] = None
        return cls(
            **plain | {"duplicate_of": copied},
            neighbours=columns["neighbours"],
            signals=signals,
            class_names=class_names,
            estimated_number=number,
            interval=(low, high),
            wrong_entries=None if entries is None else np.array(entries, np.int64),
        )

    def _numbers(self) -> dict[str, np.ndarray]:
        """Return the columns of `to_pandas`, the names of classes apart."""
        columns = {name: getattr(self, attribute) for name, attribute in _COLUMNS.items()}
        known = {name: column for name, column in columns.items() if column is not None}
        return known | {f"{_SIGNAL}{name}": part for name, part in self.signals.items()}

    def _kept(self, width: int | None = None) -> dict[str, np.ndarray]:
        """Return all that is kept in files, where one's own id stands for no duplicate."""
        missing = self.duplicate_of == np.array(None)
        copied = np.where(missing, self.ids.astype(object), self.duplicate_of)
        return self._numbers() | {
            "duplicate_of": copied.astype(self.ids.dtype.type),
            "neighbours": self.neighbours[:, :width],
        }

    def _columns(self) -> dict[str, np.ndarray]:
        return names_beside(self._numbers(), ("label", "suggested"), self.class_names)


def _classes_of(class_names: Sequence[str] | None) -> Sequence[str] | None:
    """Return the names of classes, of which there may be sets."""
    return class_names.class_texts if isinstance(class_names, LabelSets) else class_names
