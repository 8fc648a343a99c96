"""Sets of classes that are likely to be wrong: each class is a question of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..utils.label_sets import LabelSets
from .confident_joint import WrongLabelEstimate, calibrated, estimate_wrong_labels
from .head import held_out_log_odds
from .reading import Evidence
from .signals import Sources

NUM_NEIGHBOURS = 10
"""Fewer examples share a set than a class, so that far neighbours tell less of it."""


def two_classes(log_odds: np.ndarray) -> np.ndarray:
    """Return the logarithms of the probabilities of no and yes, shape ``(..., 2)``."""
    return -np.stack([np.logaddexp(0, log_odds), np.logaddexp(0, -log_odds)], axis=-1)


def losses_of_entries(log_odds: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Return ``-log π`` of what is said of each class, shape ``(n, c)``.

    Parameters
    ----------
    log_odds
        That the examples have each class, shape ``(n, c)``.
    members
        Which they are said to have, bool, shape ``(n, c)``.
    """
    return np.logaddexp(0, np.where(members, -log_odds, log_odds))


class SetSources(Sources):
    """The sources where labels are sets of classes.

    Parameters
    ----------
    evidence
        Its labels are the numbers of sets, its probabilities log-odds.
    given
        The sets.
    settings
        Those of `Sources`, models apart.
    """

    def __init__(self, evidence: Evidence, given: LabelSets, **settings: Any) -> None:
        super().__init__(evidence, **settings)
        self.members = given.members[evidence.labels]

    @cached_property
    def _numbered(self) -> tuple[LabelSets, np.ndarray]:
        """The sets that are given or suggested, and the numbers ``(n,)`` of the latter."""
        sets, _, suggested = LabelSets.numbered(self.members, self.log_odds > 0, self._names)
        return sets, suggested

    @property
    def class_names(self) -> LabelSets:
        return self._numbered[0]

    @property
    def _k(self) -> int:
        return self._num_neighbours or NUM_NEIGHBOURS

    @cached_property
    def log_odds(self) -> np.ndarray:
        """That examples have each class, by the last layer, held out, shape ``(n, c)``."""
        return held_out_log_odds(self._features, self.members, self._folds)

    @cached_property
    def shares(self) -> np.ndarray:
        """The share of the nearest neighbours that have each class, shape ``(n, c)``."""
        near = self._nearest.first(self._k).indices
        # Class by class, so that no more is held at once than the neighbours.
        columns = [column[near].mean(axis=1) for column in self.members.T]
        return np.stack(columns, axis=1) if near.size else np.zeros(self.members.shape)

    @cached_property
    def _log_probabilities(self) -> list[np.ndarray]:
        """Of no and yes for each class, at the temperature that fits it best, each ``(n, 2)``."""
        said = self.members.astype(np.int64).T
        pairs = zip(two_classes(self.log_odds.T), said, strict=True)
        return [calibrated(found, labels) for found, labels in pairs]

    def signals(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return signals by their names, each that of the most suspicious class, ``(n,)``.

        Raises
        ------
        ValueError
            If one is none of sets.
        """
        if set(names) - set(SET_SIGNALS):
            message = (
                f"Argument `signals` must name some of {', '.join(SET_SIGNALS)} where an example "
                f"has several labels. Received: {tuple(names)!r}. Leave out the others."
            )
            raise ValueError(message)
        return {name: SET_SIGNALS[name](self).max(axis=1) for name in names}

    def suggestions(self) -> dict[str, Any]:
        found = np.stack(self._log_probabilities, axis=1)

        def probability(members: np.ndarray) -> np.ndarray:
            picked = np.take_along_axis(found, members.astype(np.int64)[:, :, None], axis=2)
            return np.exp(picked.sum(axis=(1, 2)))

        sets, suggested = self._numbered
        return {
            "suggested": suggested,
            "given_probability": probability(self.members),
            "suggested_probability": probability(sets.members[suggested]),
        }

    def estimate(self) -> WrongLabelEstimate:
        n = len(self.members)
        found = [
            estimate_wrong_labels(
                np.exp(self._log_probabilities[k]),
                np.stack([1 - self.shares[:, k], self.shares[:, k]], axis=1),
                None,
                self.members[:, k].astype(np.int64),
            )
            for k in range(self.members.shape[1])
        ]
        entries = np.array([one.number for one in found], np.int64)

        def examples(counts: Sequence[int] | np.ndarray) -> int:
            """Return how many have a wrong entry, where those of the classes are independent."""
            return round(n * (1 - np.prod(1 - np.array(counts) / n)))

        low, high = (examples([one.interval[end] for one in found]) for end in (0, 1))
        return WrongLabelEstimate(examples(entries), (low, high), entries)


SET_SIGNALS: dict[str, Callable[[SetSources], np.ndarray]] = {
    "loss": lambda s: losses_of_entries(s.evidence.log_probabilities, s.members),
    "head": lambda s: losses_of_entries(s.log_odds, s.members),
    "neighbours": lambda s: np.abs(s.members - s.shares),
}
