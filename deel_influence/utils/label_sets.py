"""Sets of classes as labels, where an example can have several classes at once, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, overload

import numpy as np

from ..errors import LabelError
from .digests import run_digest

TOGETHER = " + "
"""Stands between the classes of a set."""

NO_CLASS = "(none)"
"""Stands for the set of no class."""


@dataclass(frozen=True, eq=False)
class LabelSets(Sequence[str]):
    """What the labels 0 to s - 1 mean where each is a set of classes: a sequence of s names.

    The name of a set has the names of its classes, or their numbers where they have none, with
    `` + `` between them; ``(none)`` is the set of no class.

    Attributes
    ----------
    members
        Which of the c classes are in each set, bool, shape ``(s, c)``; no two rows are equal.
    classes
        What the c classes are called, where they have names.

    Raises
    ------
    LabelError
        If there is not one name for each class, or two sets could have the same name.

    Examples
    --------
    >>> import numpy as np
    >>> given = np.array([[0, 1, 0], [1, 0, 1], [0, 0, 0]], bool)
    >>> sets, numbers, _ = LabelSets.numbered(given, given, ["cat", "dog", "cow"])
    >>> [sets[number] for number in numbers]
    ['dog', 'cat + cow', '(none)']
    """

    members: np.ndarray
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check that each class has a name by which it is found in the name of a set."""
        if self.classes is None:
            return
        names, c = self.classes, self.members.shape[1]
        unclear = [name for name in names if TOGETHER in name or name in (NO_CLASS, "")]
        twice = sorted({name for name in names if names.count(name) > 1})
        if len(names) != c or unclear or twice:
            message = (
                f"Argument `class_names` must have {c} names, one for each class, all different "
                f"and without {TOGETHER!r} in them, where an example has several labels. Received: "
                f"{len(names)} names{''.join(f', {name!r}' for name in (unclear + twice)[:3])}."
            )
            raise LabelError(message)

    @classmethod
    def numbered(
        cls, given: np.ndarray, others: np.ndarray, classes: Sequence[str] | None = None
    ) -> tuple[LabelSets, np.ndarray, np.ndarray]:
        """Return the sets that occur, numbered.

        The given ones come first, so that their numbers depend on nothing else; among them those
        of fewer classes, and of earlier ones.

        Parameters
        ----------
        given, others
            Which classes are in the sets, bool, shape ``(n, c)`` and ``(m, c)``.
        classes
            What the c classes are called.

        Returns
        -------
        The sets, and the numbers ``(n,)`` and ``(m,)`` of those given and of the others.
        """
        own, numbers = _unique(given)
        both, places = _unique(np.concatenate([own, others]))
        old, new = places[: len(own)], places[len(own) :]
        order = np.concatenate([old, np.setdiff1d(np.arange(len(both)), old)])
        names = None if classes is None else tuple(map(str, classes))
        return cls(both[order], names), numbers, np.argsort(order)[new]

    @cached_property
    def class_texts(self) -> tuple[str, ...]:
        """The names of the c classes, or else their numbers."""
        return self.classes or tuple(map(str, range(self.members.shape[1])))

    @cached_property
    def _names(self) -> tuple[str, ...]:
        classes = np.array(self.class_texts, object)
        return tuple(TOGETHER.join(classes[row]) or NO_CLASS for row in self.members)

    def __len__(self) -> int:
        """Return the number s of sets."""
        return len(self.members)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        """Return the name of a set, or of several."""
        return self._names[index]

    def renamed(self, classes: Sequence[str] | None) -> LabelSets:
        """Return them with other names of the classes; None leaves those that there are."""
        return self if classes is None else replace(self, classes=tuple(map(str, classes)))

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can hold, of which `of_json` makes them again."""
        return {
            "classes": self.class_texts if self.classes else self.members.shape[1],
            "sets": [np.flatnonzero(row).tolist() for row in self.members],
        }

    @classmethod
    def of_json(cls, content: dict[str, Any]) -> LabelSets:
        """Return those that `as_json` told of."""
        classes = content["classes"]
        named = not isinstance(classes, int)
        members = np.zeros((len(content["sets"]), len(classes) if named else classes), bool)
        for row, numbers in zip(members, content["sets"], strict=True):
            row[numbers] = True
        return cls(members, tuple(classes) if named else None)


def names_as_json(class_names: Sequence[str] | None) -> Any:
    """Return names of labels as JSON holds them; `names_of_json` reads them."""
    if isinstance(class_names, LabelSets):
        return class_names.as_json()
    return None if class_names is None else [str(name) for name in class_names]


def names_of_json(content: Any) -> LabelSets | tuple[str, ...] | None:
    """Return names of labels, or of sets of them, that `names_as_json` wrote."""
    if isinstance(content, dict):
        return LabelSets.of_json(content)
    return None if content is None else tuple(content)


def run_of(ids: np.ndarray, labels: np.ndarray, class_names: Sequence[str] | None) -> str:
    """Return what `run_digest` says of labels ``(n,)`` of these names; of sets, it sees classes."""
    if isinstance(class_names, LabelSets):
        labels = class_names.members[labels]
    return run_digest(ids, labels)


def _unique(members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that are different, those of fewer classes first, and where each is."""
    keys = np.concatenate([members.sum(axis=1, keepdims=True), ~members], axis=1)
    rows, places = np.unique(keys, axis=0, return_inverse=True)
    return rows[:, 1:] == 0, places.reshape(-1)
