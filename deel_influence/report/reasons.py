"""Why an example is suspected: its signals, and the other examples that speak for and against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from ..calculators.base import BaseInfluenceCalculator
from ..calculators.sample_pool import examples_with
from ..utils.datasets import numbered_batches
from ..utils.example_ids import POSITION
from ..utils.formatting import format_share
from .inputs import Shown
from .pictures import Picture, thumbnail
from .suspicion import Issues
from .triage import Triage

REASONED = 100
"""So many examples, those of the first page, get reasons."""

MOST_PAIRS = 50
"""So many pairs of near-duplicates are shown."""

# So many examples that support a label, and that oppose it.
_PULLING = 3
_LONG_TEXT = 60


Pulling = dict[int, tuple[list[int], list[int]]]
"""By position, where the examples stand that support a label the most, and that oppose it."""


@dataclass(frozen=True)
class Other:
    """Another example.

    Attributes
    ----------
    position
        Where it stands in the data.
    id, label
        Its id, and its label in words.
    agrees
        Whether it has the label that it is a reason for or against; always where labels are values.
    """

    position: int
    id: int | str
    label: str
    agrees: bool


@dataclass(frozen=True)
class Reasons:
    """What speaks for and against the label of an example.

    Attributes
    ----------
    signals
        Names, and the shares of the examples that are less suspicious.
    nearest
        The examples that the model takes for the most similar ones.
    supporting, opposing
        The examples whose influence supports the label the most, and opposes it.
    """

    signals: list[tuple[str, str]] = field(default_factory=list)
    nearest: list[Other] = field(default_factory=list)
    supporting: list[Other] = field(default_factory=list)
    opposing: list[Other] = field(default_factory=list)

    @property
    def others(self) -> list[Other]:
        """All examples that are named."""
        return [*self.nearest, *self.supporting, *self.opposing]


@dataclass(frozen=True)
class Glimpse:
    """What is shown of another example: a small picture, or the beginning of a text."""

    picture: Picture | None
    text: str


class Others:
    """The examples of a triage, to be found by id or by position."""

    def __init__(self, triage: Triage) -> None:
        self._triage = triage
        self._places = dict(zip(triage.ids.tolist(), range(len(triage)), strict=True))

    def named(self, names: Sequence[int | str], label: int) -> list[Other]:
        """Return the examples of these names that are here, beside an example with a label."""
        return [self.at(self._places[name], label) for name in names if name in self._places]

    def at(self, position: int, label: int) -> Other:
        """Return the example at a position, beside an example with a label."""
        triage = self._triage
        own = triage.labels[position]
        name = triage.ids[position].item()
        agrees = not triage.has_classes or bool(own == label)
        return Other(position, name, triage.label_text(own), agrees)


def find_reasons(
    triage: Triage,
    positions: np.ndarray,
    issues: Issues | None,
    pulling: Pulling | None,
) -> list[Reasons | None]:
    """Return the reasons of the examples at positions ``(k,)``; None where there are none."""
    if issues is None and pulling is None:
        return [None] * len(positions)
    others, chosen = Others(triage), positions[:REASONED]
    signals = _signals(issues, chosen)
    found: list[Reasons | None] = []
    for row, position in enumerate(chosen):
        label = triage.labels[position]
        nearest = [] if issues is None else issues.neighbours[position].tolist()
        supporting, opposing = (pulling or {}).get(int(position), ([], []))
        found.append(
            Reasons(
                [(name, shares[row]) for name, shares in signals.items()],
                others.named(nearest, label),
                [others.at(place, label) for place in supporting],
                [others.at(place, label) for place in opposing],
            )
        )
    return found + [None] * (len(positions) - len(chosen))


def find_pulling(
    calculator: BaseInfluenceCalculator | None, dataset: tf.data.Dataset, positions: np.ndarray
) -> Pulling | None:
    """Return which examples support the labels of some others, and which oppose them.

    Parameters
    ----------
    calculator
        Gives the influence on losses; None gives None.
    dataset
        The training set.
    positions
        Where the others stand, of which the first are taken, shape ``(k,)``.
    """
    if calculator is None:
        return None
    queries = np.sort(positions[:REASONED])
    asked = examples_with(queries, numbered_batches(dataset, POSITION), dataset)
    values = calculator.influence_matrix(asked, dataset)
    found = {}
    for query, row in zip(queries.tolist(), values, strict=True):
        # What an example does to itself is no reason, and nor is what does nothing.
        row = np.where(np.arange(len(row)) == query, 0, row)
        found[query] = _largest(row), _largest(-row)
    return found


def _largest(values: np.ndarray) -> list[int]:
    """Return where the largest values ``(n,)`` stand, of those above 0; ties go by position."""
    least = np.partition(values, -_PULLING)[-_PULLING] if len(values) > _PULLING else 0
    chosen = np.flatnonzero((values >= least) & (values > 0))
    return chosen[np.argsort(-values[chosen], kind="stable")][:_PULLING].tolist()


def contradicting_pairs(triage: Triage, issues: Issues | None) -> list[tuple[Other, Other]]:
    """Return near-duplicates with different labels, those with the most suspicious label first."""
    if issues is None:
        return []
    others = Others(triage)
    pairs: dict[frozenset[int], tuple[Other, Other]] = {}
    has_twin = np.array([name is not None for name in issues.duplicate_of])
    for position in issues.order[has_twin[issues.order]].tolist():
        label = triage.labels[position]
        for twin in others.named([issues.duplicate_of[position]], label):
            if not twin.agrees:
                pair = (others.at(position, label), twin)
                pairs.setdefault(frozenset((position, twin.position)), pair)
    return list(pairs.values())


def mentioned(
    reasons: Sequence[Reasons | None], pairs: Sequence[tuple[Other, Other]]
) -> np.ndarray:
    """Return the positions of all examples that reasons and pairs name, sorted."""
    named = [other for one in reasons if one is not None for other in one.others]
    named += [other for pair in pairs for other in pair]
    return np.unique(np.array([other.position for other in named], np.int64))


def glimpse_of(shown: Shown) -> Glimpse:
    """Return a glimpse of an input."""
    text = " ".join(fact.text for fact in shown.facts)
    short = text if len(text) <= _LONG_TEXT else f"{text[:_LONG_TEXT]}…"
    return Glimpse(thumbnail(shown.pictures[0]) if shown.pictures else None, short)


def _signals(issues: Issues | None, positions: np.ndarray) -> dict[str, list[str]]:
    """Return for each signal which share of the examples is less suspicious than these."""
    if issues is None:
        return {}
    columns = {**issues.signals, "outlier": issues.outlier_score}
    shares = {
        name: np.searchsorted(np.sort(values), values[positions]) / len(values)
        for name, values in columns.items()
    }
    return {name: [format_share(float(x)) for x in part] for name, part in shares.items()}
